/** Time and chance, as the client sees them. Tests hand in their own. */
export interface Clock {
    /** Calls back once, after so many milliseconds. What it returns takes that back. */
    after(milliseconds: number, callback: () => void): () => void;
    /** In [0, 1). */
    random(): number;
    /** Calls back whenever it is worth a try: the network is there again, the page is looked at again. What it returns ends that. */
    onWake?(callback: () => void): () => void;
}
export declare const systemClock: Clock;
