/** Who listens to what. */

export class Events<Map extends object> {
    private readonly listeners = new globalThis.Map<keyof Map, Set<(event: never) => void>>();

    /** What it returns ends it. */
    on<Name extends keyof Map>(name: Name, listener: (event: Map[Name]) => void): () => void {
        const listeners = this.listeners.get(name) ?? new Set();
        this.listeners.set(name, listeners);
        // Each call is a listener of its own, also with the same function.
        const own = (event: Map[Name]) => listener(event);
        listeners.add(own);
        return () => void listeners.delete(own);
    }

    /** Calls every listener; one that throws keeps it from no other. Returns what was thrown. */
    emit<Name extends keyof Map>(name: Name, event: Map[Name]): unknown[] {
        const thrown: unknown[] = [];
        for (const listener of [...(this.listeners.get(name) ?? [])]) {
            try {
                (listener as (event: Map[Name]) => void)(event);
            } catch (error) {
                thrown.push(error);
            }
        }
        return thrown;
    }
}
