/** What waits for an answer of the server, each with the number that the answer will carry. */

import type { HeartbusError } from './errors.js';

export interface Waiter<T> {
    resolve(value: T): void;
    reject(error: HeartbusError): void;
}

export class Unanswered<T> {
    private readonly waiting = new Map<number, Waiter<T> & { cancel: () => void }>();

    get size(): number {
        return this.waiting.size;
    }

    /** `cancel`: ends what would reject it in time. */
    add(id: number, waiter: Waiter<T>, cancel: () => void): void {
        this.waiting.set(id, { ...waiter, cancel });
    }

    /** Who waits for this number, and no longer does. */
    take(id: number): Waiter<T> | undefined {
        const found = this.waiting.get(id);
        this.waiting.delete(id);
        found?.cancel();
        return found;
    }

    /** None of them is answered any more. */
    rejectAll(error: () => HeartbusError): void {
        for (const id of [...this.waiting.keys()]) {
            this.take(id)?.reject(error());
        }
    }
}
