/** `heartbus.json` as it is on the wire: the objects that a server sends, read with care. */
import { HeartbusError } from './errors.js';
import { isWellFormed } from './topics.js';
/** What a server said; `null` for a type that is not known, which newer servers may have. Throws what is no message. */
export function read(text) {
    const object = typeof text === 'string' ? parse(text) : undefined;
    if (typeof object !== 'object' || object === null || Array.isArray(object)) {
        throw broken('a message is a JSON object');
    }
    const members = object;
    switch (members['type']) {
        case 'register': {
            const metadata = (members['metadata'] ?? {});
            const serverTime = metadata['server_time'] ?? members['timestamp'];
            return {
                type: 'register',
                registered: {
                    nodeId: string(members, 'node_id'),
                    channelId: whole(members, 'channel_id', 0),
                    serverTime: typeof serverTime === 'number' ? serverTime : 0,
                },
            };
        }
        case 'heartbeat':
        case 'pong':
            return { type: members['type'] };
        case 'data':
            return { type: 'data', channelId: whole(members, 'channel_id', 0), data: string(members, 'data') };
        case 'message':
            return { type: 'message', topic: string(members, 'topic'), position: position(members), data: string(members, 'data') };
        case 'subscribe':
            return { type: 'subscribe', filter: string(members, 'filter'), position: position(members), recovered: members['recovered'] === true };
        case 'unsubscribe':
            return { type: 'unsubscribe', filter: string(members, 'filter') };
        case 'publish':
            return { type: 'publish', id: whole(members, 'id'), position: position(members), reach: whole(members, 'reach') };
        case 'error':
            return {
                type: 'error',
                status: whole(members, 'code', 0),
                message: typeof members['message'] === 'string' ? members['message'] : '',
                topic: typeof members['topic'] === 'string' ? members['topic'] : null,
                id: 'id' in members ? whole(members, 'id') : null,
            };
        default:
            string(members, 'type');
            return null;
    }
}
/** What is sent as data: a string as it is, anything else as the JSON that it is. Throws for what neither can be. */
export function payload(data) {
    const text = typeof data === 'string' ? data : stringify(data);
    if (typeof text !== 'string') {
        throw new HeartbusError('invalid_argument', `${typeof data} is neither a text nor JSON`);
    }
    if (!isWellFormed(text)) {
        throw new HeartbusError('invalid_argument', 'half of a pair of code units is no text that UTF-8 can carry');
    }
    return text;
}
/** The bytes of what is some; `null` for anything else. */
export function bytesOf(data) {
    if (data instanceof ArrayBuffer) {
        return new Uint8Array(data);
    }
    return ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : null;
}
export function base64(bytes) {
    let text = '';
    // As many arguments as every engine takes.
    for (let start = 0; start < bytes.length; start += 8192) {
        text += String.fromCharCode(...bytes.subarray(start, start + 8192));
    }
    return globalThis.btoa(text);
}
/** Throws unless it is a position that a server may have given. */
export function checkPosition(since) {
    const isWhole = (number) => Number.isSafeInteger(number) && number >= 0;
    if (typeof since !== 'object' || since === null || !isWhole(since.offset) || !isWhole(since.epoch)) {
        throw new HeartbusError('invalid_argument', 'a position is {offset, epoch}, two whole numbers from 0 on');
    }
}
function stringify(data) {
    try {
        return JSON.stringify(data);
    }
    catch (cause) {
        throw new HeartbusError('invalid_argument', 'the data cannot be written as JSON', { cause });
    }
}
function parse(text) {
    try {
        return JSON.parse(text);
    }
    catch {
        return undefined;
    }
}
function position(members) {
    return 'offset' in members ? { offset: whole(members, 'offset'), epoch: whole(members, 'epoch') } : null;
}
function string(members, name) {
    const value = members[name];
    if (typeof value !== 'string') {
        throw broken(`${name} is a text`);
    }
    return value;
}
function whole(members, name, otherwise) {
    const value = members[name] ?? otherwise;
    if (!Number.isSafeInteger(value) || value < 0) {
        throw broken(`${name} is a whole number`);
    }
    return value;
}
function broken(what) {
    return new HeartbusError('protocol', `the server said what is no message: ${what}`);
}
