/**
 * How fast a server is asked for what there may be many of.
 *
 * Owns how many requests may be without an answer. A server skips what is beyond its rate limit and says only that it did: then nothing is asked
 * for a while, and fewer at a time from then on. Knows neither time nor what is asked.
 */
export declare class Pace {
    private window;
    private isPaused;
    mayAsk(unanswered: number): boolean;
    answered(): void;
    /** The server has skipped something. False in a pause, in which it says so of each that was sent before. */
    rateLimited(): boolean;
    /** The pause is over. */
    goOn(): void;
}
