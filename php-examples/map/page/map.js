// The map's page: follows one topic, and draws what it says.

import { HeartbusClient, START } from './heartbus/index.js';

/** Who has not been heard of for so long is gone, although we were not told: that was in a gap. */
const FORGET_AFTER = 15_000;
/** Between two reports of a device; it glides from one to the next. */
const REPORT_EVERY = 500;
const FADE = 600;
const TRAIL = 14;
const MAX_LOG = 50;
const MAX_DEVICES = 5000;

const find = (id) => document.getElementById(id);
const element = (tag, text = '', className = '') => Object.assign(document.createElement(tag), { textContent: text, className });
const { port, size } = await (await fetch('settings.json')).json();
const scheme = location.protocol === 'https:' ? 'wss' : 'ws';

/** By id: kind, where it was, where it is, when that was told, the way behind it, its row on the list. */
const devices = new Map();
/** Those that fade out. */
const leaving = new Set();

const client = new HeartbusClient(`${scheme}://${location.hostname}:${port}/`, {
    nodeId: `map-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`,
    heartbeatInterval: 1_500,
    reconnectBase: 500,
    reconnectMax: 5_000,
});
client.on('state', ({ state }) => {
    find('state').textContent = { open: 'live', waiting: 'no connection, trying again' }[state] ?? state;
    find('state').dataset.state = state;
});

/** Up to here it is the past: shown, but not told as news. */
let past = 0;
client.on('subscribe', ({ position }) => (past = position.offset));

client.subscribe('map', take, {
    since: START,
    onGap: ({ after }) => {
        // Who has left meanwhile nobody can say: what follows shows who is there.
        [...devices.keys()].forEach(remove);
        after !== null && tell('some of it was missed');
    },
});
client.connect();

function take(message) {
    const said = read(message);
    const isNews = message.position.offset > past;
    if (said === null) {
        return;
    }
    if (said.gone !== null) {
        remove(said.id) && isNews && tell(`${said.id} ${said.gone}`);
        return;
    }
    let device = devices.get(said.id);
    if (device === undefined) {
        if (devices.size >= MAX_DEVICES) {
            return;
        }
        device = { id: said.id, kind: said.kind, from: said.at, to: said.at, told: 0, trail: [], row: row(said) };
        devices.set(said.id, device);
        find('count').textContent = devices.size;
        isNews && tell(`${said.id} came`);
    }
    const now = performance.now();
    device.from = device.told === 0 ? said.at : place(device, now);
    device.to = said.at;
    device.told = now;
    device.trail.push(said.at);
    device.trail.length > TRAIL && device.trail.shift();
    device.row.lastChild.textContent = `${Math.round(said.at[0])}, ${Math.round(said.at[1])}`;
}

/** What the server publishes; anything else that somebody may have is left out. */
function read(message) {
    try {
        const { id, kind = '', at = null, gone = null } = message.json();
        const isGood = typeof id === 'string' && typeof kind === 'string' && (gone === null || typeof gone === 'string');
        const isPlace = Array.isArray(at) && at.length === 2 && at.every((part) => Number.isFinite(part) && part >= 0 && part <= size);
        return isGood && (gone !== null || isPlace) ? { id, kind, at, gone } : null;
    } catch {
        return null;
    }
}

function row({ id, kind }) {
    const line = element('li');
    line.dataset.kind = kind;
    line.dataset.device = id;
    line.append(element('span', id, 'id'), element('span', '', 'at'));
    const after = [...find('devices').children].find((other) => other.dataset.device > id);
    find('devices').insertBefore(line, after ?? null);
    return line;
}

function remove(id) {
    const device = devices.get(id);
    if (device === undefined) {
        return false;
    }
    devices.delete(id);
    device.row.remove();
    device.gone = performance.now();
    leaving.add(device);
    find('count').textContent = devices.size;
    return true;
}

