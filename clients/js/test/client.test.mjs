// The states of a connection, what waits, and what is told.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HeartbusClient, HeartbusError } from '../dist/index.js';
import { fake, outcome } from './fake.mjs';

test('it registers, says so, and beats its heart by itself', async () => {
    const { client, clock, ...server } = fake({ metadata: { floor: 2 } });
    assert.equal(client.state, 'idle');
    const connected = client.connect();
    assert.equal(client.state, 'connecting');
    assert.deepEqual([server.sockets[0].url, server.sockets[0].protocols], ['ws://server/ws', ['heartbus.json']]);
    server.open();
    assert.deepEqual(server.heard(), [{ type: 'register', node_id: 'me', metadata: { floor: 2 } }]);
    server.registered();
    assert.deepEqual(await connected, { nodeId: 'me', channelId: 7, serverTime: 1.5 });
    assert.equal(client.state, 'open');
    assert.deepEqual(server.events('register'), [{ nodeId: 'me', channelId: 7, serverTime: 1.5, isReturn: false }]);
    clock.pass(9_999);
    assert.deepEqual(server.heard(), []);
    clock.pass(1);
    assert.deepEqual(server.heard(), [{ type: 'heartbeat' }]);
    server.say({ type: 'heartbeat', timestamp: 3 });
    clock.pass(10_000);
    assert.deepEqual(server.heard(), [{ type: 'heartbeat' }]);
    assert.equal(client.state, 'open');
});

test('a server that does not answer a heartbeat is left for a new connection', () => {
    const { client, clock, ...server } = fake();
    server.begin();
    clock.pass(10_000);
    clock.pass(10_000);
    assert.equal(client.state, 'waiting');
    assert.deepEqual([server.sockets[0].isClosed, server.sockets[0].isTerminated], [true, true], 'it is not waited for');
    assert.deepEqual(server.events('error').map((error) => error.code), ['connection_lost']);
    server.sockets[0].onmessage({ data: '{"type":"data","data":"late"}' });
    assert.deepEqual(server.events('data'), [], 'the old connection says nothing any more');
    clock.pass(500);
    assert.deepEqual([client.state, server.sockets.length], ['connecting', 2]);
});

test('the waits between tries double with full jitter, within bounds, and begin anew after a registration', () => {
    const { client, clock, ...server } = fake();
    server.begin();
    server.close();
    const waits = [];
    for (let tries = 0; tries < 9; tries++) {
        const { retryIn } = server.events('close').at(-1);
        waits.push(retryIn);
        clock.pass(retryIn - 1);
        const before = server.sockets.length;
        clock.pass(1);
        assert.equal(server.sockets.length, before + 1, 'at its time and not before');
        server.close();
    }
    assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    clock.chance = 0;
    clock.pass(30_000);
    server.again();
    server.close();
    assert.equal(server.events('close').at(-1).retryIn, 100, 'never at once');
    clock.chance = 0.999;
    clock.pass(100);
    server.again();
    server.close();
    assert.equal(server.events('close').at(-1).retryIn, 999);
    assert.equal(client.statistics().registrations, 3);
});

test('when the network is there again it does not wait for its time', () => {
    const { client, clock, ...server } = fake();
    server.begin();
    assert.equal(clock.wakers.size, 0);
    server.close();
    assert.equal(clock.wakers.size, 1);
    [...clock.wakers].forEach((wake) => wake());
    assert.deepEqual([client.state, clock.wakers.size, server.sockets.length], ['connecting', 0, 2]);
    clock.pass(500);
    assert.equal(server.sockets.length, 2, 'and not a second time when that has come');
    server.close();
    clock.pass(server.events('close').at(-1).retryIn);
    assert.deepEqual([server.sockets.length, clock.wakers.size], [3, 0]);
    server.close();
    client.close();
    assert.equal(clock.wakers.size, 0);
});

test('who is not registered in time, or meets another protocol, tries again', () => {
    const { client, clock, ...server } = fake();
    client.connect();
    clock.pass(5_000);
    assert.equal(client.state, 'waiting');
    clock.pass(500);
    server.open('');
    assert.deepEqual(server.events('error').map((error) => error.code), ['connect_failed', 'protocol']);
    clock.pass(1_000);
    server.open();
    server.say('no JSON');
    assert.equal(server.events('error').at(-1).code, 'protocol');
    assert.equal(client.state, 'waiting');
});

