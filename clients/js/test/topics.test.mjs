// Names and filters, as the server has them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkFilter, checkTopic, isWild, matches, utf8Length } from '../dist/topics.js';

test('a filter matches level by level', () => {
    for (const [filter, topic, does] of [
        ['a', 'a', true],
        ['a', 'b', false],
        ['a/b', 'a', false],
        ['a', 'a/b', false],
        ['+', 'a', true],
        ['+', 'a/b', false],
        ['a/+', 'a/b', true],
        ['a/+', 'a', false],
        ['a/+', 'a/', true],
        ['+/+', '/a', true],
        ['a/+/c', 'a/b/c', true],
        ['a/+/c', 'a/b/d', false],
        ['#', 'a/b/c', true],
        ['a/#', 'a', true],
        ['a/#', 'a/b/c', true],
        ['a/#', 'ab', false],
        ['a/+/#', 'a', false],
        ['a/+/#', 'a/b', true],
        ['#', '$nodes', false],
        ['+', '$nodes', false],
        ['$nodes', '$nodes', true],
        ['$sys/#', '$sys/a', true],
    ]) {
        assert.equal(matches(filter, topic), does, `${filter} and ${topic}`);
    }
    assert.deepEqual(['a', 'a+', '#a', 'a/+', '#', 'a/#'].map(isWild), [false, false, false, true, true, true]);
});

test('what is no name or no filter is refused before it is sent', () => {
    for (const text of ['', 'x'.repeat(256), '早'.repeat(86), 'a\nb', 'a\u0085b', 'a\ud800', 7, null]) {
        assert.throws(() => checkTopic(text), { code: 'invalid_argument' });
        assert.throws(() => checkFilter(text), { code: 'invalid_argument' });
    }
    for (const text of ['a', 'x'.repeat(255), '早'.repeat(85), 'a b', '/', 'a+', '😀']) {
        checkTopic(text);
        checkFilter(text);
    }
    for (const text of ['+', '#', 'a/+/b', 'a/#']) {
        assert.throws(() => checkTopic(text), { code: 'invalid_argument' });
        checkFilter(text);
    }
    assert.throws(() => checkFilter('#/a'), { code: 'invalid_argument' });
});

test('bytes are counted as UTF-8 has them', () => {
    for (const text of ['', 'abc', 'é', '早上好', '😀', 'a😀é早', '\u07ff\u0800\uffff']) {
        assert.equal(utf8Length(text), Buffer.byteLength(text), text);
    }
});
