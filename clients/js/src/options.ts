/** What a client may be told, its defaults, and what is refused. */

import type { Clock } from './clock.js';
import { systemClock } from './clock.js';
import { HeartbusError } from './errors.js';
import type { OutboxPolicy } from './outbox.js';
import { isWellFormed, utf8Length } from './topics.js';

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

export type Settings = Required<Omit<Options, 'nodeId'>> & { nodeId: string | null };

const DEFAULTS = {
    heartbeatInterval: 10_000,
    connectTimeout: 5_000,
    requestTimeout: 10_000,
    reconnectBase: 1_000,
    reconnectMax: 60_000,
    reconnectAttempts: 0,
    outboxMessages: 1_000,
    outboxBytes: 1 << 20,
    maxMessageBytes: 10_485_760,
};

const MAX_NODE_ID_BYTES = 255;
const MAX_METADATA_BYTES = 65_536;
/** Timers of browsers and of Node go no further. */
const MAX_NUMBER = 2 ** 31 - 1;

export function settle(address: string | { href: string }, options: Options): Settings & { url: string } {
    const numbers = { ...DEFAULTS };
    for (const name of Object.keys(DEFAULTS) as (keyof typeof DEFAULTS)[]) {
        const value = options[name] ?? DEFAULTS[name];
        const least = name === 'reconnectAttempts' || name === 'outboxMessages' || name === 'outboxBytes' ? 0 : 1;
        if (!Number.isInteger(value) || value < least || value > MAX_NUMBER) {
            throw invalid(`${name} is a whole number from ${least} to ${MAX_NUMBER}`);
        }
        numbers[name] = value;
    }
    const policy = options.outboxPolicy ?? 'reject';
    if (policy !== 'reject' && policy !== 'drop_oldest') {
        throw invalid("outboxPolicy is 'reject' or 'drop_oldest'");
    }
    const WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
    if (WebSocket === undefined) {
        throw invalid('there is no WebSocket here: hand in that of the package ws as the option WebSocket');
    }
    const url = typeof address === 'string' ? address : address.href;
    if (!/^(wss?|https?):\/\/[^/]/.test(url)) {
        throw invalid('the url begins with ws:// or wss://');
    }
    checkNode(options.nodeId ?? null, options.metadata ?? {});
    return {
        ...numbers,
        url: url.replace(/^http/, 'ws'),
        nodeId: options.nodeId ?? null,
        metadata: options.metadata ?? {},
        reconnect: options.reconnect ?? true,
        outboxPolicy: policy,
        WebSocket,
        clock: options.clock ?? systemClock,
    };
}

export function checkNode(nodeId: string | null, metadata: Record<string, unknown>): void {
    if (nodeId !== null && (typeof nodeId !== 'string' || nodeId === '' || !isWellFormed(nodeId) || utf8Length(nodeId) > MAX_NODE_ID_BYTES)) {
        throw invalid(`a node id is a text of 1 to ${MAX_NODE_ID_BYTES} bytes`);
    }
    let text: string | undefined;
    try {
        text = typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata) ? JSON.stringify(metadata) : undefined;
    } catch {
        text = undefined;
    }
    if (text === undefined || utf8Length(text) > MAX_METADATA_BYTES) {
        throw invalid(`metadata is an object of at most ${MAX_METADATA_BYTES} bytes as JSON`);
    }
}

function invalid(why: string): HeartbusError {
    return new HeartbusError('invalid_argument', why);
}
