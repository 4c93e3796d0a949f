/** What waits for an answer of the server, each with the number that the answer will carry. */
import type { HeartbusError } from './errors.js';
export interface Waiter<T> {
    resolve(value: T): void;
    reject(error: HeartbusError): void;
}
export declare class Unanswered<T> {
    private readonly waiting;
    get size(): number;
    /** `cancel`: ends what would reject it in time. */
    add(id: number, waiter: Waiter<T>, cancel: () => void): void;
    /** Who waits for this number, and no longer does. */
    take(id: number): Waiter<T> | undefined;
    /** None of them is answered any more. */
    rejectAll(error: () => HeartbusError): void;
}
