// A server and a clock that are moved by hand.

import { HeartbusClient } from '../dist/index.js';

export class FakeClock {
    #now = 0;
    #timers = new Set();
    chance = 0.5;

    after(milliseconds, callback) {
        const timer = { at: this.#now + milliseconds, callback };
        this.#timers.add(timer);
        return () => this.#timers.delete(timer);
    }

    random() {
        return this.chance;
    }

    wakers = new Set();

    onWake(callback) {
        this.wakers.add(callback);
        return () => this.wakers.delete(callback);
    }

    get timers() {
        return this.#timers.size;
    }

    /** Lets time pass; what is due happens in order. */
    pass(milliseconds) {
        const end = this.#now + milliseconds;
        for (;;) {
            const [next] = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at);
            if (next === undefined) {
                break;
            }
            this.#timers.delete(next);
            this.#now = next.at;
            next.callback();
        }
        this.#now = end;
    }
}

class FakeSocket {
    protocol = '';
    bufferedAmount = 0;
    sent = [];
    isClosed = false;
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;

    constructor(url, protocols) {
        Object.assign(this, { url, protocols });
    }

    send(text) {
        this.sent.push(JSON.parse(text));
    }

    close() {
        this.isClosed = true;
    }

    terminate() {
        this.isTerminated = true;
    }
}

/** A client whose sockets the test answers. */
export function fake(options = {}) {
    const clock = new FakeClock();
    const sockets = [];
    class Socket extends FakeSocket {
        constructor(...made) {
            super(...made);
            sockets.push(this);
        }
    }
    const client = new HeartbusClient('ws://server/ws', { nodeId: 'me', clock, WebSocket: Socket, ...options });
    const told = [];
    for (const name of ['state', 'register', 'data', 'message', 'subscribe', 'gap', 'error', 'close']) {
        client.on(name, (event) => told.push([name, event]));
    }
    const server = {
        clock,
        client,
        sockets,
        told,
        socket: () => sockets.at(-1),
        /** What was told under this name. */
        events: (name) => told.filter(([found]) => found === name).map(([, event]) => event),
        say: (message) => server.socket().onmessage({ data: typeof message === 'string' ? message : JSON.stringify(message) }),
        /** Takes out what the client has sent. */
        heard: () => server.socket().sent.splice(0),
        open: (protocol = 'heartbus.json') => {
            server.socket().protocol = protocol;
            server.socket().onopen({});
        },
        close: (code = 1006, reason = '') => server.socket().onclose({ code, reason }),
        registered: (members = {}) =>
            server.say({ type: 'register', node_id: 'me', channel_id: 7, timestamp: 2, metadata: { status: 'ok', server_time: 1.5 }, ...members }),
        /** From connect() to registered; returns what was sent behind the registration. */
        begin: () => {
            client.connect();
            return server.again();
        },
        again: () => {
            server.open();
            server.registered();
            return server.heard().slice(1);
        },
        /** The connection is lost, and the next one made. */
        reconnect: () => {
            server.close();
            server.comeBack();
            return server.again();
        },
        /** Lets the wait for the next try pass, and not more. */
        comeBack: () => clock.pass(server.events('close').at(-1).retryIn),
        subscribed: (filter, offset, epoch, recovered = true) =>
            server.say({ type: 'subscribe', filter, ...(offset === undefined ? {} : { offset, epoch }), recovered }),
        message: (topic, offset, epoch = 5) =>
            server.say({ type: 'message', channel_id: 7, topic, ...(offset === undefined ? {} : { offset, epoch }), data: `${topic} ${offset}` }),
    };
    return server;
}

/** What a promise has come to, without waiting longer than for what is ready. */
export async function outcome(promise) {
    const pending = Symbol('pending');
    const late = new Promise((resolve) => setImmediate(() => resolve(pending)));
    try {
        const value = await Promise.race([promise, late]);
        return value === pending ? 'pending' : value;
    } catch (error) {
        return error.code ?? error;
    }
}
