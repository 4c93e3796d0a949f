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
    /** What is to be unsubscribed and was not asked yet, and who waits for it. */
    leaving = new Map();
    /** How many answers the server owes. */
    unanswered = 0;
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
    /**
     * Whether a filter is not to be asked for yet: a topic that it matches is to go on from a position, and what the filter brought of that
     * would come before what is missing.
     */
    mustWait(filter) {
        const feed = this.feeds.get(filter);
        const goesOn = (other) => !other.isWild && !other.isLive && other.cursor !== null && matches(filter, other.filter);
        return feed !== undefined && feed.isWild && !feed.isLive && [...this.feeds.values()].some(goesOn);
    }
    /** What is to be sent about a filter; `null`: nothing any more. */
    request(filter) {
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
    leave(filter, unsubscribed) {
        const before = this.leaving.get(filter);
        this.leaving.set(filter, () => {
            before?.();
            unsubscribed();
        });
    }
    /** Whether the server owes an answer about a filter. */
    isPending(filter) {
        return this.pending.has(filter);
    }
    /** What the server owes an answer about. */
    pendingFilters() {
        return [...this.pending.keys()];
    }
    /** What has no answer yet was skipped, as a server does with what is too much for it: all of that is to be asked again. */
    skipped() {
        const filters = this.pendingFilters();
        const pending = [...this.pending];
        this.forgetPending();
        for (const [filter, list] of pending) {
            list.forEach((each) => 'unsubscribed' in each && this.leave(filter, each.unsubscribed));
        }
        return filters;
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
        feed.underWay = pending.since === null ? 0 : null;
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
        const left = [...this.pending.values()].flatMap((list) => list.flatMap((each) => ('unsubscribed' in each ? [each.unsubscribed] : [])));
        left.push(...this.leaving.values());
        this.forgetPending();
        this.leaving.clear();
        this.feeds.forEach((feed) => (feed.isLive = feed.isAsked = false));
        left.forEach((unsubscribed) => unsubscribed());
    }
    forgetPending() {
        this.pending.clear();
        this.unanswered = 0;
    }
    /** Gives a message to everybody whom it is for. False when nobody has asked for it. */
    dispatch(message) {
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
    isLeft(topic) {
        const asked = [...this.pending].filter(([, pending]) => isLeaving(pending)).map(([filter]) => filter);
        return [...asked, ...this.leaving.keys()].some((filter) => matches(filter, topic));
    }
    /** False for what was there already. `isHeard`: a filter brings it, so whoever was to get it does. */
    advance(feed, position, isHeard) {
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
        this.unanswered++;
    }
    settle(filter) {
        const rest = (this.pending.get(filter) ?? []).slice(1);
        this.unanswered--;
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
