/**
 * What is subscribed to, and how far each subscription has come.
 *
 * Owns positions: which message is new, which was there before, where something is missing. Knows neither sockets nor time; whoever
 * uses it sends what it asks for and hands in what the server answers.
 */
import { HeartbusError } from './errors.js';
import { isWild, matches } from './topics.js';
/** A publication, as a handler gets it. */
export class Message {
    topic;
    data;
    position;
    constructor(topic, 
    /** The text that was published. */
    data, 
    /** `null` where the topic has none: it is reached through a filter, and nothing of it is kept. */
    position) {
        this.topic = topic;
        this.data = data;
        this.position = position;
    }
    /** The data, read as JSON. Throws a `SyntaxError` where it is none. */
    json() {
        return JSON.parse(this.data);
    }
}
export class Feeds {
    onGap;
    feeds = new Map();
    /** What the server has not answered, by filter: it answers in order. */
    pending = new Map();
    duplicates = 0;
    gaps = 0;
    constructor(onGap = () => undefined) {
        this.onGap = onGap;
    }
    /** The feed of a filter, begun where there is none yet (`isNew`). */
    follow(filter, follower, since) {
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
        const feed = {
            filter,
            isWild: isWild(filter),
            followers: new Set([follower]),
            cursor: since,
            isLive: false,
            wasLive: false,
            isGapTold: false,
        };
        this.feeds.set(filter, feed);
        return { feed, isNew: true };
    }
    /** True when nobody follows the feed any more: it is to be unsubscribed. */
    unfollow(feed, follower) {
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
    all() {
        const all = [...this.feeds.values()];
        return [...all.filter((feed) => !feed.isWild), ...all.filter((feed) => feed.isWild)];
    }
    /** What to send for a feed. */
    subscribe(feed) {
        const since = feed.cursor;
        this.expect(feed.filter, { feed, since });
        return { type: 'subscribe', filter: feed.filter, ...(since === null ? {} : { offset: since.offset, epoch: since.epoch }) };
    }
    /** An UNSUBSCRIBE was sent. */
    expectUnsubscribed(filter, unsubscribed) {
        this.expect(filter, { unsubscribed });
    }
    /** Whether the server owes an answer. */
    isPending(feed) {
        return this.pending.get(feed.filter)?.some((pending) => 'feed' in pending && pending.feed === feed) ?? false;
    }
    subscribed(filter, position, recovered) {
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
        feed.isLive = feed.wasLive = true;
        feed.isGapTold = false;
        if (!isWhole) {
            this.tellGap(feed, feed.isWild ? 'no_position' : 'not_kept', before);
        }
        const subscribed = { filter, position, recovered: isWhole, isReturn };
        [...feed.followers].forEach((follower) => follower.subscribed(subscribed));
        return subscribed;
    }
    unsubscribed(filter) {
        const pending = this.pending.get(filter)?.[0];
        if (pending !== undefined && 'unsubscribed' in pending) {
            this.settle(filter);
            pending.unsubscribed();
        }
    }
    /** The server refused what it was asked first about this filter; false when it was asked nothing. */
    refused(filter, error) {
        const pending = this.pending.get(filter)?.[0];
        if (pending === undefined) {
            return false;
        }
        this.settle(filter);
        if ('unsubscribed' in pending) {
            pending.unsubscribed();
        }
        else if (this.feeds.get(filter) === pending.feed) {
            this.feeds.delete(filter);
            [...pending.feed.followers].forEach((follower) => follower.refused(error));
        }
        return true;
    }
    /** The registration is over, and every subscription with it. */
    disconnected() {
        const pending = [...this.pending.values()].flat();
        this.pending.clear();
        this.feeds.forEach((feed) => (feed.isLive = false));
        pending.forEach((each) => 'unsubscribed' in each && each.unsubscribed());
    }
    /** Gives a message to everybody whom it is for. False when nobody has asked for it. */
    dispatch(message) {
        const exact = this.feeds.get(message.topic);
        const wide = [...this.feeds.values()].filter((feed) => feed.isWild && feed.isLive && matches(feed.filter, message.topic));
        const isExact = exact !== undefined && !exact.isWild && exact.isLive;
        if (isExact && this.advance(exact, message.position)) {
            this.deliver(exact, message);
        }
        wide.forEach((feed) => this.deliver(feed, message));
        // What was under way when it was unsubscribed is nobody's.
        return isExact || wide.length > 0 || [...this.pending].some(([filter, pending]) => isLeaving(pending) && matches(filter, message.topic));
    }
    /** False for what was there already. */
    advance(feed, position) {
        const cursor = feed.cursor;
        if (position === null || cursor === null) {
            return true;
        }
        if (position.epoch === cursor.epoch && position.offset <= cursor.offset) {
            this.duplicates++;
            return false;
        }
        const isNext = position.epoch === cursor.epoch && position.offset === cursor.offset + 1;
        if (!isNext && !feed.isGapTold) {
            this.tellGap(feed, 'skipped');
        }
        feed.cursor = position;
        feed.isGapTold = false;
        return true;
    }
    /** Behind which position messages are new, after an answer. */
    behind(since, now) {
        if (since === null || now === null) {
            return now;
        }
        const isOfThisLife = since.epoch === now.epoch && since.offset <= now.offset;
        return isOfThisLife ? since : { offset: 0, epoch: now.epoch };
    }
    deliver(feed, message) {
        for (const follower of [...feed.followers]) {
            // One may have left because of what another was told.
            if (feed.followers.has(follower)) {
                follower.deliver(message);
            }
        }
    }
    tellGap(feed, reason, after = feed.cursor) {
        this.gaps++;
        feed.isGapTold = true;
        const isSomewhere = after !== null && after.epoch !== 0;
        const gap = { filter: feed.filter, reason, after: isSomewhere ? after : null };
        this.onGap(gap);
        [...feed.followers].forEach((follower) => follower.gap(gap));
    }
    expect(filter, pending) {
        this.pending.set(filter, [...(this.pending.get(filter) ?? []), pending]);
    }
    settle(filter) {
        const rest = (this.pending.get(filter) ?? []).slice(1);
        if (rest.length > 0) {
            this.pending.set(filter, rest);
        }
        else {
            this.pending.delete(filter);
        }
    }
}
function isLeaving(pending) {
    return pending.some((each) => 'unsubscribed' in each);
}
function invalid(filter, why) {
    return new HeartbusError('invalid_argument', `${JSON.stringify(filter)}: ${why}`, { topic: filter });
}
