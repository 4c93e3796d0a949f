// A real browser, headless, moved as a person would: over its DevTools. Everything that waits has a deadline.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const WebSocket = createRequire(new URL('../../clients/js/package.json', import.meta.url))('ws');

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits for a condition, and says what did not happen. */
export async function until(condition, what, seconds = 30) {
    const deadline = Date.now() + 1000 * seconds;
    for (;;) {
        const found = await condition();
        if (found) {
            return found;
        }
        assert.ok(Date.now() < deadline, `${what}: did not happen within ${seconds} s`);
        await sleep(20);
    }
}

class Page {
    #number = 0;
    #waiting = new Map();
    /** What the page complained of. */
    complaints = [];

    constructor(socket) {
        this.socket = socket;
        socket.on('message', (text) => {
            const { id, result, error, method, params } = JSON.parse(text);
            if (method === 'Runtime.exceptionThrown') {
                this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
            } else if (method === 'Log.entryAdded' && params.entry.level === 'error' && params.entry.source === 'security') {
                this.complaints.push(params.entry.text);
            }
            const waiting = this.#waiting.get(id);
            this.#waiting.delete(id);
            error ? waiting?.reject(new Error(error.message)) : waiting?.resolve(result);
        });
        socket.on('close', () => [...this.#waiting.values()].forEach(({ reject }) => reject(new Error('the browser is gone'))));
    }

    send(method, params = {}) {
        return new Promise((resolve, reject) => {
            this.#waiting.set(++this.#number, { resolve, reject });
            this.socket.send(JSON.stringify({ id: this.#number, method, params }), (error) => error && reject(error));
        });
    }

    /** The value of an expression in the page, awaited. */
    async evaluate(expression) {
        const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
        assert.equal(exceptionDetails, undefined, `${expression}: ${exceptionDetails?.exception?.description}`);
        return result.value;
    }

    until(expression, what, seconds) {
        return until(() => this.evaluate(expression), what, seconds);
    }

    /** Types into what a selector finds, and presses Enter. */
    async type(selector, text) {
        await this.evaluate(`document.querySelector(${JSON.stringify(selector)}).focus()`);
        await this.send('Input.insertText', { text });
        for (const type of ['keyDown', 'keyUp']) {
            await this.send('Input.dispatchKeyEvent', { type, key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, ...(type === 'keyDown' && { text: '\r' }) });
        }
    }

    async screenshot(file, { scheme = 'light', width = 1100, height = 700 } = {}) {
        await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
        await this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
        await sleep(300);
        const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
        writeFileSync(file, Buffer.from(data, 'base64'));
    }
}

class Browser {
    constructor(child, port) {
        Object.assign(this, { child, port, pages: [] });
    }

    async open(url) {
        const target = await (await fetch(`http://127.0.0.1:${this.port}/json/new?${encodeURIComponent(url)}`, { method: 'PUT' })).json();
        const socket = new WebSocket(target.webSocketDebuggerUrl, { perMessageDeflate: false });
        await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
        const page = new Page(socket);
        this.pages.push(page);
        await page.send('Runtime.enable');
        await page.send('Log.enable');
        await page.until(`location.href !== 'about:blank' && document.readyState === 'complete'`, `${url} is loaded`);
        return page;
    }

    /** As a crash, or the kernel, ends it: it writes nothing down any more. */
    async kill() {
        const gone = new Promise((resolve) => (this.child.exitCode ?? this.child.signalCode) === null ? this.child.once('exit', resolve) : resolve());
        process.kill(-this.child.pid, 'SIGKILL');
        await gone;
    }
}

/** A browser whose memory is in this folder: another one with the same folder remembers it. */
export async function launch(folder) {
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'chromium', '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
        '--disable-background-networking', '--hide-scrollbars', '--lang=en-GB', '--remote-debugging-port=0', '--remote-allow-origins=*', `--user-data-dir=${folder}`, 'about:blank'],
    { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    const port = await new Promise((resolve, reject) => {
        child.stderr.on('data', (text) => {
            said += text;
            const found = /DevTools listening on ws:\/\/127\.0\.0\.1:(\d+)\//.exec(said);
            found && resolve(Number(found[1]));
        });
        child.once('exit', () => reject(new Error(`chromium did not start:\n${said.slice(-2000)}`)));
        child.once('error', reject);
    });
    const browser = new Browser(child, port);
    process.once('exit', () => {
        try {
            process.kill(-child.pid, 'SIGKILL');
        } catch {
            // It is gone.
        }
    });
    return browser;
}
