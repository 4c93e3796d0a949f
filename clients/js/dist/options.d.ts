/** What a client may be told, its defaults, and what is refused. */
import type { Clock } from './clock.js';
import type { OutboxPolicy } from './outbox.js';
/** What is used of a WebSocket. The browser's, Node's and that of the package `ws` are such. */
export interface SocketLike {
    readonly protocol: string;
    readonly bufferedAmount: number;
    onopen: ((event: any) => void) | null;
    onmessage: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    send(text: string): void;
    close(code?: number, reason?: string): void;
    /** Only `ws` has it: without it a dead connection would keep the process for half a minute. */
    terminate?(): void;
}
export type SocketConstructor = new (url: string, protocols: string[]) => SocketLike;
/** Times are milliseconds. */
export interface Options {
    /** 1 to 255 bytes. Without one the server makes one up, which is kept over reconnects. */
    nodeId?: string;
    /** Sent with every registration: at most 64 KiB as JSON. */
    metadata?: Record<string, unknown>;
    /** Between two heartbeats (10,000). Well below the server's `heartbeat_timeout`. */
    heartbeatInterval?: number;
    /** Until the client is registered, from the beginning of a try on (5,000). */
    connectTimeout?: number;
    /** For the answer to what was sent (10,000). */
    requestTimeout?: number;
    /** Whether it comes back by itself (true). Never after `close()`, nor after another client took the node id over. */
    reconnect?: boolean;
    /** Base of the exponential back-off with full jitter (1,000). */
    reconnectBase?: number;
    /** The longest wait between two tries (60,000). */
    reconnectMax?: number;
    /** Tries without a registration in between until it gives up (0: never). */
    reconnectAttempts?: number;
    /** Messages that may wait to be sent (1,000). */
    outboxMessages?: number;
    /** Bytes that may wait to be sent (1,048,576). */
    outboxBytes?: number;
    /** What becomes of one more: `reject` refuses it, `drop_oldest` makes room (`reject`). */
    outboxPolicy?: OutboxPolicy;
    /** The longest message, as JSON (10,485,760, which is the server's own default). */
    maxMessageBytes?: number;
    /** Where there is no global `WebSocket`, as in Node 18 and 20: that of the package `ws`. */
    WebSocket?: SocketConstructor;
    /** For tests. */
    clock?: Clock;
}
export type Settings = Required<Omit<Options, 'nodeId'>> & {
    nodeId: string | null;
};
export declare function settle(address: string | {
    href: string;
}, options: Options): Settings & {
    url: string;
};
export declare function checkNode(nodeId: string | null, metadata: Record<string, unknown>): void;
