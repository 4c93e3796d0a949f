/** How long to wait before the next try: exponential, with full jitter, so that many clients do not come back at once. */
/** However soon the next try may be. */
export const MIN_DELAY = 100;
/** In milliseconds. `attempt` counts from 0, `random` is in [0, 1). */
export function delayBefore(attempt, base, max, random) {
    const most = Math.min(max, base * 2 ** Math.min(attempt, 32));
    return Math.max(MIN_DELAY, Math.floor(random * most));
}
