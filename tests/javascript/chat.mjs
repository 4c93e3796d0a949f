// Two people in the chat of php-examples/chat: `chat.mjs URL FOLDER [SCREENSHOT]`. Ends with 0 and OK when all went as it should.
// Waits in between for the word `again` on stdin, when the server is there anew.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { launch } from './browser.mjs';

const [url, folder, screenshot] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (text) => process.stdout.write(`${text}\n`);

const browser = await launch(folder);
const texts = (page) => page.evaluate(`[...document.querySelectorAll('.message p')].map((each) => each.textContent)`);
const has = (page, text) => page.until(`[...document.querySelectorAll('.message p')].some((each) => each.textContent === ${JSON.stringify(text)})`, `${text} is there`);
const isOpen = (page) => page.until(`document.getElementById('state').dataset.state === 'open'`, 'it is connected');
const people = (page, names) =>
    page.until(`[...document.querySelectorAll('#people li')].map((each) => each.textContent).sort().join() === ${JSON.stringify([...names].sort().join())}`, `${names} are there`);
const rename = async (page, name) => {
    await page.evaluate(`document.getElementById('name').select()`);
    await page.type('#name', name);
    await page.evaluate(`document.getElementById('name').blur()`);
};

const ada = await browser.open(url);
await isOpen(ada);
await rename(ada, 'Ada');
await people(ada, ['Ada']);

// What people write is text, whatever it looks like.
const nasty = `<img src=x onerror="document.title='broken in'"><b>bold</b> & déjà vu 😀`;
await ada.type('#say input', 'Good morning!');
await ada.type('#say input', nasty);
await has(ada, nasty);

// Whoever comes later reads what was said.
const bob = await browser.open(url);
await isOpen(bob);
await has(bob, nasty);
assert.deepEqual(await texts(bob), ['Good morning!', nasty]);
assert.equal(await bob.evaluate(`document.querySelectorAll('.message img, .message b').length`), 0);
assert.deepEqual([await ada.evaluate('document.title'), await bob.evaluate('document.title')], ['Heartbus chat', 'Heartbus chat']);
await rename(bob, '<i>Bob</i>');
await people(ada, ['Ada', '<i>Bob</i>']);
await rename(bob, 'Bob');
await people(ada, ['Ada', 'Bob']);
await bob.type('#say input', 'Good morning, Ada. I have just come, and could read all of it.');
await has(ada, 'Good morning, Ada. I have just come, and could read all of it.');
await has(bob, 'Good morning, Ada. I have just come, and could read all of it.');
assert.equal(await ada.evaluate(`document.querySelectorAll('.message.mine').length`), 2);
assert.equal(await bob.evaluate(`document.querySelectorAll('.message.mine').length`), 1);

// Rooms are apart, and each keeps what was said.
await bob.type('#open-room input', 'a/b+#c');
await bob.until(`document.getElementById('room').textContent === '# abc'`, 'a room has a name of one level');
await bob.type('#say input', 'nobody is here');
await has(bob, 'nobody is here');
assert.equal((await texts(ada)).length, 3);
await bob.evaluate(`location.hash = 'lobby'`);
await bob.until(`document.querySelectorAll('.message').length === 3`, 'the room is as it was');

if (screenshot) {
    await ada.type('#say input', 'So nothing is lost when my train goes through a tunnel?');
    await bob.type('#say input', 'Nothing. Your page comes back by itself and goes on behind the last message that it had.');
    await bob.type('#say input', 'And nothing comes twice.');
    await has(ada, 'And nothing comes twice.');
    await ada.screenshot(screenshot);
}

// The server dies. What is written meanwhile goes out when it is there again.
say('stop');
await ada.until(`document.getElementById('state').dataset.state !== 'open'`, 'the page notices');
await ada.type('#say input', 'written without a server 早上好');
assert.equal((await lines.next()).value, 'again');
await isOpen(ada);
await isOpen(bob);
await has(bob, 'written without a server 早上好');
await has(ada, 'written without a server 早上好');
assert.ok((await ada.evaluate(`[...document.querySelectorAll('.note')].map((each) => each.textContent).join()`)).includes('Something may be missing'), 'that is told');
await people(ada, ['Ada', 'Bob']);

// Leaving is seen.
await bob.send('Page.navigate', { url: 'about:blank' });
await people(ada, ['Ada']);
assert.deepEqual([ada.complaints, bob.complaints], [[], []]);
await browser.kill();
say('OK');
process.exit(0);
