/** What is due later, by name: one timer of each. */

import type { Clock } from './clock.js';

export class Timers {
    private readonly waiting = new Map<string, () => void>();

    constructor(private readonly clock: Clock) {}

    /** The timer of this name, anew. */
    set(name: string, milliseconds: number, callback: () => void): void {
        this.cancel(name);
        const cancel = this.clock.after(milliseconds, () => {
            this.waiting.delete(name);
            callback();
        });
        this.waiting.set(name, cancel);
    }

    /** Something that is no matter of time, and ends as a timer does. */
    hold(name: string, cancel: () => void): void {
        this.cancel(name);
        this.waiting.set(name, cancel);
    }

    cancel(name: string): void {
        this.waiting.get(name)?.();
        this.waiting.delete(name);
    }

    cancelAll(): void {
        [...this.waiting.keys()].forEach((name) => this.cancel(name));
    }
}
