/**
 * A node of the bus: one connection, which is made again whenever it is lost.
 *
 * Owns the states of the connection and what waits for an answer. How far subscriptions have come is `feeds.ts`'s, what waits to be
 * sent `outbox.ts`'s.
 */
import type { ClientEvents, Publication, State, Statistics, SubscribeOptions, Subscription } from './api.js';
import { Message } from './feeds.js';
import type { Registered } from './messages.js';
import type { Options } from './options.js';
export declare class HeartbusClient {
    private readonly settings;
    private readonly clock;
    private readonly events;
    private readonly feeds;
    private readonly outbox;
    private currentState;
    private socket;
    private registered;
    private attempt;
    /** Whatever `ws` says of a connection that failed. */
    private failure;
    /** REGISTERs without an answer. */
    private registering;
    /** All who wait for it wait for the same. */
    private registration;
    private pace;
    /** What the server is to be asked about, in order. */
    private asking;
    private readonly publications;
    private lastId;
    private isHeard;
    private readonly timers;
    private counts;
    constructor(url: string | {
        href: string;
    }, options?: Options);
    get state(): State;
    /** Its own, or that which the server has made up. */
    get nodeId(): string | null;
    /** Listens to an event. What it returns ends that. */
    on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): () => void;
    /** Connects and registers. Resolved at the first registration; rejected when the client gives up or is closed before. */
    connect(): Promise<Registered>;
    /** Says who this node is, now and after every reconnect, and connects if need be. A node that is online may change its metadata alone. */
    register(nodeId: string | null, metadata?: Record<string, unknown>): Promise<Registered>;
    private begin;
    /** Sends a text, anything that JSON can say, or bytes to the server's application. False: there is no room, or the client is closed. */
    send(data: unknown): boolean;
    /** Publishes a text, or anything that JSON can say. Rejected where it was not, and with `connection_lost` or `timeout` where that is not known. */
    publish(topic: string, data: unknown): Promise<Publication>;
    /** Follows a topic, or all topics that a filter with `+` or `#` matches: before or after `connect()`, and over every reconnect. */
    subscribe(filter: string, handler: (message: Message) => void, options?: SubscribeOptions): Subscription;
    /** Leaves. What waits to be sent or answered is rejected with `closed`; subscriptions are there again after another `connect()`. */
    close(): Promise<void>;
    /** What it has done and keeps. */
    statistics(): Statistics;
    private open;
    private opened;
    private received;
    private isRegistered;
    private isSubscribed;
    private refused;
    /** The connection has closed. */
    private closed;
    /** The connection is over, by the peer's will or ours: there will be another one, unless it is for good. */
    private lost;
    /** Nothing of the connection is ours any more. What was sent and not answered has failed. */
    private letGo;
    /** There is no next try. */
    private end;
    private unsubscribe;
    /** Subscribes to a filter, or no longer: whatever is wanted when its turn comes. */
    private ask;
    private askMore;
    /** The server has said something about a filter. */
    private isAnswered;
    /** The server has skipped what was too much for it: whatever has no answer after a while is asked again. */
    private pause;
    private sayRegister;
    private say;
    private beat;
    /** False: there is no room for it. */
    private put;
    /** Hands to the socket what it takes. */
    private pump;
    private unanswered;
    private untilRegistered;
    private takeRegistration;
    private change;
    private emit;
    private guard;
    /** What a handler throws keeps no other from its messages. */
    private handlerThrew;
}
