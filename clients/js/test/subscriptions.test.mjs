// What is followed: once, in order, from where it was.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { START } from '../dist/index.js';
import { fake, outcome } from './fake.mjs';

const listen = (client, filter, options = {}) => {
    const heard = [];
    const gaps = [];
    const subscription = client.subscribe(filter, (message) => heard.push(message.data), { onGap: (gap) => gaps.push(gap.reason), ...options });
    return { subscription, heard, gaps };
};

test('a subscription may be made before the connection, and is asked for at each registration', async () => {
    const { client, ...server } = fake();
    const { subscription, heard } = listen(client, 'a');
    assert.equal(await outcome(subscription.ready), 'pending');
    assert.deepEqual(server.begin(), [{ type: 'subscribe', filter: 'a' }]);
    assert.equal(subscription.isLive, false);
    server.subscribed('a', 3, 5);
    assert.deepEqual(await subscription.ready, { filter: 'a', position: { offset: 3, epoch: 5 }, recovered: true, isReturn: false });
    server.message('a', 4);
    assert.deepEqual([heard, subscription.position, subscription.isLive], [['a 4'], { offset: 4, epoch: 5 }, true]);
    assert.deepEqual(server.reconnect(), [{ type: 'subscribe', filter: 'a', offset: 4, epoch: 5 }]);
    assert.equal(subscription.isLive, false);
    server.subscribed('a', 6, 5);
    [5, 6, 7].forEach((offset) => server.message('a', offset));
    assert.deepEqual(heard, ['a 4', 'a 5', 'a 6', 'a 7']);
    assert.deepEqual(server.events('subscribe').map(({ recovered, isReturn }) => [recovered, isReturn]), [[true, false], [true, true]]);
    assert.deepEqual(server.events('gap'), []);
});

test('a message that came before the connection was lost is not delivered again', () => {
    const { client, ...server } = fake();
    const { heard, gaps } = listen(client, 'a');
    server.begin();
    server.subscribed('a', 0, 5);
    server.message('a', 1);
    server.message('a', 2);
    server.reconnect();
    server.subscribed('a', 2, 5);
    [1, 2, 2, 3].forEach((offset) => server.message('a', offset));
    assert.deepEqual([heard, gaps, client.statistics().duplicates], [['a 1', 'a 2', 'a 3'], [], 3]);
});

test('what is lost before the first answer begins where it was told to', () => {
    const { client, ...server } = fake();
    listen(client, 'a', { since: { offset: 9, epoch: 5 } });
    assert.deepEqual(server.begin(), [{ type: 'subscribe', filter: 'a', offset: 9, epoch: 5 }]);
    assert.deepEqual(server.reconnect(), [{ type: 'subscribe', filter: 'a', offset: 9, epoch: 5 }]);
});

test('START asks for all there is, and what is gone is told before what is there', () => {
    const { client, ...server } = fake();
    const { subscription, heard, gaps } = listen(client, 'a', { since: START });
    assert.deepEqual(server.begin(), [{ type: 'subscribe', filter: 'a', offset: 0, epoch: 0 }]);
    server.subscribed('a', 8, 5, false);
    assert.deepEqual(gaps, ['not_kept']);
    assert.deepEqual(server.events('gap'), [{ filter: 'a', reason: 'not_kept', after: null }]);
    [7, 8, 9].forEach((offset) => server.message('a', offset));
    assert.deepEqual([heard, gaps], [['a 7', 'a 8', 'a 9'], ['not_kept']]);
    assert.deepEqual(subscription.position, { offset: 9, epoch: 5 });
});

test('another epoch, a position of the future and a history that is too short are told as gaps, and nothing twice', () => {
    for (const [now, epoch, kept, after] of [[2, 6, [1, 2, 3], 'a life anew'], [1, 5, [1, 2], 'a future'], [9, 5, [8, 9, 10], 'too short']]) {
        const { client, ...server } = fake();
        const { heard, gaps } = listen(client, 'a', { since: { offset: 4, epoch: 5 } });
        server.begin();
        server.subscribed('a', now, epoch, false);
        kept.forEach((offset) => server.message('a', offset, epoch));
        kept.forEach((offset) => server.message('a', offset, epoch));
        assert.deepEqual([heard, gaps], [kept.map((offset) => `a ${offset}`), ['not_kept']], after);
        assert.deepEqual(server.events('gap')[0].after, { offset: 4, epoch: 5 });
        assert.equal(server.events('subscribe')[0].recovered, false);
    }
});