test('it gives up after as many tries as it may have, and can begin again', async () => {
    const { client, clock, ...server } = fake({ reconnectAttempts: 2 });
    const connected = client.connect();
    for (const state of ['waiting', 'waiting', 'closed']) {
        server.close();
        assert.equal(client.state, state);
        state === 'waiting' && server.comeBack();
    }
    clock.pass(1_000_000);
    assert.equal(server.sockets.length, 3);
    assert.equal(await outcome(connected), 'connect_failed');
    assert.equal(server.events('close').at(-1).retryIn, null);
    const again = client.connect();
    server.again();
    assert.equal((await again).nodeId, 'me');
});

test('with reconnect off one lost connection is the end', async () => {
    const { client, ...server } = fake({ reconnect: false });
    server.begin();
    server.close(1001, 'Server stopped');
    assert.equal(client.state, 'closed');
    assert.equal(client.send('x'), false);
    assert.equal(await outcome(client.publish('a', 'x')), 'closed');
});

test('who was replaced does not come back by itself, whichever word comes first', async () => {
    for (const end of [(server) => server.say({ type: 'error', code: 409, message: 'Replaced by a newer connection' }), (server) => server.close(4409, 'replaced')]) {
        const { client, clock, ...server } = fake();
        server.begin();
        end(server);
        assert.equal(client.state, 'closed');
        assert.deepEqual(server.events('error').map(({ code, status }) => [code, status]), [['replaced', 409]]);
        clock.pass(1_000_000);
        assert.equal(server.sockets.length, 1);
        assert.equal(clock.timers, 0);
    }
});

test('a registration that never can be is the end, one that finds no room is tried again', async () => {
    for (const [status, state, message] of [[400, 'closed', 'no'], [401, 'closed', 'no'], [401, 'waiting', 'Not authenticated in time'], [403, 'waiting', 'no']]) {
        const { client, ...server } = fake();
        const connected = client.connect();
        server.open();
        server.say({ type: 'error', code: status, message });
        assert.equal(client.state, state, `${status} ${message}`);
        assert.equal(await outcome(connected), state === 'closed' ? 'refused' : 'pending');
        assert.equal(server.events('error')[0].status, status);
    }
});

test('a registration that nobody waits for and that is refused ends no process', async () => {
    const seen = [];
    const note = (reason) => seen.push(reason);
    process.on('unhandledRejection', note);
    const { client, ...server } = fake();
    client.register('me');
    server.open();
    server.say({ type: 'error', code: 400, message: 'no' });
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.off('unhandledRejection', note);
    assert.deepEqual([seen, client.state], [[], 'closed']);
});

test('who connects anew when told that it is closed waits for the new connection, which is not ended with the old one', async () => {
    const { client, ...server } = fake();
    const first = client.connect();
    let again;
    client.on('state', ({ state }) => {
        if (state === 'closed' && !again) {
            again = client.connect();
        }
    });
    server.open();
    server.say({ type: 'error', code: 400, message: 'no' });
    assert.deepEqual([await outcome(first), await outcome(again)], ['refused', 'pending']);
    server.open();
    server.registered();
    assert.equal((await again).nodeId, 'me');
});

test('the id that the server makes up is kept', () => {
    const { client, clock, ...server } = fake({ nodeId: undefined });
    client.connect();
    server.open();
    assert.deepEqual(server.heard(), [{ type: 'register', metadata: {} }]);
    server.registered({ node_id: 'node_1' });
    assert.equal(client.nodeId, 'node_1');
    server.close();
    server.comeBack();
    server.open();
    assert.deepEqual(server.heard(), [{ type: 'register', node_id: 'node_1', metadata: {} }]);
});

