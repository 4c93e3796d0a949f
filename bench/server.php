<?php

/**
 * The server that is measured: HeartbeatServer on its own loop, with no more PHP than a measurement needs.
 *
 *   idle        nothing is subscribed
 *   echo        every message goes back to its node
 *   count       messages are counted, and `?` is answered with their number
 *   batch       the same, with messages delivered many at a time
 *   broadcast   every message goes to all nodes
 *   timeouts    nodes that are found silent are counted; after --expect of them a line of JSON says what was seen
 */

use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

$options = getopt('', ['port:', 'mode:', 'threads:', 'timeout:', 'expect:', 'bus:', 'websocket', 'history:']);
$server = new HeartbeatServer('127.0.0.1', (int) $options['port'], [
    'worker_count' => (int) $options['threads'],
    'heartbeat_timeout' => (float) $options['timeout'],
    'loop' => 'native',
    'log_level' => 'error',
    'bus' => $options['bus'] ?? false,
    'websocket' => isset($options['websocket']),
    'history' => isset($options['history']) ? ['#' => ['count' => (int) $options['history']]] : [],
]);

switch ($options['mode']) {
    case 'idle':
        break;
    case 'echo':
        $server->on('data', function (Node $node, string $payload, int $channelId) use ($server): void {
            $server->sendTo($node->id, $payload, $channelId);
        });
        break;
    case 'count':
        $count = 0;
        $server->on('data', function (Node $node, string $payload) use ($server, &$count): void {
            $count++;
            if ($payload === '?') {
                $server->sendTo($node->id, (string) $count);
            }
        });
        break;
    case 'batch':
        $count = 0;
        $server->on('data.batch', function (array $nodes, array $payloads) use ($server, &$count): void {
            $count += count($payloads);
            foreach ($payloads as $i => $payload) {
                if ($payload === '?') {
                    $server->sendTo($nodes[$i]->id, (string) $count);
                }
            }
        });
        break;
    case 'broadcast':
        $server->on('data', function (Node $node, string $payload) use ($server): void {
            $server->broadcast($payload);
        });
        break;
    case 'timeouts':
        report_timeouts($server, (int) $options['expect']);
        break;
    default:
        fwrite(STDERR, "unknown mode\n");
        exit(2);
}
$server->start();

function report_timeouts(HeartbeatServer $server, int $expected): void
{
    $seen = [];
    $count = $first = $last = $slowest = $timer = 0;
    $look = function () use ($server, $expected, &$seen, &$count, &$first, &$last, &$slowest, &$timer): void {
        $before = hrtime(true);
        $server->getStats();
        $slowest = max($slowest, hrtime(true) - $before);
        // A second later, so that one that is told twice, or too many, would be seen; and some time later at all events.
        $now = hrtime(true);
        if ($count >= $expected && $now - $last > 1_000_000_000 || $now - $first > 10_000_000_000) {
            echo json_encode(['count' => $count, 'different' => count($seen), 'first' => $first, 'last' => $last, 'stats_ns' => $slowest]), "\n";
            $server->cancel($timer);
        }
    };
    $server->on('timeout', function (Node $node) use ($server, $look, &$seen, &$count, &$first, &$last, &$timer): void {
        $last = hrtime(true);
        if ($count++ === 0) {
            $first = $last;
            // Not before: while the heartbeats are measured, PHP sleeps.
            $timer = $server->every(0.01, $look);
        }
        $seen[$node->id] = true;
    });
}
