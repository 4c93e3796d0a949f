/**
 * What is subscribed to, and how far each subscription has come.
 *
 * Owns positions: which message is new, which was there before, where something is missing. Knows neither sockets nor time; whoever
 * uses it sends what it asks for and hands in what the server answers.
 */
import { HeartbusError } from './errors.js';
import type { Position } from './messages.js';
/** A publication, as a handler gets it. */
export declare class Message {
    readonly topic: string;
    /** The text that was published. */
    readonly data: string;
    /** `null` where the topic has none: it is reached through a filter, and nothing of it is kept. */
    readonly position: Position | null;
    constructor(topic: string, 
    /** The text that was published. */
    data: string, 
    /** `null` where the topic has none: it is reached through a filter, and nothing of it is kept. */
    position: Position | null);
    /** The data, read as JSON. Throws a `SyntaxError` where it is none. */
    json<T = unknown>(): T;
}
/** Something is missing: told before the message behind it. */
export interface Gap {
    filter: string;
    /**
     * `not_kept`: the server does not have it any more, or begins another epoch; `no_position`: a filter with wildcards cannot be made up for
     * after a reconnect; `skipped`: numbers are left out, because this client was too slow, or because the messages were not for it (`except`,
     * or bytes that are no text).
     */
    reason: 'not_kept' | 'no_position' | 'skipped';
    /** Of the last message before it, if there was one. */
    after: Position | null;
}
export interface Subscribed {
    filter: string;
    /** Of the last message that was published before; `null` for a filter with wildcards. */
    position: Position | null;
    /** Nothing is missing. `false` was told as a gap as well. */
    recovered: boolean;
    /** It had been subscribed before: this is after a reconnect. */
    isReturn: boolean;
}
export interface Follower {
    deliver(message: Message): void;
    gap(gap: Gap): void;
    subscribed(subscribed: Subscribed): void;
    refused(error: HeartbusError): void;
}
export type TopicRequest = {
    type: 'subscribe';
    filter: string;
    offset?: number;
    epoch?: number;
} | {
    type: 'unsubscribe';
    filter: string;
};
/** One subscription of the server's, whatever the number of those who follow it. */
export interface Feed {
    readonly filter: string;
    readonly isWild: boolean;
    readonly followers: Set<Follower>;
    /** Of the last message; behind it the next one is new. */
    cursor: Position | null;
    /** The server may know of it on this connection. */
    isAsked: boolean;
    /** The server has answered on this connection. */
    isLive: boolean;
    wasLive: boolean;
    /** That something is missing before the next message was told already. */
    isGapTold: boolean;
    /**
     * Of the last message that was delivered although the feed had begun behind it: it was under way because the server had put the node into
     * the topic. `null`: no more of these come.
     */
    underWay: number | null;
}
export declare class Feeds {
    private readonly onGap;
    private readonly feeds;
    /** What the server has not answered, by filter: it answers in order. */
    private readonly pending;
    /** What is to be unsubscribed and was not asked yet, and who waits for it. */
    private readonly leaving;
    /** How many answers the server owes. */
    unanswered: number;
    duplicates: number;
    gaps: number;
    constructor(onGap?: (gap: Gap) => void);
    /** The feed of a filter, begun where there is none yet (`isNew`). */
    follow(filter: string, follower: Follower, since: Position | null): {
        feed: Feed;
        isNew: boolean;
    };
    /** True when nobody follows the feed any more: it is to be unsubscribed. */
    unfollow(feed: Feed, follower: Follower): boolean;
    /**
     * All of them, in the order in which they are to be subscribed: those that go on from a position first. What was missed of a topic has come
     * by the time a filter with wildcards brings what is new of it, so nothing overtakes.
     */
    all(): Feed[];
    /**
     * Whether a filter is not to be asked for yet: a topic that it matches is to go on from a position, and what the filter brought of that
     * would come before what is missing.
     */
    mustWait(filter: string): boolean;
    /** What is to be sent about a filter; `null`: nothing any more. */
    request(filter: string): TopicRequest | null;
    /** The server is to know a filter no longer. */
    leave(filter: string, unsubscribed: () => void): void;
    /** Whether the server owes an answer about a filter. */
    isPending(filter: string): boolean;
    /** What the server owes an answer about. */
    pendingFilters(): string[];
    /** What has no answer yet was skipped, as a server does with what is too much for it: all of that is to be asked again. */
    skipped(): string[];
    subscribed(filter: string, position: Position | null, recovered: boolean): Subscribed | null;
    unsubscribed(filter: string): void;
    /** The server refused what it was asked first about this filter; false when it was asked nothing. */
    refused(filter: string, error: HeartbusError): boolean;
    /** The registration is over, and every subscription with it. */
    disconnected(): void;
    private forgetPending;
    /** Gives a message to everybody whom it is for. False when nobody has asked for it. */
    dispatch(message: Message): boolean;
    private isLeft;
    /** False for what was there already. `isHeard`: a filter brings it, so whoever was to get it does. */
    private advance;
    /** Behind which position messages are new, after an answer. */
    private behind;
    private deliver;
    private tellGap;
    private expect;
    private settle;
}