test('metadata may change while it is online, the id may not', async () => {
    const { client, ...server } = fake();
    server.begin();
    const registered = client.register('me', { mood: 'fine' });
    assert.deepEqual(server.heard(), [{ type: 'register', node_id: 'me', metadata: { mood: 'fine' } }]);
    assert.equal(await outcome(registered), 'pending');
    server.registered();
    assert.equal((await registered).nodeId, 'me');
    assert.equal(server.events('register').length, 1, 'it was there already');
    assert.equal(await outcome(client.register('other')), 'invalid_argument');
    const refused = client.register('me', { long: 1 });
    server.say({ type: 'error', code: 403, message: 'Too much metadata on this connection' });
    assert.equal(await outcome(refused), 'refused');
    assert.equal(client.state, 'open');
});

test('register() connects, and what is said meanwhile is registered as well', async () => {
    const { client, ...server } = fake();
    const first = client.register('a', { n: 1 });
    server.open();
    const second = client.register('a', { n: 2 });
    assert.deepEqual(server.heard().map(({ metadata }) => metadata.n), [1, 2]);
    server.registered({ node_id: 'a' });
    assert.equal(await outcome(second), 'pending');
    server.registered({ node_id: 'a' });
    assert.deepEqual([(await first).nodeId, (await second).nodeId], ['a', 'a']);
    client.close();
    const other = client.register('b');
    server.open();
    server.registered({ node_id: 'b' });
    assert.equal((await other).nodeId, 'b', 'closed, it may be another one');
});

test('what is sent is text, JSON or bytes, and what is none is refused', () => {
    const { client, ...server } = fake();
    server.begin();
    const bytes = Uint8Array.from([1, 2, 255]);
    for (const data of ['text', '', { a: [1] }, 12, true, null, bytes, bytes.buffer, new DataView(bytes.buffer, 1)]) {
        assert.equal(client.send(data), true);
    }
    assert.deepEqual(
        server.heard().map(({ data, base64 }) => data ?? `base64 ${base64}`),
        ['text', '', '{"a":[1]}', '12', 'true', 'null', 'base64 AQL/', 'base64 AQL/', 'base64 Av8='],
    );
    const circle = {};
    circle.circle = circle;
    for (const data of [undefined, () => 1, circle, '\ud800', 'x'.repeat(10_485_760)]) {
        assert.throws(() => client.send(data), { name: 'HeartbusError', code: 'invalid_argument' });
    }
    server.say({ type: 'data', channel_id: 7, data: 'hello' });
    assert.deepEqual(server.events('data'), [{ data: 'hello', channelId: 7 }]);
});

test('what waits for a connection goes in order, and beyond the bound is refused', async () => {
    const { client, ...server } = fake({ outboxMessages: 3 });
    assert.deepEqual([client.send('1'), client.send('2')], [true, true]);
    const published = client.publish('a', '3');
    assert.equal(client.send('4'), false);
    assert.equal(await outcome(client.publish('a', '5')), 'outbox_full');
    assert.deepEqual(server.begin().map(({ data }) => data), ['1', '2', '3']);
    assert.equal(await outcome(published), 'pending');
    const { refused, waitingMessages, waitingBytes, unanswered } = client.statistics();
    assert.deepEqual({ refused, waitingMessages, waitingBytes, unanswered }, { refused: 2, waitingMessages: 0, waitingBytes: 0, unanswered: 1 });
});

test('with drop_oldest the oldest make room, which their publishers are told', async () => {
    const { client, ...server } = fake({ outboxMessages: 2, outboxPolicy: 'drop_oldest' });
    const oldest = client.publish('a', '1');
    assert.deepEqual([client.send('2'), client.send('3')], [true, true]);
    assert.equal(await outcome(oldest), 'outbox_full');
    assert.deepEqual(server.begin().map(({ data }) => data), ['2', '3']);
    assert.deepEqual([client.statistics().dropped, client.statistics().refused], [1, 0]);
    const other = fake({ outboxBytes: 100, outboxPolicy: 'drop_oldest' });
    assert.deepEqual([other.client.send('stays'), other.client.send('x'.repeat(101))], [true, false], 'nobody makes room for what never fits');
    assert.equal(other.client.statistics().waitingMessages, 1);
});

