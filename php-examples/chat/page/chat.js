// The chat's page. What people write is only ever put in as text.

import { HeartbusClient, START } from './heartbus/index.js';

/** Messages on the page; the server keeps fewer. */
const MAX_SHOWN = 500;

const find = (id) => document.getElementById(id);
const { port } = await (await fetch('settings.json')).json();
const scheme = location.protocol === 'https:' ? 'wss' : 'ws';

/** An element with text; nothing else ever gets into the page. */
const element = (tag, text = '', className = '') => Object.assign(document.createElement(tag), { textContent: text, className });

const name = find('name');
name.value = localStorage.getItem('name') ?? `guest ${Math.floor(1000 * Math.random())}`;

// Each window is a node of its own, and the same one after it was loaded again.
const nodeId = (sessionStorage.nodeId ??= `chat-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`);
const client = new HeartbusClient(`${scheme}://${location.hostname}:${port}/`, {
    nodeId,
    metadata: { name: name.value },
    heartbeatInterval: 10_000,
    reconnectBase: 500,
    reconnectMax: 10_000,
});

client.on('state', ({ state }) => {
    find('state').textContent = { open: 'connected', waiting: 'no connection, trying again' }[state] ?? state;
    find('state').dataset.state = state;
});
client.on('error', (error) => error.code === 'replaced' && note('This window is open elsewhere; load it again to go on here.'));

client.subscribe('people', (message) => {
    const { count, names } = message.json();
    find('count').textContent = count;
    find('people').replaceChildren(...names.map((person) => element('li', person)));
}, { since: START });

// ---- rooms: one subscription at a time, to the room that the address names ----

const rooms = new Set(['lobby', 'kitchen', 'garden']);
let subscription = null;
let room = '';

function enter(next) {
    subscription?.unsubscribe();
    room = next;
    rooms.add(room);
    find('room').textContent = `# ${room}`;
    find('messages').replaceChildren();
    find('rooms').replaceChildren(...[...rooms].map((each) => {
        const link = element('a', each);
        link.href = `#${encodeURIComponent(each)}`;
        each === room && link.setAttribute('aria-current', 'true');
        return link;
    }));
    const mine = client.subscribe(`chat/${room}`, show, {
        since: START,
        onGap: ({ after }) => note(after === null ? 'Older messages are not kept.' : 'Something may be missing here.'),
    });
    subscription = mine;
    mine.ready.catch((error) => subscription === mine && note(`This room cannot be read: ${error.message}`));
}

/** A room is one level of a topic: no slashes, no wildcards. */
const roomOf = (text) => text.normalize().replace(/[/+#$\p{Cc}]/gu, '').trim().slice(0, 40) || 'lobby';

function decoded(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return '';
    }
}

addEventListener('hashchange', () => enter(roomOf(decoded(location.hash.slice(1)))));
find('open-room').addEventListener('submit', (event) => {
    event.preventDefault();
    location.hash = encodeURIComponent(roomOf(event.target.room.value));
    event.target.reset();
});

// ---- messages ----

function show(message) {
    const said = read(message);
    if (said === null) {
        return;
    }
    const row = element('li', '', said.node === nodeId ? 'message mine' : 'message');
    const at = new Date(said.at);
    const time = element('time', at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
    time.title = at.toLocaleString();
    row.append(element('span', said.from, 'from'), time, element('p', said.text));
    row.dataset.offset = message.position?.offset ?? '';
    append(row);
}

/** Anybody may publish anything. */
function read(message) {
    try {
        const { from, text, node, at } = message.json();
        const isGood = [from, text, node].every((value) => typeof value === 'string') && Number.isFinite(new Date(at).getTime());
        return isGood ? { from: from.slice(0, 40), text: text.slice(0, 2000), node, at } : null;
    } catch {
        return null;
    }
}

function append(row) {
    const list = find('messages');
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    list.append(row);
    while (list.children.length > MAX_SHOWN) {
        list.firstChild.remove();
    }
    if (isAtEnd || row.classList.contains('mine')) {
        list.scrollTop = list.scrollHeight;
    }
}

function note(text) {
    append(element('li', text, 'note'));
}

find('say').addEventListener('submit', (event) => {
    event.preventDefault();
    const input = event.target.text;
    const text = input.value.trim();
    if (text === '') {
        return;
    }
    input.value = '';
    // Without a connection it waits, and goes out on the next one. Our own message comes back as everybody's.
    client.publish(`chat/${room}`, { from: name.value.trim() || '?', text, node: nodeId, at: new Date() }).catch((error) => {
        const row = element('li', '', 'message mine failed');
        row.append(element('span', error.code === 'connection_lost' ? 'perhaps not sent' : 'not sent', 'from'), element('p', text));
        row.title = error.message;
        append(row);
    });
});

name.addEventListener('change', () => {
    const chosen = name.value.trim() || '?';
    localStorage.setItem('name', chosen);
    // For the next registrations; and the server is told now.
    client.register(nodeId, { name: chosen }).catch((error) => note(error.message));
    client.send(chosen);
});

enter(roomOf(decoded(location.hash.slice(1))));
client.connect();
