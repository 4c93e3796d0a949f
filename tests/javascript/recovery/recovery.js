// Writes down every message together with its position, in one transaction that is on the disk when it is done. So whoever ends this page,
// and however, what is written is what it had; it goes on behind the last of that.

import { HeartbusClient, START } from './heartbus/index.js';

const { port, topic } = await (await fetch('settings.json')).json();
const done = (request, event = 'success') => new Promise((resolve, reject) => {
    request[`on${event}`] = () => resolve(request.result);
    request.onerror = request.onabort = () => reject(request.error);
});

const opening = indexedDB.open('recovery', 1);
opening.onupgradeneeded = () => opening.result.createObjectStore('got', { autoIncrement: true });
const database = await done(opening);
const last = await done(database.transaction('got').objectStore('got').openCursor(null, 'prev'));

window.written = await done(database.transaction('got').objectStore('got').count());
window.gaps = [];
window.all = () => done(database.transaction('got').objectStore('got').getAll());

let waiting = [];
let isWriting = false;
async function write() {
    isWriting = true;
    while (waiting.length > 0) {
        const batch = waiting;
        waiting = [];
        const transaction = database.transaction('got', 'readwrite', { durability: 'strict' });
        batch.forEach((record) => transaction.objectStore('got').add(record));
        await done(transaction, 'complete');
        window.written += batch.length;
    }
    isWriting = false;
}

const client = (window.client = new HeartbusClient(`ws://${location.hostname}:${port}/`, { nodeId: 'page', reconnectBase: 200 }));
client.subscribe(topic, (message) => {
    waiting.push({ data: message.data, position: message.position });
    isWriting || write();
}, { since: last?.value.position ?? START, onGap: (gap) => window.gaps.push(gap) });
client.connect();
