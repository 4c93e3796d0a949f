// A server and a client in one program: the client says hello, the server answers, both tell what they saw.
//
//     npm install && node echo.mjs
import { Clients, HeartbusError, LOG, Log, ON, Server } from './heartbus.mjs';

const server = new Server({ host: '127.0.0.1', port: 0 }, ON.REGISTER | ON.DATA | ON.LEFT);
const clients = new Clients();
const log = new Log(LOG.INFO, server);
const me = clients.connect({ port: server.port, node_id: 'node' });

async function serve() {
    for await (const event of server) {
        console.log(`server: ${event.node} ${event.name} ${event.payload}`);
        if (event.name === 'data') {
            server.send(event.node, `hello ${event.node}`);
        } else if (event.name === 'unregister') {
            return;
        }
    }
}

async function live() {
    for await (const event of clients) {
        console.log(`client: ${event.name} ${event.payload}`);
        if (event.name === 'client_register') {
            clients.send(me, 'hello');
        } else if (event.name === 'client_data') {
            clients.disconnect(me);
        } else if (event.name === 'client_finished') {
            return;
        }
    }
}

const tellLog = (event) => console.log(`log: ${event.text} ${event.payload}`);

async function keepLog() {
    for await (const event of log) {
        tellLog(event);
    }
}

const logged = keepLog();
// The loop is free meanwhile: something else could run all the time.
await Promise.all([serve(), live()]);
try {
    server.send('nobody', '?');
} catch (error) {
    if (!(error instanceof HeartbusError)) {
        throw error;
    }
    console.log(`refused: ${error.status}, ${error.message}`);
}
await clients.close();
await server.close();
log.poll().forEach(tellLog); // What the server had to say in the end: closing a log drops what waits.
await log.close();
await logged;
