/**
 * How fast a server is asked for what there may be many of.
 *
 * Owns how many requests may be without an answer. A server skips what is beyond its rate limit and says only that it did: then nothing is asked
 * for a while, and fewer at a time from then on. Knows neither time nor what is asked.
 */

/** Requests that may be without an answer. */
const MAX_WINDOW = 256;

export class Pace {
    private window = MAX_WINDOW;
    private isPaused = false;

    mayAsk(unanswered: number): boolean {
        return !this.isPaused && unanswered < this.window;
    }

    answered(): void {
        this.window = Math.min(MAX_WINDOW, this.window + 1);
    }

    /** The server has skipped something. False in a pause, in which it says so of each that was sent before. */
    rateLimited(): boolean {
        if (this.isPaused) {
            return false;
        }
        this.isPaused = true;
        this.window = Math.max(1, Math.floor(this.window / 2));
        return true;
    }

    /** The pause is over. */
    goOn(): void {
        this.isPaused = false;
    }
}
