/** What can go wrong, each with a code. */
export class HeartbusError extends Error {
    name = 'HeartbusError';
    code;
    status;
    topic;
    constructor(code, message, details = {}) {
        super(message, 'cause' in details ? { cause: details.cause } : undefined);
        this.code = code;
        this.status = details.status;
        this.topic = details.topic;
    }
}
