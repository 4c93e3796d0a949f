// heartbus.h for Node.js: koffi (npm install koffi, version 3), nothing to compile. Events come by `for await`, on Node's own loop:
// koffi.node.poll() watches the descriptor, level-triggered, as libuv watches sockets. Node itself has nothing for that: net.Socket
// refuses a descriptor of this kind, and fs.read would take what is not its own.
import koffi from 'koffi';

const ABI = 1; // HEARTBUS_ABI_VERSION of the header that this file was written after.
const library = koffi.load(process.env.HEARTBUS_LIBRARY ?? `libheartbus.so.${ABI}`);

export const ON = { CONNECT: 1, REGISTER: 2, HEARTBEAT: 4, DATA: 8, LEFT: 16, CLOSE: 32, BUFFER: 64 };
export const LOG = { DEBUG: 1, INFO: 2, WARNING: 3, ERROR: 4 };
const CLOSED = 4; // heartbus_status

// Pointers with lengths stay pointers: a string type would stop at the first NUL.
const event_type = koffi.struct('heartbus_event', {
    type: 'int', code: 'int32_t', connection_id: 'uint64_t', client_id: 'uint64_t', channel_id: 'int64_t',
    count: 'uint32_t', port: 'uint16_t', reserved16: 'uint16_t',
    node_id: 'void *', node_id_len: 'size_t', payload: 'void *', payload_len: 'size_t',
    ip: 'void *', ip_len: 'size_t', text: 'void *', text_len: 'size_t', time: 'double', cause: 'int32_t', reserved32: 'uint32_t', user_data: 'void *',
});
const event_size = koffi.sizeof(event_type);

const of_server = 'const char *node_id, size_t node_id_len, const char *payload, size_t payload_len, int64_t channel_id';
const declare = (declaration) => library.func(declaration);
const C = {
    abi_version: declare('uint32_t heartbus_abi_version()'),
    version: declare('const char *heartbus_version()'),
    last_error: declare('const char *heartbus_last_error()'),
    status_name: declare('const char *heartbus_status_name(int32_t status)'),
    event_name: declare('const char *heartbus_event_name(int32_t type)'),
    reason_name: declare('const char *heartbus_reason_name(int32_t reason)'),
    server_start: declare('int heartbus_server_start(const char *config, size_t len, uint32_t events, _Out_ void **server)'),
    server_port: declare('int heartbus_server_port(void *server, _Out_ uint16_t *port)'),
    server_send: declare(`int heartbus_server_send(void *server, ${of_server})`),
    clients_start: declare('int heartbus_clients_start(const char *config, size_t len, _Out_ void **clients)'),
    client_connect: declare('int heartbus_client_connect(void *clients, const char *config, size_t len, _Out_ uint64_t *client_id)'),
    client_send: declare('int heartbus_client_send(void *clients, uint64_t client_id, const uint8_t *payload, size_t len, int64_t channel_id)'),
    client_disconnect: declare('int heartbus_client_disconnect(void *clients, uint64_t client_id)'),
    log_start: declare('int heartbus_log_start(int32_t level, _Out_ void **log)'),
    log_start_for: declare('int heartbus_log_start_for(void *handle, int32_t level, _Out_ void **log)'),
};
for (const kind of ['server', 'clients', 'log']) {
    C[`${kind}_fd`] = declare(`int heartbus_${kind}_fd(void *handle, _Out_ int *fd)`);
    C[`${kind}_poll`] = declare(`int heartbus_${kind}_poll(void *handle, void *events, size_t capacity, int32_t timeout_ms, _Out_ size_t *count)`);
    C[`${kind}_free`] = declare(`int heartbus_${kind}_free(void *handle)`);
}

if (C.abi_version() !== ABI) {
    throw new Error(`libheartbus has ABI ${C.abi_version()}, this file was written for ${ABI}`);
}
export const version = C.version();
export const reasonName = (code) => C.reason_name(code);

export class HeartbusError extends Error {
    constructor(status) {
        super(C.last_error());
        this.status = C.status_name(status);
    }
}

function check(status) {
    if (status !== 0) {
        throw new HeartbusError(status);
    }
}

