/**
 * A node of the bus: one connection, which is made again whenever it is lost.
 *
 * Owns the states of the connection and what waits for an answer. How far subscriptions have come is `feeds.ts`'s, what waits to be
 * sent `outbox.ts`'s.
 */
import { delayBefore } from './backoff.js';
import { HeartbusError } from './errors.js';
import { Events } from './events.js';
import { Feeds, Message } from './feeds.js';
import { detach, goodbye } from './goodbye.js';
import { base64, bytesOf, checkPosition, payload, read } from './messages.js';
import { checkNode, settle } from './options.js';
import { Outbox } from './outbox.js';
import { Pace } from './pace.js';
import { Timers } from './timers.js';
import { checkFilter, checkTopic, utf8Length } from './topics.js';
import { Unanswered } from './unanswered.js';
const SUBPROTOCOL = 'heartbus.json';
/** Beyond this the socket is given nothing more for a while: what waits in it cannot be counted, refused or kept for the next connection. */
const SOCKET_BYTES = 65_536;
/** How soon the socket is looked at again then. */
const SOCKET_CHECK = 20;
/** Publications that the server has not answered. */
const MAX_UNANSWERED = 1_000;
/** How long no subscription is asked for after the server said that there were too many requests. */
const RATE_LIMIT_PAUSE = 1_000;
const RATE_LIMITED = 429;
/** By a node that was taken over. */
const CLOSED_REPLACED = 4409;
/** With 401: nobody has decided, which says nothing about the node. */
const NOT_IN_TIME = 'Not authenticated in time';
export class HeartbusClient {
    settings;
    clock;
    events = new Events();
    feeds = new Feeds((gap) => this.emit('gap', gap));
    outbox;
    currentState = 'idle';
    socket = null;
    registered = null;
    attempt = 0;
    /** Whatever `ws` says of a connection that failed. */
    failure;
    /** REGISTERs without an answer. */
    registering = 0;
    /** All who wait for it wait for the same. */
    registration = null;
    pace = new Pace();
    /** What the server is to be asked about, in order. */
    asking = new Set();
    publications = new Unanswered();
    lastId = 0;
    isHeard = false;
    timers;
    counts = { registrations: 0, sent: 0, received: 0, refused: 0, dropped: 0 };
    constructor(url, options = {}) {
        this.settings = settle(url, options);
        this.clock = this.settings.clock;
        this.timers = new Timers(this.clock);
        const { outboxMessages: messages, outboxBytes: bytes, outboxPolicy: policy } = this.settings;
        this.outbox = new Outbox({ messages, bytes, policy });
    }
    get state() {
        return this.currentState;
    }
    /** Its own, or that which the server has made up. */
    get nodeId() {
        return this.settings.nodeId;
    }
    /** Listens to an event. What it returns ends that. */
    on(name, listener) {
        return this.events.on(name, listener);
    }
    /** Connects and registers. Resolved at the first registration; rejected when the client gives up or is closed before. */
    connect() {
        if (this.currentState === 'open' && this.registered !== null) {
            return Promise.resolve(this.registered);
        }
        const registration = this.untilRegistered();
        if (this.currentState === 'idle' || this.currentState === 'closed') {
            this.attempt = 0;
            this.open();
        }
        return registration;
    }
    /** Says who this node is, now and after every reconnect, and connects if need be. A node that is online may change its metadata alone. */
    register(nodeId, metadata = {}) {
        const registration = this.begin(nodeId, metadata);
        // As below: one that nobody waits for ends no process.
        registration.catch(() => undefined);
        return registration;
    }
    async begin(nodeId, metadata) {
        checkNode(nodeId, metadata);
        const isBegun = this.currentState !== 'idle' && this.currentState !== 'closed';
        if (isBegun && nodeId !== null && this.settings.nodeId !== nodeId) {
            const me = JSON.stringify(this.settings.nodeId);
            throw new HeartbusError('invalid_argument', `this client is ${me}; for another node close it, or make another client`);
        }
        this.settings.nodeId = nodeId ?? this.settings.nodeId;
        this.settings.metadata = metadata;
        if (!isBegun) {
            return this.connect();
        }
        const registration = this.untilRegistered();
        if (this.currentState === 'open' || this.registering > 0) {
            this.sayRegister();
        }
        return registration;
    }
    /** Sends a text, anything that JSON can say, or bytes to the server's application. False: there is no room, or the client is closed. */
    send(data) {
        const bytes = bytesOf(data);
        const message = bytes === null ? { type: 'data', data: payload(data) } : { type: 'data', base64: base64(bytes) };
        return this.currentState !== 'closed' && this.put(JSON.stringify(message), false);
    }
    /** Publishes a text, or anything that JSON can say. Rejected where it was not, and with `connection_lost` or `timeout` where that is not known. */
    async publish(topic, data) {
        checkTopic(topic);
        const id = (this.lastId % 0xffff_ffff) + 1;
        const text = JSON.stringify({ type: 'publish', topic, id, data: payload(data) });
        if (this.currentState === 'closed') {
            throw new HeartbusError('closed', 'the client is closed', { topic });
        }
        this.lastId = id;
        return new Promise((resolve, reject) => {
            const sent = () => {
                const late = () => this.unanswered(id, new HeartbusError('timeout', 'the server has not answered the publication', { topic }));
                this.publications.add(id, { resolve, reject }, this.clock.after(this.settings.requestTimeout, late));
            };
            if (!this.put(text, true, sent, reject)) {
                reject(new HeartbusError('outbox_full', 'too much waits to be sent', { topic }));
            }
        });
    }
    /** Follows a topic, or all topics that a filter with `+` or `#` matches: before or after `connect()`, and over every reconnect. */
    subscribe(filter, handler, options = {}) {
        checkFilter(filter);
        const since = options.since ?? null;
        if (since !== null) {
            checkPosition(since);
        }
        let settled;
        const ready = new Promise((resolve, reject) => (settled = { resolve, reject }));
        // Whoever does not wait for it hears of it by the event.
        ready.catch(() => undefined);
        const follower = {
            deliver: (message) => this.guard(() => handler(message)),
            gap: (gap) => options.onGap && this.guard(() => options.onGap?.(gap)),
            subscribed: (subscribed) => settled.resolve(subscribed),
            refused: (error) => settled.reject(error),
        };
        const { feed, isNew } = this.feeds.follow(filter, follower, since);
        if (feed.isLive) {
            settled.resolve({ filter, position: feed.cursor, recovered: true, isReturn: false });
        }
        else if (isNew && this.currentState === 'open') {
            this.ask(filter);
        }
        let ending = null;
        return {
            filter,
            ready,
            get position() {
                return feed.cursor;
            },
            get isLive() {
                return feed.isLive && feed.followers.has(follower);
            },
            unsubscribe: () => (ending ??= this.unsubscribe(feed, follower, settled)),
        };
    }
    /** Leaves. What waits to be sent or answered is rejected with `closed`; subscriptions are there again after another `connect()`. */
    async close() {
        const socket = this.socket;
        const isOpen = this.currentState === 'open';
        if (this.currentState === 'idle' || this.currentState === 'closed') {
            return;
        }
        this.letGo();
        const gone = socket === null ? Promise.resolve() : goodbye(socket, isOpen, this.clock);
        this.end(new HeartbusError('closed', 'the client was closed'));
        await gone;
    }
    /** What it has done and keeps. */
    statistics() {
        return {
            state: this.currentState,
            nodeId: this.settings.nodeId,
            ...this.counts,
            waitingMessages: this.outbox.length,
            waitingBytes: this.outbox.bytes,
            unanswered: this.publications.size,
            duplicates: this.feeds.duplicates,
            gaps: this.feeds.gaps,
        };
    }
    open() {
        this.failure = undefined;
        this.change('connecting');
        if (this.currentState !== 'connecting') {
            return;
        }
        let socket;
        try {
            socket = new this.settings.WebSocket(this.settings.url, [SUBPROTOCOL]);
        }
        catch (cause) {
            this.end(new HeartbusError('invalid_argument', `no connection can be made to ${this.settings.url}`, { cause }));
            return;
        }
        this.socket = socket;
        // Until it is detached: a connection that was given up says nothing any more.
        socket.onopen = () => this.opened(socket);
        socket.onmessage = (event) => this.received(event.data);
        socket.onerror = (event) => (this.failure = event.message ?? this.failure);
        socket.onclose = (event) => this.closed(event.code, event.reason);
        const { connectTimeout } = this.settings;
        this.timers.set('connect', connectTimeout, () => this.lost(new HeartbusError('connect_failed', `not registered within ${connectTimeout} ms`)));
    }
    opened(socket) {
        if (socket.protocol !== SUBPROTOCOL) {
            this.lost(new HeartbusError('protocol', `the server does not speak ${SUBPROTOCOL}`));
            return;
        }
        this.sayRegister();
    }
    received(text) {
        this.isHeard = true;
        this.counts.received++;
        let message;
        try {
            message = read(text);
        }
        catch (error) {
            this.lost(error);
            return;
        }
        switch (message?.type) {
            case 'register':
                this.isRegistered(message.registered);
                break;
            case 'data':
                this.emit('data', { data: message.data, channelId: message.channelId });
                break;
            case 'message': {
                const publication = new Message(message.topic, message.data, message.position);
                if (!this.feeds.dispatch(publication)) {
                    this.emit('message', publication);
                }
                break;
            }
            case 'subscribe':
                this.isSubscribed(message.filter, message.position, message.recovered);
                break;
            case 'unsubscribe':
                this.feeds.unsubscribed(message.filter);
                this.isAnswered(message.filter);
                break;
            case 'publish':
                this.publications.take(message.id)?.resolve({ position: message.position, reach: message.reach });
                this.pump();
                break;
            case 'error':
                this.refused(message);
                break;
        }
    }
    isRegistered(registered) {
        this.registering--;
        this.registered = registered;
        this.settings.nodeId = registered.nodeId;
        const isFirst = this.currentState === 'connecting';
        if (this.registering <= 0) {
            this.registering = 0;
            this.timers.cancel('register');
            this.takeRegistration()?.resolve(registered);
        }
        if (!isFirst) {
            return;
        }
        this.timers.cancel('connect');
        this.attempt = 0;
        this.counts.registrations++;
        this.currentState = 'open';
        this.isHeard = true;
        this.beat();
        this.asking = new Set(this.feeds.all().map((feed) => feed.filter));
        this.askMore();
        this.emit('state', { state: 'open', previous: 'connecting' });
        this.emit('register', { ...registered, isReturn: this.counts.registrations > 1 });
        this.pump();
    }
    isSubscribed(filter, position, recovered) {
        const subscribed = this.feeds.subscribed(filter, position, recovered);
        this.isAnswered(filter);
        if (subscribed !== null) {
            this.emit('subscribe', subscribed);
        }
    }
    refused({ status, message, topic, id }) {
        const error = new HeartbusError(status === 409 ? 'replaced' : 'refused', message, { status, ...(topic === null ? {} : { topic }) });
        if (id !== null) {
            this.unanswered(id, error);
            return;
        }
        if (topic !== null && this.feeds.refused(topic, error)) {
            this.isAnswered(topic);
            this.emit('error', error);
            return;
        }
        if (status === RATE_LIMITED && topic === null && this.feeds.unanswered > 0) {
            this.pause();
        }
        if (status === 409) {
            this.lost(error, true);
            return;
        }
        const isAboutRegistration = topic === null && this.registering > 0 && (status === 400 || status === 401 || status === 403);
        if (isAboutRegistration && this.currentState === 'connecting') {
            // An id or metadata that is wrong stays wrong; who finds no room, or nobody who decides, may do so later.
            this.lost(error, status !== 403 && message !== NOT_IN_TIME);
            return;
        }
        if (isAboutRegistration) {
            this.registering = 0;
            this.timers.cancel('register');
            this.takeRegistration()?.reject(error);
        }
        this.emit('error', error);
    }
    /** The connection has closed. */
    closed(code, reason) {
        if (code === CLOSED_REPLACED) {
            this.lost(new HeartbusError('replaced', 'another client has taken the node id over', { status: 409 }), true, code, reason);
        }
        else if (this.currentState === 'connecting') {
            const cause = this.failure === undefined ? reason : String(this.failure);
            this.lost(new HeartbusError('connect_failed', `no connection to ${this.settings.url} (${code}${cause ? `: ${cause}` : ''})`), false, code, reason);
        }
        else {
            this.lost(new HeartbusError('connection_lost', `the connection was closed (${code}${reason ? `: ${reason}` : ''})`), false, code, reason);
        }
    }
    /** The connection is over, by the peer's will or ours: there will be another one, unless it is for good. */
    lost(error, isForGood = false, code = 1006, reason = '') {
        const socket = this.socket;
        this.letGo();
        if (socket !== null) {
            detach(socket);
            socket.terminate?.();
        }
        const isLast = !this.settings.reconnect || (this.settings.reconnectAttempts > 0 && this.attempt >= this.settings.reconnectAttempts);
        if (isForGood || isLast) {
            this.end(error, { code, reason, retryIn: null });
            return;
        }
        const { reconnectBase, reconnectMax } = this.settings;
        const retryIn = delayBefore(this.attempt++, reconnectBase, reconnectMax, this.clock.random());
        const again = () => {
            this.timers.cancel('reconnect');
            this.timers.cancel('wake');
            this.open();
        };
        this.timers.set('reconnect', retryIn, again);
        this.timers.hold('wake', this.clock.onWake?.(again) ?? (() => undefined));
        this.change('waiting', () => {
            this.emit('error', error);
            this.emit('close', { code, reason, retryIn: this.currentState === 'waiting' ? retryIn : null });
        });
    }
    /** Nothing of the connection is ours any more. What was sent and not answered has failed. */
    letGo() {
        this.socket = null;
        this.registered = null;
        this.registering = 0;
        this.timers.cancelAll();
        [this.asking, this.pace] = [new Set(), new Pace()];
        this.feeds.disconnected();
        this.publications.rejectAll(() => new HeartbusError('connection_lost', 'the connection ended before the server answered'));
    }
    /** There is no next try. */
    end(error, closed = { code: 1000, reason: '', retryIn: null }) {
        // Who hears of it may connect anew at once: what is waited for from then on is not meant.
        const [registration, dropped] = [this.takeRegistration(), this.outbox.clear()];
        this.change('closed', () => {
            registration?.reject(error);
            dropped.forEach((message) => message.dropped?.(new HeartbusError('closed', error.message)));
            if (error.code !== 'closed') {
                this.emit('error', error);
            }
            this.emit('close', closed);
        });
    }
    async unsubscribe(feed, follower, ready) {
        ready.reject(new HeartbusError('closed', 'it was unsubscribed', { topic: feed.filter }));
        if (!this.feeds.unfollow(feed, follower)) {
            return;
        }
        if (!feed.isAsked) {
            // A filter may have waited for it.
            this.askMore();
            return;
        }
        await new Promise((resolve) => {
            this.feeds.leave(feed.filter, resolve);
            this.ask(feed.filter);
        });
    }
    /** Subscribes to a filter, or no longer: whatever is wanted when its turn comes. */
    ask(filter) {
        this.asking.add(filter);
        this.askMore();
    }
    askMore() {
        for (const filter of this.asking) {
            if (this.currentState !== 'open' || !this.pace.mayAsk(this.feeds.unanswered)) {
                return;
            }
            if (this.feeds.mustWait(filter)) {
                continue;
            }
            this.asking.delete(filter);
            const request = this.feeds.request(filter);
            if (request === null) {
                continue;
            }
            this.say(request);
            // A frame that a busy server has lost is answered by nobody: a new connection asks again.
            const late = () => this.lost(new HeartbusError('timeout', `the server has not answered a request to ${request.type}`, { topic: filter }));
            this.timers.set(`ask ${filter}`, this.settings.requestTimeout, late);
        }
    }
    /** The server has said something about a filter. */
    isAnswered(filter) {
        if (!this.feeds.isPending(filter)) {
            this.timers.cancel(`ask ${filter}`);
        }
        this.pace.answered();
        this.askMore();
    }
    /** The server has skipped what was too much for it: whatever has no answer after a while is asked again. */
    pause() {
        if (!this.pace.rateLimited()) {
            return;
        }
        this.feeds.pendingFilters().forEach((filter) => this.timers.cancel(`ask ${filter}`));
        this.timers.set('pace', RATE_LIMIT_PAUSE, () => {
            this.pace.goOn();
            this.asking = new Set([...this.feeds.skipped(), ...this.asking]);
            this.askMore();
        });
    }
    sayRegister() {
        this.registering++;
        const { nodeId, metadata } = this.settings;
        this.say({ type: 'register', ...(nodeId === null ? {} : { node_id: nodeId }), metadata });
        const late = () => this.lost(new HeartbusError('timeout', 'the server has not answered a registration'));
        this.timers.set('register', this.settings.requestTimeout, late);
    }
    say(message) {
        this.socket?.send(JSON.stringify(message));
        this.counts.sent++;
    }
    beat() {
        this.timers.set('heartbeat', this.settings.heartbeatInterval, () => {
            if (!this.isHeard) {
                this.lost(new HeartbusError('connection_lost', 'the server does not answer heartbeats'));
                return;
            }
            this.isHeard = false;
            this.say({ type: 'heartbeat' });
            this.beat();
        });
    }
    /** False: there is no room for it. */
    put(text, isRequest, sent, dropped) {
        const bytes = utf8Length(text);
        if (bytes > this.settings.maxMessageBytes) {
            throw new HeartbusError('invalid_argument', `a message of ${bytes} bytes is longer than ${this.settings.maxMessageBytes}`);
        }
        const count = this.outbox.push({ text, bytes, isRequest, ...(sent && { sent }), ...(dropped && { dropped }) });
        if (count === null) {
            this.counts.refused++;
            return false;
        }
        this.counts.dropped += count;
        this.pump();
        return true;
    }
    /** Hands to the socket what it takes. */
    pump() {
        for (let next = this.outbox.first; this.currentState === 'open' && this.socket !== null && next !== undefined; next = this.outbox.first) {
            if (next.isRequest && this.publications.size >= MAX_UNANSWERED) {
                return;
            }
            if (this.socket.bufferedAmount > SOCKET_BYTES) {
                this.timers.set('pump', SOCKET_CHECK, () => this.pump());
                return;
            }
            this.outbox.shift();
            next.sent?.();
            this.socket.send(next.text);
            this.counts.sent++;
        }
    }
    unanswered(id, error) {
        this.publications.take(id)?.reject(error);
        this.pump();
    }
    untilRegistered() {
        if (this.registration === null) {
            let waiter;
            const promise = new Promise((resolve, reject) => (waiter = { resolve, reject }));
            // Whoever does not wait for it hears of it by the event.
            promise.catch(() => undefined);
            this.registration = { ...waiter, promise };
        }
        return this.registration.promise;
    }
    takeRegistration() {
        const registration = this.registration;
        this.registration = null;
        return registration;
    }
    change(state, then = () => undefined) {
        const previous = this.currentState;
        this.currentState = state;
        if (state !== previous) {
            this.emit('state', { state, previous });
        }
        then();
    }
    emit(name, event) {
        for (const cause of this.events.emit(name, event)) {
            this.handlerThrew(cause, name);
        }
    }
    guard(work) {
        try {
            work();
        }
        catch (cause) {
            this.handlerThrew(cause, 'message');
        }
    }
    /** What a handler throws keeps no other from its messages. */
    handlerThrew(cause, where) {
        const error = new HeartbusError('handler', `a handler of ${where} threw: ${String(cause)}`, { cause });
        // One that listens to errors and throws is not told of itself for ever.
        if (where !== 'error') {
            this.events.emit('error', error);
        }
    }
}
