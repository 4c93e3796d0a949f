/**
 * What is subscribed to, and how far each subscription has come.
 *
 * Owns positions: which message is new, which was there before, where something is missing. Knows neither sockets nor time; whoever
 * uses it sends what it asks for and hands in what the server answers.
 */

import { HeartbusError } from './errors.js';
import type { Position } from './messages.js';
import { isWild, matches } from './topics.js';

/** A publication, as a handler gets it. */
export class Message {
    constructor(
        readonly topic: string,
        /** The text that was published. */
        readonly data: string,
        /** `null` where the topic has none: it is reached through a filter, and nothing of it is kept. */
        readonly position: Position | null,
    ) {}

    /** The data, read as JSON. Throws a `SyntaxError` where it is none. */
    json<T = unknown>(): T {
        return JSON.parse(this.data) as T;
    }
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

export type TopicRequest = { type: 'subscribe'; filter: string; offset?: number; epoch?: number } | { type: 'unsubscribe'; filter: string };

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

type Pending = { feed: Feed; since: Position | null } | { unsubscribed: () => void };

export class Feeds {
    private readonly feeds = new Map<string, Feed>();
    /** What the server has not answered, by filter: it answers in order. */
    private readonly pending = new Map<string, Pending[]>();
    /** What is to be unsubscribed and was not asked yet, and who waits for it. */
    private readonly leaving = new Map<string, () => void>();
    /** How many answers the server owes. */
    unanswered = 0;
    duplicates = 0;
    gaps = 0;

    constructor(private readonly onGap: (gap: Gap) => void = () => undefined) {}

    /** The feed of a filter, begun where there is none yet (`isNew`). */
    follow(filter: string, follower: Follower, since: Position | null): { feed: Feed; isNew: boolean } {
        const found = this.feeds.get(filter);
        if (since !== null) {
            if (isWild(filter)) {
                throw invalid(filter, 'a filter with + or # has no position to go on from');
            }
            if (found !== undefined) {
                throw invalid(filter, 'it is subscribed to already; only the first subscription says where to begin');
            }
            const wide = [...this.feeds.values()].find((feed) => feed.isWild && matches(feed.filter, filter));
            if (wide !== undefined) {
                throw invalid(filter, `${JSON.stringify(wide.filter)} brings it already; subscribe with a position first`);
            }
        }
        if (found !== undefined) {
            found.followers.add(follower);
            return { feed: found, isNew: false };
        }
        const feed: Feed = {
            filter,
            isWild: isWild(filter),
            followers: new Set([follower]),
            cursor: since,
            isAsked: false,
            isLive: false,
            wasLive: false,
            isGapTold: false,
            underWay: null,
        };
        this.feeds.set(filter, feed);
        return { feed, isNew: true };
    }

    /** True when nobody follows the feed any more: it is to be unsubscribed. */
    unfollow(feed: Feed, follower: Follower): boolean {
        feed.followers.delete(follower);
        if (feed.followers.size > 0 || this.feeds.get(feed.filter) !== feed) {
            return false;
        }
        this.feeds.delete(feed.filter);
        return true;
    }

    /**
     * All of them, in the order in which they are to be subscribed: those that go on from a position first. What was missed of a topic has come
     * by the time a filter with wildcards brings what is new of it, so nothing overtakes.
     */
    all(): Feed[] {
        const all = [...this.feeds.values()];
        return [...all.filter((feed) => !feed.isWild), ...all.filter((feed) => feed.isWild)];
    }

    /**
     * Whether a filter is not to be asked for yet: a topic that it matches is to go on from a position, and what the filter brought of that
     * would come before what is missing.
     */
    mustWait(filter: string): boolean {
        const feed = this.feeds.get(filter);
        const goesOn = (other: Feed) => !other.isWild && !other.isLive && other.cursor !== null && matches(filter, other.filter);
        return feed !== undefined && feed.isWild && !feed.isLive && [...this.feeds.values()].some(goesOn);
    }

