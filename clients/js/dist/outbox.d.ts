/**
 * What waits to be sent, in order. Bounded in number and in bytes: beyond, a message is refused, or the oldest ones go.
 * Knows neither sockets nor what the messages mean.
 */
import { HeartbusError } from './errors.js';
export type OutboxPolicy = 'reject' | 'drop_oldest';
export interface OutboxLimits {
    messages: number;
    bytes: number;
    policy: OutboxPolicy;
}
export interface Outgoing {
    text: string;
    bytes: number;
    /** The server will answer it. */
    isRequest: boolean;
    /** It is handed to the socket. */
    sent?: () => void;
    /** It never will be. */
    dropped?: (why: HeartbusError) => void;
}
export declare class Outbox {
    private readonly limits;
    private waiting;
    private bytesWaiting;
    constructor(limits: OutboxLimits);
    get length(): number;
    get first(): Outgoing | undefined;
    get bytes(): number;
    /** How many were dropped for it; `null`: it was refused, and all is as it was. */
    push(message: Outgoing): number | null;
    shift(): Outgoing | undefined;
    /** Takes all out. */
    clear(): Outgoing[];
    private fits;
}