test('bytes that wait are bounded too', () => {
    const { client } = fake({ outboxBytes: 100 });
    assert.equal(client.send('x'.repeat(101)), false, 'longer than all there is');
    assert.equal(client.send('早'.repeat(20)), true, 'as UTF-8');
    assert.equal(client.send('x'), false);
    assert.equal(client.statistics().waitingBytes, 85);
});

test('a socket that is slow is given no more, and what waits goes when it has room', () => {
    const { client, clock, ...server } = fake({ outboxMessages: 2 });
    server.begin();
    server.socket().bufferedAmount = 65_537;
    assert.deepEqual([client.send('1'), client.send('2'), client.send('3')], [true, true, false]);
    clock.pass(1_000);
    assert.deepEqual(server.heard(), []);
    server.socket().bufferedAmount = 0;
    clock.pass(20);
    assert.deepEqual(server.heard().map(({ data }) => data), ['1', '2']);
});

test('a publication is answered with its position and reach, by its number', async () => {
    const { client, ...server } = fake();
    server.begin();
    const [first, second, third] = ['a', 'b', 'c'].map((topic) => client.publish(topic, { n: 1 }));
    const [one, two, three] = server.heard();
    assert.deepEqual(one, { type: 'publish', topic: 'a', id: one.id, data: '{"n":1}' });
    server.say({ type: 'publish', id: two.id, reach: 0 });
    server.say({ type: 'error', code: 403, message: 'Too many topics on this server', topic: 'c', id: three.id });
    server.say({ type: 'publish', id: one.id, offset: 4, epoch: 9, reach: 3 });
    assert.deepEqual(await first, { position: { offset: 4, epoch: 9 }, reach: 3 });
    assert.deepEqual(await second, { position: null, reach: 0 });
    await assert.rejects(third, { name: 'HeartbusError', code: 'refused', status: 403, topic: 'c' });
    server.say({ type: 'publish', id: 999, reach: 1 });
    assert.equal(client.state, 'open', 'an answer to nobody harms nobody');
});

test('a publication whose answer does not come is rejected, and not sent again', async () => {
    const { client, clock, ...server } = fake({ heartbeatInterval: 60_000 });
    server.begin();
    const late = client.publish('a', '1');
    clock.pass(10_000);
    assert.equal(await outcome(late), 'timeout');
    const lost = client.publish('a', '2');
    server.close();
    assert.equal(await outcome(lost), 'connection_lost');
    const waiting = client.publish('a', '3');
    server.comeBack();
    assert.deepEqual(server.again().map(({ data }) => data), ['3']);
    assert.equal(await outcome(waiting), 'pending');
});

test('no more than a thousand publications are without an answer at a time', async () => {
    const { client, ...server } = fake({ outboxMessages: 2_000 });
    server.begin();
    const published = Array.from({ length: 1_500 }, () => client.publish('a', 'x'));
    const sent = server.heard();
    assert.deepEqual([sent.length, client.statistics().unanswered, client.statistics().waitingMessages], [1_000, 1_000, 500]);
    for (let next = sent; next.length > 0; next = server.heard()) {
        next.forEach(({ id }) => server.say(id > 1_000 ? { type: 'publish', id, reach: 1 } : { type: 'error', code: 429, message: 'no', topic: 'a', id }));
    }
    const settled = await Promise.allSettled(published);
    assert.deepEqual(['fulfilled', 'rejected'].map((status) => settled.filter((each) => each.status === status).length), [500, 1_000]);
});

test('close() says goodbye, rejects what waits, and leaves nothing running', async () => {
    const { client, clock, ...server } = fake();
    server.begin();
    const unanswered = client.publish('a', '1');
    server.socket().bufferedAmount = 1 << 20;
    const waiting = client.publish('a', '2');
    server.heard();
    const closed = client.close();
    assert.deepEqual(server.heard(), [{ type: 'unregister' }]);
    assert.deepEqual([await outcome(unanswered), await outcome(waiting), await outcome(closed)], ['connection_lost', 'closed', 'pending']);
    server.close(1000);
    await closed;
    assert.deepEqual([client.state, clock.timers], ['closed', 0]);
    assert.deepEqual(server.events('error'), [], 'as it was wanted');
    await client.close();
});