    /** What is to be sent about a filter; `null`: nothing any more. */
    request(filter: string): TopicRequest | null {
        const feed = this.feeds.get(filter);
        const left = this.leaving.get(filter);
        this.leaving.delete(filter);
        if (feed === undefined) {
            if (left === undefined) {
                return null;
            }
            this.expect(filter, { unsubscribed: left });
            return { type: 'unsubscribe', filter };
        }
        // It is wanted again before it was said that it is not.
        left?.();
        if (feed.isLive || this.pending.get(filter)?.some((pending) => 'feed' in pending && pending.feed === feed)) {
            return null;
        }
        const since = feed.cursor;
        feed.isAsked = true;
        this.expect(filter, { feed, since });
        return { type: 'subscribe', filter, ...(since === null ? {} : { offset: since.offset, epoch: since.epoch }) };
    }

    /** The server is to know a filter no longer. */
    leave(filter: string, unsubscribed: () => void): void {
        const before = this.leaving.get(filter);
        this.leaving.set(filter, () => {
            before?.();
            unsubscribed();
        });
    }

    /** Whether the server owes an answer about a filter. */
    isPending(filter: string): boolean {
        return this.pending.has(filter);
    }

    /** What the server owes an answer about. */
    pendingFilters(): string[] {
        return [...this.pending.keys()];
    }

    /** What has no answer yet was skipped, as a server does with what is too much for it: all of that is to be asked again. */
    skipped(): string[] {
        const filters = this.pendingFilters();
        const pending = [...this.pending];
        this.forgetPending();
        for (const [filter, list] of pending) {
            list.forEach((each) => 'unsubscribed' in each && this.leave(filter, each.unsubscribed));
        }
        return filters;
    }

    subscribed(filter: string, position: Position | null, recovered: boolean): Subscribed | null {
        const feed = this.feeds.get(filter);
        const isAboutReplay = position === null && !isWild(filter);
        if (isAboutReplay) {
            // Not an answer: the server has lost something in the middle of what it brings.
            if (feed?.isLive && !recovered) {
                this.tellGap(feed, 'not_kept');
            }
            return null;
        }
        const pending = this.pending.get(filter)?.[0];
        if (pending === undefined || !('feed' in pending)) {
            return null;
        }
        this.settle(filter);
        if (pending.feed !== feed) {
            // It was given up meanwhile.
            return null;
        }
        const isReturn = feed.wasLive;
        const isWhole = recovered && !(feed.isWild && isReturn);
        const before = feed.cursor;
        feed.cursor = this.behind(pending.since, position);
        feed.underWay = pending.since === null ? 0 : null;
        feed.isLive = feed.wasLive = true;
        feed.isGapTold = false;
        if (!isWhole) {
            this.tellGap(feed, feed.isWild ? 'no_position' : 'not_kept', before);
        }
        const subscribed: Subscribed = { filter, position, recovered: isWhole, isReturn };
        [...feed.followers].forEach((follower) => follower.subscribed(subscribed));
        return subscribed;
    }

    unsubscribed(filter: string): void {
        const pending = this.pending.get(filter)?.[0];
        if (pending !== undefined && 'unsubscribed' in pending) {
            this.settle(filter);
            pending.unsubscribed();
        }
    }

    /** The server refused what it was asked first about this filter; false when it was asked nothing. */
    refused(filter: string, error: HeartbusError): boolean {
        const pending = this.pending.get(filter)?.[0];
        if (pending === undefined) {
            return false;
        }
        this.settle(filter);
        if ('unsubscribed' in pending) {
            pending.unsubscribed();
        } else if (this.feeds.get(filter) === pending.feed) {
            this.feeds.delete(filter);
            [...pending.feed.followers].forEach((follower) => follower.refused(error));
        }
        return true;
    }

