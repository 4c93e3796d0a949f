/** `heartbus.json` as it is on the wire: the objects that a server sends, read with care. */
/** Where in a topic a message stands: its number, counted from 1 on within one life of the topic, the epoch. */
export interface Position {
    readonly offset: number;
    readonly epoch: number;
}
export interface Registered {
    nodeId: string;
    channelId: number;
    /** The server's clock, in Unix seconds. */
    serverTime: number;
}
export type FromServer = {
    type: 'register';
    registered: Registered;
} | {
    type: 'heartbeat' | 'pong';
} | {
    type: 'data';
    channelId: number;
    data: string;
} | {
    type: 'message';
    topic: string;
    position: Position | null;
    data: string;
} | {
    type: 'subscribe';
    filter: string;
    position: Position | null;
    recovered: boolean;
} | {
    type: 'unsubscribe';
    filter: string;
} | {
    type: 'publish';
    id: number;
    position: Position | null;
    reach: number;
} | {
    type: 'error';
    status: number;
    message: string;
    topic: string | null;
    id: number | null;
};
/** What a server said; `null` for a type that is not known, which newer servers may have. Throws what is no message. */
export declare function read(text: unknown): FromServer | null;
/** What is sent as data: a string as it is, anything else as the JSON that it is. Throws for what neither can be. */
export declare function payload(data: unknown): string;
/** The bytes of what is some; `null` for anything else. */
export declare function bytesOf(data: unknown): Uint8Array | null;
export declare function base64(bytes: Uint8Array): string;
/** Throws unless it is a position that a server may have given. */
export declare function checkPosition(since: Position): void;
