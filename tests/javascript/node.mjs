// The JavaScript client in Node against a real server: `node.mjs URL`. The server sends data back, but for `leave ID`, with which it disconnects
// that node; it keeps what is published to `kept/#`. Ends with 0 and OK when all went as it should.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import net from 'node:net';
import { HeartbusClient, START } from '../../clients/js/dist/index.js';
import { until } from './browser.mjs';

const url = new URL(process.argv[2]);
const ws = createRequire(new URL('../../clients/js/package.json', import.meta.url))('ws');
const made = [];

const connect = async (nodeId, options = {}) => {
    const client = new HeartbusClient(options.url ?? url, { nodeId, WebSocket: ws, heartbeatInterval: 300, reconnectBase: 200, ...options });
    const told = { data: [], state: [], error: [], gap: [], message: [], close: [] };
    Object.keys(told).forEach((name) => client.on(name, (event) => told[name].push(event)));
    made.push(client);
    await client.connect();
    return { client, told };
};

/** A wire that can be cut, or go dead. */
const wire = async () => {
    const pairs = new Set();
    const server = net.createServer((near) => {
        const far = net.connect(url.port, url.hostname);
        const pair = [near, far];
        pairs.add(pair);
        near.pipe(far);
        far.pipe(near);
        pair.forEach((socket) => socket.on('error', () => {}).on('close', () => {
            pairs.delete(pair);
            pair.forEach((each) => each.destroy());
        }));
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    return {
        url: `ws://127.0.0.1:${server.address().port}/`,
        cut: () => [...pairs].flat().forEach((socket) => socket.destroy()),
        freeze: () => [...pairs].flat().forEach((socket) => socket.unpipe().pause()),
        close: () => server.close(),
    };
};

// Data, both ways, with every WebSocket that there is.
for (const WebSocket of [ws, globalThis.WebSocket].filter((found) => found !== undefined)) {
    const { client, told } = await connect('data', { WebSocket });
    for (const data of ['', 'text 早 😀', { a: ['JSON'] }, 12, new TextEncoder().encode('bytes'), 'x'.repeat(200_000)]) {
        assert.equal(client.send(data), true);
    }
    await until(() => told.data.length === 6, 'all came back');
    assert.deepEqual(told.data.map(({ data }) => data), ['', 'text 早 😀', '{"a":["JSON"]}', '12', 'bytes', 'x'.repeat(200_000)]);
    await client.close();
    assert.deepEqual(told.error, []);
}

// Topics: each once, in order, to each handler that matches.
const { client: ada, told: adaTold } = await connect('ada', { metadata: { n: 1 } });
const { client: bob } = await connect('bob');
const exact = [];
const wide = [];
const subscription = ada.subscribe('topic/a', (message) => exact.push(message.data));
await subscription.ready;
await ada.subscribe('topic/#', (message) => wide.push(`${message.topic} ${message.data}`)).ready;
const published = await Promise.all(Array.from({ length: 200 }, (_, n) => bob.publish(n % 2 ? 'topic/b' : 'topic/a', n)));
assert.deepEqual(published.map(({ reach }) => reach).slice(0, 2), [2, 1], 'one for each subscription');
assert.deepEqual(published.filter(({ position }) => position !== null).map(({ position }) => position.offset), Array.from({ length: 100 }, (_, n) => n + 1));
await until(() => wide.length === 200, 'all came');
assert.deepEqual(exact, Array.from({ length: 100 }, (_, n) => String(2 * n)));
assert.deepEqual(wide, Array.from({ length: 200 }, (_, n) => `topic/${n % 2 ? 'b' : 'a'} ${n}`));
await subscription.unsubscribe();
await bob.publish('topic/a', 'last');
await until(() => wide.at(-1) === 'topic/a last', 'through the filter');
assert.equal(exact.length, 100);

// Refusals have a code, and harm nobody.
await assert.rejects(bob.publish('$nodes', 1), { name: 'HeartbusError', code: 'refused', status: 403, topic: '$nodes' });
await assert.rejects(bob.subscribe('$nodes', () => {}).ready, { code: 'refused', status: 403, topic: '$nodes' });
await assert.rejects(bob.register('bob', { long: 'x'.repeat(70_000) }), { code: 'invalid_argument' });
assert.equal((await bob.register('bob', { mood: 'fine' })).nodeId, 'bob');

// History: what is kept, from the beginning or from where one was.
await Promise.all(Array.from({ length: 30 }, (_, n) => bob.publish('kept/a', n + 1)));
const all = [];
const ready = await ada.subscribe('kept/a', (message) => all.push(message), { since: START }).ready;
await until(() => all.length === 30, 'all that is kept came');
assert.deepEqual([ready.recovered, ready.position.offset], [true, 30]);
const rest = [];
const { client: carl } = await connect('carl');
assert.equal((await carl.subscribe('kept/a', ({ data }) => rest.push(data), { since: all[24].position }).ready).recovered, true);
await until(() => rest.length === 5, 'what is behind it came');
assert.deepEqual(rest, ['26', '27', '28', '29', '30']);
const gaps = [];
assert.equal((await bob.subscribe('kept/a', () => {}, { since: { offset: 3, epoch: 1 }, onGap: ({ reason }) => gaps.push(reason) }).ready).recovered, false);
assert.deepEqual(gaps, ['not_kept'], 'another epoch is told');

// A wire that is cut again and again under load: nothing is missed, nothing comes twice.
const line = await wire();
const { client: dora, told: doraTold } = await connect('dora', { url: line.url, reconnectBase: 100 });
const numbers = [];
await dora.subscribe('kept/load', ({ data }) => numbers.push(Number(data))).ready;
const TOTAL = 3000;
let sent = 0;
const load = (async () => {
    while (sent < TOTAL) {
        await Promise.all(Array.from({ length: 10 }, () => bob.publish('kept/load', ++sent)));
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
})();
for (let cuts = 1; cuts <= 5; cuts++) {
    const before = numbers.length;
    await until(() => numbers.length >= before + 100, 'more came');
    line.cut();
    await until(() => dora.statistics().registrations === cuts + 1, 'it is back');
}
await load;
await until(() => numbers.at(-1) === TOTAL, 'the last one came');
assert.deepEqual(numbers, Array.from({ length: TOTAL }, (_, n) => n + 1));
assert.deepEqual(doraTold.gap, []);
assert.deepEqual(doraTold.error.map(({ code }) => code), Array(5).fill('connection_lost'));

// A wire that goes dead without a word is noticed by the heartbeats.
line.freeze();
await until(() => doraTold.error.length === 6, 'it is noticed');
assert.match(doraTold.error[5].message, /does not answer heartbeats/);
await until(() => dora.state === 'open', 'and it comes back');
assert.equal(dora.statistics().registrations, 7);
line.close();

// The application may disconnect a node, which comes back; who is replaced stays away.
bob.send('leave carl');
await until(() => carl.statistics().registrations === 2, 'it comes back');
await bob.publish('kept/a', 31);
await until(() => rest.at(-1) === '31', 'and goes on where it was');
assert.deepEqual(rest.slice(5), ['31']);
const { client: other } = await connect('ada');
await until(() => ada.state === 'closed', 'the older one is closed');
assert.deepEqual(adaTold.error.map(({ code, status }) => [code, status]), [['replaced', 409]]);
assert.equal(other.state, 'open');

await Promise.all(made.map((client) => client.close()));
console.log('OK');