    /** The registration is over, and every subscription with it. */
    disconnected(): void {
        const left = [...this.pending.values()].flatMap((list) => list.flatMap((each) => ('unsubscribed' in each ? [each.unsubscribed] : [])));
        left.push(...this.leaving.values());
        this.forgetPending();
        this.leaving.clear();
        this.feeds.forEach((feed) => (feed.isLive = feed.isAsked = false));
        left.forEach((unsubscribed) => unsubscribed());
    }

    private forgetPending(): void {
        this.pending.clear();
        this.unanswered = 0;
    }

    /** Gives a message to everybody whom it is for. False when nobody has asked for it. */
    dispatch(message: Message): boolean {
        const exact = this.feeds.get(message.topic);
        const wide = [...this.feeds.values()].filter((feed) => feed.isWild && feed.isLive && matches(feed.filter, message.topic));
        const isExact = exact !== undefined && !exact.isWild && exact.isLive;
        if (isExact && this.advance(exact, message.position, wide.length > 0)) {
            this.deliver(exact, message);
        }
        wide.forEach((feed) => this.deliver(feed, message));
        // What was under way when it was unsubscribed is nobody's.
        return isExact || wide.length > 0 || this.isLeft(message.topic);
    }

    private isLeft(topic: string): boolean {
        const asked = [...this.pending].filter(([, pending]) => isLeaving(pending)).map(([filter]) => filter);
        return [...asked, ...this.leaving.keys()].some((filter) => matches(filter, topic));
    }

    /** False for what was there already. `isHeard`: a filter brings it, so whoever was to get it does. */
    private advance(feed: Feed, position: Position | null, isHeard: boolean): boolean {
        const cursor = feed.cursor;
        if (position === null || cursor === null) {
            return true;
        }
        if (position.epoch === cursor.epoch && position.offset <= cursor.offset) {
            if (feed.underWay !== null && position.offset > feed.underWay) {
                feed.underWay = position.offset;
                return !isHeard;
            }
            this.duplicates++;
            return false;
        }
        const isNext = position.epoch === cursor.epoch && position.offset === cursor.offset + 1;
        if (!isNext && !feed.isGapTold) {
            this.tellGap(feed, 'skipped');
        }
        feed.cursor = position;
        feed.underWay = null;
        feed.isGapTold = false;
        return true;
    }

    /** Behind which position messages are new, after an answer. */
    private behind(since: Position | null, now: Position | null): Position | null {
        if (since === null || now === null) {
            return now;
        }
        const isOfThisLife = since.epoch === now.epoch && since.offset <= now.offset;
        return isOfThisLife ? since : { offset: 0, epoch: now.epoch };
    }

    private deliver(feed: Feed, message: Message): void {
        for (const follower of [...feed.followers]) {
            // One may have left because of what another was told.
            if (feed.followers.has(follower)) {
                follower.deliver(message);
            }
        }
    }

    private tellGap(feed: Feed, reason: Gap['reason'], after = feed.cursor): void {
        this.gaps++;
        feed.isGapTold = true;
        const isSomewhere = after !== null && after.epoch !== 0;
        const gap: Gap = { filter: feed.filter, reason, after: isSomewhere ? after : null };
        this.onGap(gap);
        [...feed.followers].forEach((follower) => follower.gap(gap));
    }

    private expect(filter: string, pending: Pending): void {
        this.pending.set(filter, [...(this.pending.get(filter) ?? []), pending]);
        this.unanswered++;
    }

    private settle(filter: string): void {
        const rest = (this.pending.get(filter) ?? []).slice(1);
        this.unanswered--;
        if (rest.length > 0) {
            this.pending.set(filter, rest);
        } else {
            this.pending.delete(filter);
        }
    }
}

function isLeaving(pending: Pending[]): boolean {
    return pending.some((each) => 'unsubscribed' in each);
}

function invalid(filter: string, why: string): HeartbusError {
    return new HeartbusError('invalid_argument', `${JSON.stringify(filter)}: ${why}`, { topic: filter });
}
