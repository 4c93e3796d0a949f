// The library `ws` as a node: `client.mjs WS-FOLDER URL`. Ends with 0 when everything came as it should.
// The server sends every message back to its node.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [folder, url] = process.argv.slice(2);
const WebSocket = createRequire(import.meta.url)(folder);

const frame = (kind, payload = Buffer.alloc(0)) => {
    const head = Buffer.alloc(12);
    head.writeUInt16BE(0xab13, 0);
    head.writeUInt8(kind, 2);
    head.writeUInt32BE(payload.length, 4);
    return Buffer.concat([head, payload]);
};

const open = (protocol, options) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocol, options);
    const messages = [];
    const waiting = [];
    socket.on('message', (data) => (waiting.length ? waiting.shift()(data) : messages.push(data)));
    socket.next = () => new Promise((done) => (messages.length ? done(messages.shift()) : waiting.push(done)));
    socket.ended = new Promise((done) => socket.on('close', done));
    socket.on('open', () => resolve(socket));
    socket.on('error', reject);
});

for (const perMessageDeflate of [false, true]) {
    const socket = await open('heartbus.v2', { perMessageDeflate });
    assert.equal(socket.protocol, 'heartbus.v2');
    socket.send(frame(6, Buffer.from('{"node_id":"node.js"}')));
    assert.equal((await socket.next())[2], 6);
    for (const length of [0, 125, 126, 65535, 65536, 1000000]) {
        const payload = Buffer.alloc(length, 'abc');
        socket.send(frame(3, payload));
        assert.deepEqual((await socket.next()).subarray(12), payload);
    }
    const whole = frame(3, Buffer.alloc(3000, 'x'));
    socket.send(whole.subarray(0, 5), { fin: false });
    socket.ping('between');
    socket.send(whole.subarray(5), { fin: true });
    assert.equal((await socket.next()).length, 3012);
    socket.close(4000, 'done');
    assert.equal(await socket.ended, 4000);
}

const json = await open('heartbus.json');
json.send(JSON.stringify({ type: 'register', node_id: 'js', metadata: { a: 1 } }));
assert.equal(JSON.parse(await json.next()).node_id, 'js');
json.send(JSON.stringify({ type: 'data', data: { any: ['JSON'] } }));
assert.deepEqual(JSON.parse(JSON.parse(await json.next()).data), { any: ['JSON'] });
json.send(Buffer.from([1]));
assert.equal(await json.ended, 1003);
console.log('OK');
