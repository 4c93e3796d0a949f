// The browser is killed and started again under load: `recovery.mjs URL FOLDER KILLS`. Says `enough` when nobody has to publish any more, and is
// told on stdin how many there were. Ends with 0 and what it has counted.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { launch } from './browser.mjs';

const [url, folder, kills] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
let written = 0;

const start = async () => {
    const browser = await launch(folder);
    const page = await browser.open(url);
    await page.until('window.client?.state === "open"', 'the page is a node');
    return [browser, page];
};
let [browser, page] = await start();
const more = async () => {
    await page.until(`window.written >= ${written + 150}`, 'more has come');
    written = await page.evaluate('window.written');
};

for (let times = 0; times < Number(kills); times++) {
    await more();
    await browser.kill();
    [browser, page] = await start();
    assert.ok((await page.evaluate('window.written')) >= written, 'what was written is there');
}
await more();
process.stdout.write('enough\n');
const total = Number((await lines.next()).value);
await page.until(`window.written >= ${total}`, `all ${total} have come`, 60);

const got = await page.evaluate('window.all()');
assert.deepEqual(await page.evaluate('window.gaps'), [], 'no gap was told');
const numbers = got.map(({ data }) => Number(data));
const missed = total - new Set(numbers).size;
const twice = numbers.length - new Set(numbers).size;
assert.deepEqual({ missed, twice }, { missed: 0, twice: 0 });
numbers.forEach((number, index) => assert.equal(number, index + 1, 'in order'));
got.forEach(({ position }, index) => assert.equal(position.offset, index + 1));
assert.deepEqual(page.complaints, []);
await browser.kill();
process.stdout.write(`OK ${total} messages, killed ${kills} times, ${missed} missed, ${twice} twice\n`);
process.exit(0);
