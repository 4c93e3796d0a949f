/** Time and chance, as the client sees them. Tests hand in their own. */

export interface Clock {
    /** Calls back once, after so many milliseconds. What it returns takes that back. */
    after(milliseconds: number, callback: () => void): () => void;
    /** In [0, 1). */
    random(): number;
}

interface Host {
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
};
