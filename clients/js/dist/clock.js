/** Time and chance, as the client sees them. Tests hand in their own. */
export const systemClock = {
    after(milliseconds, callback) {
        const host = globalThis;
        const timer = host.setTimeout(callback, milliseconds);
        return () => host.clearTimeout(timer);
    },
    random: Math.random,
    onWake(callback) {
        const host = globalThis;
        const ifSeen = () => host.document?.visibilityState === 'visible' && callback();
        host.addEventListener?.('online', callback);
        host.document?.addEventListener?.('visibilitychange', ifSeen);
        return () => {
            host.removeEventListener?.('online', callback);
            host.document?.removeEventListener?.('visibilitychange', ifSeen);
        };
    },
};
