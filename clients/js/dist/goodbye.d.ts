/** How a connection is let go of. */
import type { Clock } from './clock.js';
import type { SocketLike } from './options.js';
/** Says that we leave, and waits until the other side has heard it. */
export declare function goodbye(socket: SocketLike, isRegistered: boolean, clock: Clock): Promise<void>;
/** Closes it; what it still has to say is nobody's. It keeps a listener for errors, which `ws` throws where there is none. */
export declare function detach(socket: SocketLike, closed?: () => void): void;
