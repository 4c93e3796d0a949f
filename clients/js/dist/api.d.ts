/** What applications see of a client: its states, what it tells, and what it hands out. */
import type { HeartbusError } from './errors.js';
import type { Gap, Message, Subscribed } from './feeds.js';
import type { Position, Registered } from './messages.js';
/**
 * `idle`: not begun; `connecting`: until it is registered; `open`: registered; `waiting`: for the next try; `closed`: by `close()`, or it gave up.
 * `connect()` leads out of `idle` and `closed`.
 */
export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed';
export interface Closed {
    /** Of WebSocket's close frame; 1006 where there was none. */
    code: number;
    reason: string;
    /** Milliseconds until the next try; `null`: there is none. */
    retryIn: number | null;
}
export interface ClientEvents {
    state: {
        state: State;
        previous: State;
    };
    /** At each registration. */
    register: Registered & {
        isReturn: boolean;
    };
    /** What the server's application has sent to this node. */
    data: {
        data: string;
        channelId: number;
    };
    /** A publication that nobody here has subscribed to: the server has put this node into its topic. */
    message: Message;
    subscribe: Subscribed;
    gap: Gap;
    error: HeartbusError;
    /** A connection, or a try, is over. */
    close: Closed;
}
export interface Publication {
    /** `null` where the topic has none: nobody has subscribed to it by its name, and nothing of it is kept. */
    position: Position | null;
    /** For how many subscriptions it was queued. */
    reach: number;
}
export interface SubscribeOptions {
    /** Behind which position to begin; `START` for all that is kept. Without it: with what is published from now on. */
    since?: Position;
    /** Told before the message behind it. */
    onGap?: (gap: Gap) => void;
}
export interface Subscription {
    readonly filter: string;
    /** The first answer of the server's. Rejected where it refuses, or after `unsubscribe()`. */
    readonly ready: Promise<Subscribed>;
    /** Of the last message that was delivered; `null` before the first answer and for filters with wildcards. */
    readonly position: Position | null;
    /** The server brings messages at this moment. */
    readonly isLive: boolean;
    /** No message is delivered any more once this was called. Resolved when the server has answered. */
    unsubscribe(): Promise<void>;
}
export interface Statistics {
    state: State;
    nodeId: string | null;
    registrations: number;
    sent: number;
    received: number;
    waitingMessages: number;
    waitingBytes: number;
    /** Publications that the server has not answered. */
    unanswered: number;
    /** Messages that the outbox had no room for, and those that went to make room. */
    refused: number;
    dropped: number;
    /** Messages that were there already, and were not delivered again. */
    duplicates: number;
    gaps: number;
}
/** All that is kept of a topic. */
export declare const START: Position;
