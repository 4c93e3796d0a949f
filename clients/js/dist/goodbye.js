/** How a connection is let go of. */
/** How long a goodbye may take. */
const CLOSE_TIMEOUT = 1_000;
/** Says that we leave, and waits until the other side has heard it. */
export function goodbye(socket, isRegistered, clock) {
    if (isRegistered) {
        socket.send('{"type":"unregister"}');
    }
    return new Promise((resolve) => {
        const cancel = clock.after(CLOSE_TIMEOUT, () => {
            socket.terminate?.();
            resolve();
        });
        detach(socket, () => {
            cancel();
            resolve();
        });
    });
}
/** Closes it; what it still has to say is nobody's. It keeps a listener for errors, which `ws` throws where there is none. */
export function detach(socket, closed = () => undefined) {
    const ignore = () => undefined;
    [socket.onopen, socket.onmessage, socket.onerror, socket.onclose] = [ignore, ignore, ignore, closed];
    try {
        socket.close(1000);
    }
    catch {
        closed();
    }
}
