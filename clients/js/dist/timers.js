/** What is due later, by name: one timer of each. */
export class Timers {
    clock;
    waiting = new Map();
    constructor(clock) {
        this.clock = clock;
    }
    /** The timer of this name, anew. */
    set(name, milliseconds, callback) {
        this.cancel(name);
        const cancel = this.clock.after(milliseconds, () => {
            this.waiting.delete(name);
            callback();
        });
        this.waiting.set(name, cancel);
    }
    /** Something that is no matter of time, and ends as a timer does. */
    hold(name, cancel) {
        this.cancel(name);
        this.waiting.set(name, cancel);
    }
    cancel(name) {
        this.waiting.get(name)?.();
        this.waiting.delete(name);
    }
    cancelAll() {
        [...this.waiting.keys()].forEach((name) => this.cancel(name));
    }
}
