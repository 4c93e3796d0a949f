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

export class Outbox {
    private waiting: Outgoing[] = [];
    private bytesWaiting = 0;

    constructor(private readonly limits: OutboxLimits) {}

    get length(): number {
        return this.waiting.length;
    }

    get first(): Outgoing | undefined {
        return this.waiting[0];
    }

    get bytes(): number {
        return this.bytesWaiting;
    }

    /** How many were dropped for it; `null`: it was refused, and all is as it was. */
    push(message: Outgoing): number | null {
        if (message.bytes > this.limits.bytes || this.limits.messages < 1) {
            return null;
        }
        const dropped: Outgoing[] = [];
        if (!this.fits(message)) {
            if (this.limits.policy === 'reject') {
                return null;
            }
            while (!this.fits(message)) {
                const oldest = this.shift();
                if (oldest === undefined) {
                    break;
                }
                dropped.push(oldest);
            }
        }
        this.waiting.push(message);
        this.bytesWaiting += message.bytes;
        const why = new HeartbusError('outbox_full', 'it was the oldest that waited when room had to be made');
        dropped.forEach((oldest) => oldest.dropped?.(why));
        return dropped.length;
    }

    shift(): Outgoing | undefined {
        const message = this.waiting.shift();
        this.bytesWaiting -= message?.bytes ?? 0;
        return message;
    }

    /** Takes all out. */
    clear(): Outgoing[] {
        const all = this.waiting;
        this.waiting = [];
        this.bytesWaiting = 0;
        return all;
    }

    private fits(message: Outgoing): boolean {
        return this.waiting.length < this.limits.messages && this.bytesWaiting + message.bytes <= this.limits.bytes;
    }
}
