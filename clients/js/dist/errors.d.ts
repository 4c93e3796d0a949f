/** What can go wrong, each with a code. */
export type ErrorCode = 
/** An argument is wrong in itself; thrown at once, and nothing has changed. */
'invalid_argument'
/** The client was closed, or has given up. */
 | 'closed'
/** There is no room for it in the outbox, or it was the oldest there when room was made. It was not sent. */
 | 'outbox_full'
/** The connection ended before the server answered: whether it happened is not known. */
 | 'connection_lost'
/** No connection came about, or nobody could be registered on it. */
 | 'connect_failed'
/** The server did not answer in time. */
 | 'timeout'
/** The server said no: `status` is its number, `topic` what it is about. */
 | 'refused'
/** Another client has taken the node id over (409). The client is closed. */
 | 'replaced'
/** The server said what is no message of the protocol, or does not speak `heartbus.json`. */
 | 'protocol'
/** A handler of the application threw: `cause` is what. */
 | 'handler';
export interface ErrorDetails {
    /** Of an ERROR of the server's: 400, 401, 403, 404, 408, 409, 413, 429, 500, 503. */
    status?: number;
    topic?: string;
    cause?: unknown;
}
export declare class HeartbusError extends Error {
    readonly name = "HeartbusError";
    readonly code: ErrorCode;
    readonly status: number | undefined;
    readonly topic: string | undefined;
    constructor(code: ErrorCode, message: string, details?: ErrorDetails);
}