function tell(text) {
    const line = element('li');
    line.append(element('time', new Date().toLocaleTimeString()), element('span', text));
    find('log').prepend(line);
    find('log').children.length > MAX_LOG && find('log').lastChild.remove();
}

setInterval(() => {
    const now = performance.now();
    for (const device of devices.values()) {
        // Without a connection nobody is heard of.
        if (client.state === 'open' && now - device.told > FORGET_AFTER) {
            remove(device.id);
        }
    }
}, 1_000);

// ---- drawing ----

const canvas = find('map');
const context = canvas.getContext('2d');
let colours = {};

function readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ['ground', 'block', 'park', 'water', 'street', 'panel', 'text', 'quiet', 'bus', 'van', 'bike'];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

readColours();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', readColours);

/** Where a device is at this moment, on its way to where it was said to be. */
function place({ from, to, told }, now) {
    const part = Math.min(1, (now - told) / REPORT_EVERY);
    return [from[0] + (to[0] - from[0]) * part, from[1] + (to[1] - from[1]) * part];
}

function draw(now) {
    const ratio = devicePixelRatio;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const scale = Math.min(width, height) / size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colours.street;
    context.fillRect(0, 0, width, height);
    context.translate((width - size * scale) / 2, (height - size * scale) / 2);
    drawTown(scale, Math.ceil(width / scale / 100));
    for (const device of devices.values()) {
        drawDevice(device, place(device, now), scale, 1);
    }
    for (const device of leaving) {
        const left = 1 - (now - device.gone) / FADE;
        left > 0 ? drawDevice(device, device.to, scale, left) : leaving.delete(device);
    }
    requestAnimationFrame(draw);
}

/** Blocks between streets, parks, and a river that the streets bridge. */
function drawTown(scale, blocks) {
    const gap = 9;
    const [left, right] = [-100 * blocks, size + 100 * blocks];
    for (let column = -blocks; column < size / 100 + blocks; column++) {
        for (let line = 0; line < size / 100; line++) {
            const isPark = line === 5 || (column >= 6 && column <= 7 && line >= 2 && line <= 3) || (column === 2 && line === 7) || (column === -2 && line === 8);
            context.fillStyle = isPark ? colours.park : colours.block;
            context.beginPath();
            context.roundRect((column * 100 + gap) * scale, (line * 100 + gap) * scale, (100 - 2 * gap) * scale, (100 - 2 * gap) * scale, 8 * scale);
            context.fill();
        }
    }
    context.strokeStyle = colours.water;
    context.lineWidth = 42 * scale;
    context.lineCap = 'butt';
    context.beginPath();
    for (let x = left; x <= right; x += 20) {
        context.lineTo(x * scale, (550 + 15 * Math.sin(x / 130)) * scale);
    }
    context.stroke();
    context.fillStyle = colours.street;
    for (let x = left; x <= right; x += 100) {
        context.fillRect((x - gap) * scale, 500 * scale, 2 * gap * scale, 100 * scale);
    }
}

function drawDevice({ id, kind, trail }, [x, y], scale, alpha) {
    const colour = colours[kind] ?? colours.quiet;
    context.globalAlpha = alpha * 0.35;
    context.strokeStyle = colour;
    context.lineWidth = 4;
    context.lineCap = context.lineJoin = 'round';
    context.beginPath();
    trail.slice(0, -1).forEach(([left, top], index) => context[index === 0 ? 'moveTo' : 'lineTo'](left * scale, top * scale));
    context.lineTo(x * scale, y * scale);
    context.stroke();
    context.globalAlpha = alpha;
    context.fillStyle = colour;
    context.strokeStyle = colours.panel;
    context.lineWidth = 2.5;
    context.beginPath();
    context.arc(x * scale, y * scale, 8, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
    context.font = '11px system-ui, sans-serif';
    context.fillStyle = colours.text;
    context.fillText(id.slice(0, 24), x * scale + 12, y * scale + 4);
    context.globalAlpha = 1;
}

requestAnimationFrame(draw);
