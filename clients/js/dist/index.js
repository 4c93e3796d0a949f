export { START } from './api.js';
export { HeartbusClient } from './client.js';
export { HeartbusError } from './errors.js';
export { Message } from './feeds.js';
export { matches } from './topics.js';