test('a connection that is lost in the middle of another life goes on in that life', () => {
    const { client, ...server } = fake();
    listen(client, 'a', { since: { offset: 4, epoch: 5 } });
    server.begin();
    server.subscribed('a', 9, 6, false);
    assert.deepEqual(server.reconnect(), [{ type: 'subscribe', filter: 'a', offset: 0, epoch: 6 }]);
    server.subscribed('a', 9, 6, true);
    server.message('a', 1, 6);
    assert.deepEqual(server.reconnect(), [{ type: 'subscribe', filter: 'a', offset: 1, epoch: 6 }]);
});

test('what the server loses in the middle of a replay is told once, before the message behind it', () => {
    const { client, ...server } = fake();
    const { heard, gaps } = listen(client, 'a', { since: START });
    client.on('gap', () => heard.push('gap'));
    server.begin();
    server.subscribed('a', 9, 5);
    server.message('a', 1);
    server.subscribed('a', undefined, undefined, false);
    server.message('a', 7);
    server.message('a', 8);
    assert.deepEqual([heard, gaps], [['a 1', 'gap', 'a 7', 'a 8'], ['not_kept']]);
});

test('numbers that are left out are told', () => {
    const { client, ...server } = fake();
    const { heard, gaps } = listen(client, 'a');
    server.begin();
    server.subscribed('a', 0, 5);
    server.message('a', 1);
    server.message('a', 5);
    server.message('a', 6);
    assert.deepEqual([heard, gaps], [['a 1', 'a 5', 'a 6'], ['skipped']]);
    assert.deepEqual(server.events('gap'), [{ filter: 'a', reason: 'skipped', after: { offset: 1, epoch: 5 } }]);
});

test('a filter brings what matches, and after a reconnect says that it may have missed something', () => {
    const { client, ...server } = fake();
    const { subscription, heard, gaps } = listen(client, 'a/+');
    assert.deepEqual(server.begin(), [{ type: 'subscribe', filter: 'a/+' }]);
    server.subscribed('a/+');
    server.message('a/x', 4);
    server.message('a/y');
    server.message('b/x', 1);
    assert.deepEqual([heard, subscription.position], [['a/x 4', 'a/y undefined'], null]);
    assert.deepEqual(server.events('message').map(({ topic }) => topic), ['b/x'], 'the server has put it there');
    assert.deepEqual(server.reconnect(), [{ type: 'subscribe', filter: 'a/+' }]);
    server.subscribed('a/+');
    assert.deepEqual(gaps, ['no_position']);
    assert.deepEqual(server.events('subscribe').at(-1), { filter: 'a/+', position: null, recovered: false, isReturn: true });
    assert.throws(() => client.subscribe('b/#', () => {}, { since: START }), { code: 'invalid_argument' });
});

test('who follows a topic in two ways hears each message once in each, and topics come back before filters', () => {
    const { client, ...server } = fake();
    const wide = listen(client, 'a/#');
    const exact = listen(client, 'a/x');
    assert.deepEqual(server.begin().map(({ filter }) => filter), ['a/x', 'a/#']);
    server.subscribed('a/x', 0, 5);
    server.message('a/x', 1);
    server.subscribed('a/#');
    server.message('a/x', 2);
    assert.deepEqual([exact.heard, wide.heard], [['a/x 1', 'a/x 2'], ['a/x 2']]);
    assert.throws(() => client.subscribe('a/y', () => {}, { since: START }), /"a\/#" brings it already/);
    assert.deepEqual(server.reconnect().map(({ filter }) => filter), ['a/x'], 'the filter waits');
    server.subscribed('a/x', 4, 5);
    assert.deepEqual(server.heard().map(({ filter }) => filter), ['a/#']);
    server.message('a/x', 3);
    server.message('a/x', 4);
    server.subscribed('a/#');
    server.message('a/x', 5);
    assert.deepEqual([exact.heard.slice(2), wide.heard.slice(1)], [['a/x 3', 'a/x 4', 'a/x 5'], ['a/x 5']]);
});

