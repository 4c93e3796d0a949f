<?php

/**
 * The server that is attacked (`heartbus-bench attack`): HeartbeatServer on its own loop, as people run it.
 *
 *   idle        nothing is subscribed
 *   heartbeat   every heartbeat is told to PHP
 *   busy        registrations and messages are told to PHP, which is busy with something else for half a second at a time
 */

use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

$options = getopt('', ['port:', 'mode:', 'settings:']);
$server = new HeartbeatServer('127.0.0.1', (int) $options['port'], json_decode($options['settings'], true, flags: JSON_THROW_ON_ERROR) + [
    'worker_count' => 1,
    'loop' => 'native',
    'log_level' => 'off',
]);
switch ($options['mode']) {
    case 'idle':
        break;
    case 'heartbeat':
        $server->on('heartbeat', function (): void {
        });
        break;
    case 'busy':
        $server->on('register', function (): void {
        });
        $server->on('data', function (): void {
        });
        $server->every(0.001, fn () => usleep(500_000));
        break;
    default:
        throw new ValueError("no such mode: $options[mode]");
}
$server->start();
