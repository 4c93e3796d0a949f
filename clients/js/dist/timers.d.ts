/** What is due later, by name: one timer of each. */
import type { Clock } from './clock.js';
export declare class Timers {
    private readonly clock;
    private readonly waiting;
    constructor(clock: Clock);
    /** The timer of this name, anew. */
    set(name: string, milliseconds: number, callback: () => void): void;
    /** Something that is no matter of time, and ends as a timer does. */
    hold(name: string, cancel: () => void): void;
    cancel(name: string): void;
    cancelAll(): void;
}
