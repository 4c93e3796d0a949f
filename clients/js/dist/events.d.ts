/** Who listens to what. */
export declare class Events<Map extends object> {
    private readonly listeners;
    /** What it returns ends it. */
    on<Name extends keyof Map>(name: Name, listener: (event: Map[Name]) => void): () => void;
    /** Calls every listener; one that throws keeps it from no other. Returns what was thrown. */
    emit<Name extends keyof Map>(name: Name, event: Map[Name]): unknown[];
}
