/** Names of topics, and filters that match them: the server's rules, so that what it would refuse is refused before it is sent. */
/** In bytes of UTF-8. */
export declare const MAX_TOPIC_BYTES = 255;
/** Half of a pair of code units stands alone: no UTF-8 can be made of that. */
export declare function isWellFormed(text: string): boolean;
/** How many bytes a well-formed text is in UTF-8. */
export declare function utf8Length(text: string): number;
/** Whether a filter has a level that is `+` or `#`. */
export declare function isWild(filter: string): boolean;
/** Throws where nothing can be subscribed to by this text. */
export declare function checkFilter(filter: string): void;
/** Throws where nothing can be published under this text. */
export declare function checkTopic(topic: string): void;
/** Whether a filter, with wildcards or without, matches a topic. */
export declare function matches(filter: string, topic: string): boolean;