test('a filter waits until each topic that it matches has gone on from where it was, whatever becomes of that', async () => {
    const { client, ...server } = fake();
    const [first, second, other] = ['a/x', 'a/y', 'b'].map((topic) => listen(client, topic, { since: { offset: 2, epoch: 5 } }));
    const wide = listen(client, 'a/+');
    const narrow = listen(client, 'c/+');
    assert.deepEqual(server.begin().map(({ filter }) => filter), ['a/x', 'a/y', 'b', 'c/+'], 'others do not wait');
    server.subscribed('a/x', 3, 5);
    assert.deepEqual(server.heard(), [], 'one of two');
    // A server lets less pass than was asked: what comes meanwhile is not missing, and comes once.
    server.say(LIMITED);
    server.message('a/x', 3);
    server.message('a/x', 4);
    assert.deepEqual([first.heard, first.gaps, wide.heard], [['a/x 3', 'a/x 4'], [], []]);
    server.clock.pass(1_000);
    assert.deepEqual(server.heard().map(({ filter }) => filter), ['a/y', 'b', 'c/+']);
    server.say({ type: 'error', code: 403, message: 'no', topic: 'a/y' });
    assert.equal(await outcome(second.subscription.ready), 'refused');
    assert.deepEqual(server.heard().map(({ filter }) => filter), ['a/+'], 'what is refused goes on from nowhere');
    ['b', 'c/+', 'a/+'].forEach((filter) => server.subscribed(filter, ...(filter === 'b' ? [2, 5] : [])));
    server.message('a/x', 5);
    assert.deepEqual([first.heard.slice(2), wide.heard, other.gaps, narrow.gaps], [['a/x 5'], ['a/x 5'], [], []]);
    // Nor does it wait for one that nobody wants any more.
    server.close();
    server.comeBack();
    server.open();
    void first.subscription.unsubscribe();
    server.registered();
    assert.deepEqual(server.heard().slice(1).map(({ filter }) => filter), ['b', 'a/+', 'c/+']);
});

const LIMITED = { type: 'error', code: 429, message: 'Rate limit exceeded' };

test('a topic that is followed twice is subscribed once, and left by the last one', async () => {
    const { client, ...server } = fake();
    const first = listen(client, 'a');
    server.begin();
    server.subscribed('a', 0, 5);
    const second = listen(client, 'a');
    assert.deepEqual(server.heard(), []);
    assert.equal((await second.subscription.ready).position.offset, 0);
    server.message('a', 1);
    await first.subscription.unsubscribe();
    server.message('a', 2);
    assert.deepEqual([first.heard, second.heard], [['a 1'], ['a 1', 'a 2']]);
    assert.throws(() => client.subscribe('a', () => {}, { since: START }), /subscribed to already/);
    const left = second.subscription.unsubscribe();
    assert.deepEqual(server.heard(), [{ type: 'unsubscribe', filter: 'a' }]);
    server.message('a', 3);
    assert.equal(await outcome(left), 'pending');
    server.say({ type: 'unsubscribe', filter: 'a' });
    await left;
    assert.deepEqual([second.heard, server.events('message')], [['a 1', 'a 2'], []], 'what was under way is nobody’s');
    assert.deepEqual(server.reconnect(), []);
});

test('a handler may unsubscribe itself and others', () => {
    const { client, ...server } = fake();
    const heard = [];
    const first = client.subscribe('a', ({ data }) => {
        heard.push(data);
        first.unsubscribe();
        second.unsubscribe();
    });
    const second = client.subscribe('a', () => heard.push('never'));
    server.begin();
    server.subscribed('a', 0, 5);
    server.message('a', 1);
    server.message('a', 2);
    assert.deepEqual(heard, ['a 1']);
});

test('unsubscribed and subscribed again at once, each answer goes to its own request', async () => {
    const { client, ...server } = fake();
    const first = listen(client, 'a');
    server.begin();
    const left = first.subscription.unsubscribe();
    const second = listen(client, 'a');
    assert.deepEqual(server.heard().map(({ type }) => type), ['unsubscribe', 'subscribe']);
    assert.equal(await outcome(first.subscription.ready), 'closed');
    server.subscribed('a', 1, 5);
    assert.equal(second.subscription.isLive, false, 'that was for the first one');
    server.message('a', 2);
    server.say({ type: 'unsubscribe', filter: 'a' });
    await left;
    server.subscribed('a', 2, 5);
    server.message('a', 3);
    assert.deepEqual([first.heard, second.heard], [[], ['a 3']]);
});

