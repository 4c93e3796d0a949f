/** Time and chance, as the client sees them. Tests hand in their own. */

export interface Clock {
    /** Calls back once, after so many milliseconds. What it returns takes that back. */
    after(milliseconds: number, callback: () => void): () => void;
    /** In [0, 1). */
    random(): number;
    /** Calls back whenever it is worth a try: the network is there again, the page is looked at again. What it returns ends that. */
    onWake?(callback: () => void): () => void;
}

interface Target {
    addEventListener?(name: string, listener: () => void): void;
    removeEventListener?(name: string, listener: () => void): void;
}

interface Host extends Target {
    document?: Target & { visibilityState: string };
    setTimeout(callback: () => void, milliseconds: number): unknown;
    clearTimeout(timer: unknown): void;
}

export const systemClock: Clock = {
    after(milliseconds, callback) {
        const host = globalThis as unknown as Host;
        const timer = host.setTimeout(callback, milliseconds);
        return () => host.clearTimeout(timer);
    },
    random: Math.random,
    onWake(callback) {
        const host = globalThis as unknown as Host;
        const ifSeen = () => host.document?.visibilityState === 'visible' && callback();
        host.addEventListener?.('online', callback);
        host.document?.addEventListener?.('visibilitychange', ifSeen);
        return () => {
            host.removeEventListener?.('online', callback);
            host.document?.removeEventListener?.('visibilitychange', ifSeen);
        };
    },
};
