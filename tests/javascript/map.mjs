// The map of php-examples/map: `map.mjs URL FOLDER DEVICES [SCREENSHOT]`. Says `gone` to have a device killed. Ends with 0 and OK when all went as it should.

import assert from 'node:assert/strict';
import { launch, sleep } from './browser.mjs';

const [url, folder, devices, screenshot] = process.argv.slice(2);
const say = (text) => process.stdout.write(`${text}\n`);
const browser = await launch(folder);
const page = await browser.open(url);
const places = () => page.evaluate(`Object.fromEntries([...document.querySelectorAll('#devices li')].map((row) => [row.dataset.device, row.lastChild.textContent]))`);

await page.until(`document.getElementById('state').dataset.state === 'open'`, 'it is live');
await page.until(`document.getElementById('count').textContent === '${devices}'`, 'all devices are there');
const before = await places();
const town = Array.from({ length: devices - 1 }, (_, n) => `town-${String(n + 1).padStart(2, '0')}`);
assert.deepEqual(Object.keys(before), ['lone-01', ...town], 'in order, and no page among them');
await page.until(`[...document.querySelectorAll('#devices li')].every((row) => row.lastChild.textContent !== (${JSON.stringify(before)})[row.dataset.device])`, 'all have moved');

// What is drawn is on the canvas: a device has its colour somewhere.
const isDrawn = `(() => {
    const canvas = document.getElementById('map');
    const [red, green, blue] = getComputedStyle(document.querySelector('li[data-kind="van"]'), '::before').backgroundColor.match(/\\d+/g).map(Number);
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    for (let place = 0; place < data.length; place += 4) {
        if (data[place] === red && data[place + 1] === green && data[place + 2] === blue) { return true; }
    }
    return false;
})()`;
await page.until(isDrawn, 'a van is drawn');

say('gone');
const tells = (text) => page.until(`[...document.querySelectorAll('#log span')].some((each) => each.textContent === ${JSON.stringify(text)})`, text);
await tells('lone-01 connection lost');
assert.ok(!('lone-01' in (await places())));
await tells('late-01 came');

// A page that is opened now shows all at once, without news of what was before.
const other = await browser.open(url);
await other.until(`document.getElementById('count').textContent === '${devices}'`, 'all are there again');
assert.ok(!(await other.evaluate(`document.getElementById('log').textContent`)).includes('lone-01'));

if (screenshot) {
    await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
    await sleep(8000);
    await page.screenshot(screenshot, { scheme: 'dark' });
}
assert.deepEqual([page.complaints, other.complaints], [[], []]);
await browser.kill();
say('OK');
process.exit(0);
