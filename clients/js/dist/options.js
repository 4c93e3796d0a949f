/** What a client may be told, its defaults, and what is refused. */
import { systemClock } from './clock.js';
import { HeartbusError } from './errors.js';
import { isWellFormed, utf8Length } from './topics.js';
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
export function settle(address, options) {
    const numbers = { ...DEFAULTS };
    for (const name of Object.keys(DEFAULTS)) {
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
    const WebSocket = options.WebSocket ?? globalThis.WebSocket;
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
export function checkNode(nodeId, metadata) {
    if (nodeId !== null && (typeof nodeId !== 'string' || nodeId === '' || !isWellFormed(nodeId) || utf8Length(nodeId) > MAX_NODE_ID_BYTES)) {
        throw invalid(`a node id is a text of 1 to ${MAX_NODE_ID_BYTES} bytes`);
    }
    let text;
    try {
        text = typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata) ? JSON.stringify(metadata) : undefined;
    }
    catch {
        text = undefined;
    }
    if (text === undefined || utf8Length(text) > MAX_METADATA_BYTES) {
        throw invalid(`metadata is an object of at most ${MAX_METADATA_BYTES} bytes as JSON`);
    }
}
function invalid(why) {
    return new HeartbusError('invalid_argument', why);
}