test('close() takes no longer than a second, and works in every state', async () => {
    for (const state of ['idle', 'connecting', 'open', 'waiting']) {
        const { client, clock, ...server } = fake();
        const connected = state === 'idle' ? null : client.connect();
        state === 'open' && server.again();
        state === 'waiting' && server.close();
        assert.equal(client.state, state);
        const closed = client.close();
        clock.pass(999);
        assert.equal(await outcome(closed), state === 'idle' || state === 'waiting' ? undefined : 'pending');
        clock.pass(1);
        await closed;
        assert.equal(server.sockets[0]?.isTerminated, state === 'idle' ? undefined : true);
        assert.equal(client.state, state === 'idle' ? 'idle' : 'closed');
        assert.equal(clock.timers, 0, state);
        if (state === 'connecting' || state === 'waiting') {
            assert.equal(await outcome(connected), 'closed');
        }
    }
});

test('a handler that throws keeps nobody from their messages', () => {
    const { client, ...server } = fake();
    const heard = [];
    client.on('data', () => {
        throw new Error('a bug');
    });
    const off = client.on('data', ({ data }) => heard.push(data));
    server.begin();
    server.say({ type: 'data', data: '1' });
    off();
    server.say({ type: 'data', data: '2' });
    assert.deepEqual(heard, ['1']);
    assert.deepEqual(server.events('error').map(({ code, cause }) => [code, cause.message]), [['handler', 'a bug'], ['handler', 'a bug']]);
    assert.equal(client.state, 'open');
});

test('a listener may close the client whatever it is told', async () => {
    for (const state of ['connecting', 'open', 'waiting']) {
        const { client, clock, ...server } = fake();
        client.on('state', (event) => event.state === state && client.close());
        client.connect();
        if (state !== 'connecting') {
            server.again();
            server.close();
        }
        clock.pass(1_000_000);
        assert.deepEqual([client.state, clock.timers], ['closed', 0], state);
    }
});

test('an unknown type of a newer server is ignored, an error of no request told', () => {
    const { client, ...server } = fake();
    server.begin();
    server.say({ type: 'invention', members: [1] });
    server.say({ type: 'error', code: 429, message: 'Rate limit exceeded' });
    assert.equal(client.state, 'open');
    assert.deepEqual(server.events('error').map(({ code, status, message }) => [code, status, message]), [['refused', 429, 'Rate limit exceeded']]);
    for (const broken of ['[]', 'null', '{}', '{"type":1}', '{"type":"data","data":1}', '{"type":"message","topic":"a","offset":-1,"epoch":1,"data":""}']) {
        const other = fake();
        other.begin();
        other.say(broken);
        assert.deepEqual(other.events('error').map(({ code }) => code), ['protocol'], broken);
        assert.equal(other.client.state, 'waiting');
    }
});

test('options that are wrong are refused by their names', () => {
    const Socket = class {};
    for (const [options, name] of [
        [{ heartbeatInterval: 0 }, 'heartbeatInterval'],
        [{ heartbeatInterval: 2 ** 31 }, 'heartbeatInterval'],
        [{ outboxMessages: 1.5 }, 'outboxMessages'],
        [{ outboxPolicy: 'maybe' }, 'outboxPolicy'],
        [{ nodeId: '' }, 'node id'],
        [{ nodeId: '早'.repeat(86) }, 'node id'],
        [{ metadata: [] }, 'metadata'],
        [{ metadata: { long: 'x'.repeat(65_536) } }, 'metadata'],
    ]) {
        assert.throws(() => new HeartbusClient('ws://h', { WebSocket: Socket, ...options }), (error) => error instanceof HeartbusError && error.message.includes(name));
    }
    assert.throws(() => new HeartbusClient('h:1', { WebSocket: Socket }), { code: 'invalid_argument' });
    assert.doesNotThrow(() => new HeartbusClient(new URL('https://h/ws'), { WebSocket: Socket }));
});

test('who waits for a registration waits for the same, however often it is asked', async () => {
    const { client, ...server } = fake();
    const promises = new Set(Array.from({ length: 1_000 }, () => client.connect()));
    assert.equal(promises.size, 1);
    server.open();
    server.registered();
    assert.equal((await client.connect()).nodeId, 'me');
    await Promise.all(promises);
});