// Calls a function whose last argument says where a result goes.
function ask(call, ...args) {
    const result = [null];
    check(call(...args, result));
    return result[0];
}

const text = (pointer, length) => (pointer ? koffi.decode.string(pointer, length) : '');
const bytes = (pointer, length) => (pointer ? Buffer.from(new Uint8Array(koffi.view(pointer, Number(length)))) : Buffer.alloc(0));

// A copy: it stays valid after the next poll.
function copy(event) {
    const { type, code, connection_id, client_id, channel_id, count, port } = event;
    return {
        name: C.event_name(type), node: text(event.node_id, event.node_id_len), payload: bytes(event.payload, event.payload_len),
        text: text(event.text, event.text_len), ip: text(event.ip, event.ip_len), port, code, connection_id, client_id, channel_id, count,
    };
}

// What servers, groups of clients and logs have in common.
class Handle {
    #kind;
    #handle;
    #events;
    #watcher;
    #resolve = () => {};

    constructor(kind, handle, batch = 64) {
        this.#kind = kind;
        this.#handle = handle;
        this.#events = Buffer.alloc(batch * event_size);
        this.#watcher = koffi.node.poll(ask(C[`${kind}_fd`], handle), { readable: true }, () => this.#pause());
        this.#watcher.stop();
    }

    get handle() {
        return this.#handle;
    }

    // A batch of events. Null once it is stopped and every event was taken, or it is closed.
    poll() {
        if (this.#handle === null) {
            return null;
        }
        const count = [0];
        const status = C[`${this.#kind}_poll`](this.#handle, this.#events, this.#events.length / event_size, 0, count);
        if (status === CLOSED) {
            return null;
        }
        check(status);
        return Array.from({ length: Number(count[0]) }, (_, i) => copy(koffi.decode(this.#events, i * event_size, event_type)));
    }

    #pause() {
        this.#watcher?.stop();
        this.#resolve();
    }

    #readable() {
        if (this.#handle === null) {
            return null; // Closed meanwhile: nothing to wait for.
        }
        return new Promise((resolve) => {
            this.#resolve = resolve;
            this.#watcher.start({ readable: true }, () => this.#pause());
        });
    }

    async *[Symbol.asyncIterator]() {
        for (let events; (events = this.poll()) !== null; ) {
            yield* events;
            if (events.length === 0) {
                await this.#readable();
            }
        }
    }

    // Stops and frees it. The watcher goes first: free closes the descriptor, whose number is then soon another's. It takes up to 1.5 s,
    // which a thread of the pool waits for and the loop does not. Whoever iterates is at the end.
    async close() {
        const handle = this.#handle;
        if (handle === null) {
            return;
        }
        this.#handle = null;
        this.#watcher.close();
        this.#watcher = null;
        this.#resolve();
        const status = await new Promise((resolve, reject) => {
            C[`${this.#kind}_free`].async(handle, (error, status) => (error ? reject(error) : resolve(status)));
        });
        if (status !== 0) {
            throw new Error(`closing: ${C.status_name(status)}`); // The text of the error belongs to the other thread.
        }
    }
}

const json = (config) => {
    const text = JSON.stringify(config);
    return [text, Buffer.byteLength(text)];
};

export class Server extends Handle {
    constructor(config, events) {
        super('server', ask(C.server_start, ...json(config), events));
    }

    get port() {
        return ask(C.server_port, this.handle);
    }

    send(node, payload, channel = 0) {
        const data = Buffer.from(payload);
        check(C.server_send(this.handle, node, Buffer.byteLength(node), data, data.length, channel));
    }
}

export class Clients extends Handle {
    constructor(config = {}) {
        super('clients', ask(C.clients_start, ...json(config)));
    }

    connect(config) {
        return ask(C.client_connect, this.handle, ...json(config));
    }

    send(client, payload, channel = 0) {
        const data = Buffer.from(payload);
        check(C.client_send(this.handle, client, data, data.length, channel));
    }

    disconnect(client) {
        check(C.client_disconnect(this.handle, client));
    }
}

export class Log extends Handle {
    // Of one server or group of clients, or of all.
    constructor(level, of = null) {
        super('log', of ? ask(C.log_start_for, of.handle, level) : ask(C.log_start, level));
    }
}