test('a subscription that is refused is told, and not asked for again', async () => {
    const { client, ...server } = fake();
    const { subscription } = listen(client, '$nodes');
    const other = listen(client, 'b');
    server.begin();
    server.say({ type: 'error', code: 403, message: 'Topics that begin with $ belong to the server', topic: '$nodes' });
    server.subscribed('b', 0, 5);
    await assert.rejects(subscription.ready, { code: 'refused', status: 403, topic: '$nodes' });
    assert.deepEqual(server.events('error').map(({ topic }) => topic), ['$nodes']);
    assert.equal((await other.subscription.ready).filter, 'b');
    assert.deepEqual(server.reconnect().map(({ filter }) => filter), ['b']);
});

test('a subscription that nobody answers is asked for on a new connection', () => {
    const { client, clock, ...server } = fake({ heartbeatInterval: 60_000 });
    listen(client, 'a');
    server.begin();
    clock.pass(10_000);
    assert.deepEqual([client.state, server.events('error').at(-1).code], ['waiting', 'timeout']);
    clock.pass(1_000);
    assert.deepEqual(server.again(), [{ type: 'subscribe', filter: 'a' }]);
    server.subscribed('a', 0, 5);
    clock.pass(50_000);
    assert.equal(client.state, 'open');
});

test('after close() and connect() they are there again, from where they were', async () => {
    const { client, clock, ...server } = fake();
    const { subscription, heard } = listen(client, 'a');
    server.begin();
    server.subscribed('a', 0, 5);
    server.message('a', 1);
    const left = client.close();
    clock.pass(1_000);
    await left;
    assert.deepEqual(server.begin(), [{ type: 'subscribe', filter: 'a', offset: 1, epoch: 5 }]);
    assert.deepEqual([heard, subscription.position], [['a 1'], { offset: 1, epoch: 5 }]);
});

test('a position that is none is refused', () => {
    const { client } = fake();
    for (const since of [{}, { offset: 1 }, { offset: -1, epoch: 0 }, { offset: 1.5, epoch: 0 }, { offset: 2 ** 53, epoch: 1 }, 7]) {
        assert.throws(() => client.subscribe('a', () => {}, { since }), { code: 'invalid_argument' });
    }
});

test('the data of a message is text, and JSON for who asks', () => {
    const { client, ...server } = fake();
    const found = [];
    client.subscribe('a', (message) => found.push(message.json()));
    server.begin();
    server.subscribed('a', 0, 5);
    server.say({ type: 'message', topic: 'a', offset: 1, epoch: 5, data: '{"n":1}' });
    server.say({ type: 'message', topic: 'a', offset: 2, epoch: 5, data: 'none' });
    assert.deepEqual(found, [{ n: 1 }]);
    assert.equal(server.events('error')[0].code, 'handler');
    assert.ok(server.events('error')[0].cause instanceof SyntaxError);
});

test('what was under way because the server itself had put the node into a topic is delivered when it begins, once and in order', () => {
    const { client, ...server } = fake();
    server.begin();
    const { heard, gaps } = listen(client, 'a');
    server.message('a', 3);
    server.subscribed('a', 6, 5);
    [4, 5, 5, 6, 4, 7, 6].forEach((offset) => server.message('a', offset));
    assert.deepEqual(server.events('message').map(({ data }) => data), ['a 3'], 'nobody had subscribed to it yet');
    assert.deepEqual([heard, gaps, client.statistics().duplicates], [['a 4', 'a 5', 'a 6', 'a 7'], [], 3]);
    // From then on it goes on behind a position.
    assert.deepEqual(server.reconnect(), [{ type: 'subscribe', filter: 'a', offset: 7, epoch: 5 }]);
    server.subscribed('a', 9, 5);
    [7, 8, 9].forEach((offset) => server.message('a', offset));
    assert.deepEqual(heard, ['a 4', 'a 5', 'a 6', 'a 7', 'a 8', 'a 9']);
});

