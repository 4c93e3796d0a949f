/** Who listens to what. */
export class Events {
    listeners = new globalThis.Map();
    /** What it returns ends it. */
    on(name, listener) {
        const listeners = this.listeners.get(name) ?? new Set();
        this.listeners.set(name, listeners);
        // Each call is a listener of its own, also with the same function.
        const own = (event) => listener(event);
        listeners.add(own);
        return () => void listeners.delete(own);
    }
    /** Calls every listener; one that throws keeps it from no other. Returns what was thrown. */
    emit(name, event) {
        const thrown = [];
        for (const listener of [...(this.listeners.get(name) ?? [])]) {
            try {
                listener(event);
            }
            catch (error) {
                thrown.push(error);
            }
        }
        return thrown;
    }
}
