// The peer for WebSockets: the library `ws`, and no more JavaScript than a measurement needs. What comes in goes to all others.
const [, , port, library] = process.argv;
const { WebSocketServer } = require(require('node:path').resolve(library));
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), backlog: 4096, perMessageDeflate: false });
server.on('connection', (socket) => {
    socket.on('error', () => {});
    socket.on('message', (data) => {
        for (const client of server.clients) {
            if (client !== socket) {
                client.send(data);
            }
        }
    });
});