test('what is under way through a filter when a topic begins is heard by those who follow the filter', () => {
    const { client, ...server } = fake();
    server.begin();
    const wide = listen(client, '+');
    server.subscribed('+');
    const exact = listen(client, 'a');
    server.message('a', 3);
    server.subscribed('a', 4, 5);
    [4, 5].forEach((offset) => server.message('a', offset));
    assert.deepEqual([wide.heard, exact.heard], [['a 3', 'a 4', 'a 5'], ['a 5']]);
    assert.equal(client.statistics().duplicates, 0);
});

test('what a server skips beyond its rate limit is asked again after a pause, on the same connection, and all is there in the end', () => {
    const { client, ...server } = fake({ heartbeatInterval: 1_000_000 });
    const filters = Array.from({ length: 400 }, (_, n) => `t${n}`);
    filters.forEach((filter) => listen(client, filter));
    let asked = server.begin();
    assert.equal(asked.length, 256, 'no more at a time');
    const live = new Set();
    let pauses = 0;
    while (live.size < filters.length) {
        // It lets ten pass in a second.
        const [granted, skipped] = [asked.slice(0, 10), asked.slice(10)];
        granted.forEach(({ filter }) => {
            assert.ok(!live.has(filter), `${filter} again`);
            live.add(filter);
            server.subscribed(filter, 0, 5);
        });
        skipped.forEach(() => server.say(LIMITED));
        const more = server.heard();
        if (skipped.length > 0) {
            pauses++;
            assert.ok(more.length <= 20, 'in a pause nothing is asked but what took the place of what was answered before');
            more.forEach(() => server.say(LIMITED));
        }
        assert.ok(pauses < 200);
        server.clock.pass(1_000);
        asked = [...(skipped.length > 0 ? [] : more), ...server.heard()];
        assert.deepEqual([server.sockets.length, client.state], [1, 'open']);
    }
    assert.ok(pauses > 2);
    server.clock.pass(100_000);
    assert.deepEqual([server.sockets.length, server.heard()], [1, []], 'nothing is waited for any more');
});

test('an UNSUBSCRIBE is answered, asked again when it was skipped, or the connection is made anew', async () => {
    const { client, ...server } = fake({ requestTimeout: 5_000 });
    server.begin();
    const [a, b] = [listen(client, 'a').subscription, listen(client, 'b').subscription];
    ['a', 'b'].forEach((filter) => server.subscribed(filter, 0, 5));
    server.heard();
    const ended = a.unsubscribe();
    assert.deepEqual(server.heard(), [{ type: 'unsubscribe', filter: 'a' }]);
    server.say(LIMITED);
    server.clock.pass(999);
    assert.deepEqual([server.heard(), await outcome(ended)], [[], 'pending']);
    server.clock.pass(1);
    assert.deepEqual(server.heard(), [{ type: 'unsubscribe', filter: 'a' }]);
    server.message('a', 1);
    assert.deepEqual(server.events('message'), [], 'what is under way is nobody\'s');
    server.say({ type: 'unsubscribe', filter: 'a' });
    assert.equal(await outcome(ended), undefined);
    // Without an answer it is forgotten with the connection.
    const late = b.unsubscribe();
    server.clock.pass(5_000);
    assert.equal(await outcome(late), undefined);
    assert.deepEqual([client.state, server.events('error').at(-1).code], ['waiting', 'timeout']);
    server.comeBack();
    assert.deepEqual(server.again(), []);
});

test('who subscribes anew while it is still to be unsubscribed has the one subscription', async () => {
    const { client, ...server } = fake();
    server.begin();
    const first = listen(client, 'a').subscription;
    server.subscribed('a', 0, 5);
    server.heard();
    const other = listen(client, 'b').subscription;
    server.say(LIMITED);
    server.heard();
    const ended = first.unsubscribe();
    const { heard } = listen(client, 'a');
    assert.deepEqual(server.heard(), [], 'it is a pause');
    server.clock.pass(1_000);
    assert.deepEqual(server.heard(), [{ type: 'subscribe', filter: 'b' }, { type: 'subscribe', filter: 'a' }]);
    assert.equal(await outcome(ended), undefined);
    server.subscribed('b', 0, 5);
    server.subscribed('a', 2, 5);
    server.message('a', 3);
    assert.deepEqual([heard, other.isLive], [['a 3'], true]);
});
