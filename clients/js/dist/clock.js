/** Time and chance, as the client sees them. Tests hand in their own. */
export const systemClock = {
    after(milliseconds, callback) {
        const host = globalThis;
        const timer = host.setTimeout(callback, milliseconds);
        return () => host.clearTimeout(timer);
    },
    random: Math.random,
};
