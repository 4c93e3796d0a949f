/** What applications see of a client: its states, what it tells, and what it hands out. */
/** All that is kept of a topic. */
export const START = Object.freeze({ offset: 0, epoch: 0 });
