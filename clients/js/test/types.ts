// As applications in TypeScript use it: compiled, and never run.

import { HeartbusClient, HeartbusError, START } from '../dist/index.js';
import type { Gap, Position, Subscription } from '../dist/index.js';

const client = new HeartbusClient(new URL('wss://h/ws'), { WebSocket, nodeId: 'a', metadata: { floor: 2 }, outboxPolicy: 'drop_oldest' });
// @ts-expect-error a policy that there is not
new HeartbusClient('wss://h', { outboxPolicy: 'maybe' });
// @ts-expect-error an event that there is not
client.on('nothing', () => {});

client.on('data', ({ data }) => data.trim());
client.on('close', ({ retryIn }) => (retryIn === null ? 0 : retryIn.toFixed()));
client.on('error', (error: HeartbusError) => {
    const status: number | undefined = error.status;
    return error.code === 'refused' ? status : error.message;
});
const gaps: Gap[] = [];
const subscription: Subscription = client.subscribe('a', (message) => message.json<{ n: number }>().n, { since: START, onGap: (gap) => gaps.push(gap) });
const position: Position | null = subscription.position;
export const reach: Promise<number> = client.publish('a', { position }).then((publication) => publication.reach);
