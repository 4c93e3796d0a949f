<?php

/**
 * A live map of devices. Each device is a node that sends where it is; PHP publishes that to the topic `map`, under the id that the bus knows, and
 * publishes who has gone and how. Pages follow the topic: they begin with what is kept of it, and after a cut go on from where they were.
 *
 * The devices are simulated by devices.php, which this starts as well.
 */

use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/../options.php';
require __DIR__ . '/../page.php';
require __DIR__ . '/../processes.php';

const USAGE = <<<'TEXT'
Usage: php server.php [options]

Serves a map of moving devices and its page until Ctrl-C.

  --host H       address that the bus listens on (127.0.0.1)
  --port P       its port, for devices and for the page's WebSocket (9501)
  --web A        address of the page, HOST:PORT (127.0.0.1:8080)
  --devices N    devices to simulate; 0: none, start devices.php by yourself (24)
  --quiet        print nothing but errors
  --help         this text

TEXT;

/** The map is a square of so many units, north is 0. */
const SIZE = 1000;

[$options, $words] = read_options(USAGE, ['host' => '127.0.0.1', 'port' => 9501, 'web' => '127.0.0.1:8080', 'devices' => 24, 'quiet' => false]);
$words === [] || refuse_usage("unknown argument '$words[0]'", USAGE);
require_extension();

try {
    $server = new HeartbeatServer($options['host'], $options['port'], [
        'loop' => 'native',
        'log_level' => $options['quiet'] ? 'error' : 'warning',
        'websocket' => true,
        'bus' => false, // nobody else asks this server
        'max_frame_bytes' => 16 * 1024,
        'heartbeat_timeout' => 5,
        // What a page shows when it is opened: the last ten seconds or so.
        'history' => ['map' => ['count' => 1000, 'ttl' => 15]],
    ]);
    $publish = fn (array $what) => $server->publish('map', json_encode($what));
    $server->on('data', function (Node $node, string $payload) use ($publish): void {
        // A device says where it is, and nothing else.
        $said = json_decode($payload, true);
        [$x, $y] = is_array($said) && array_is_list($said) && count($said) === 2 ? $said : [null, null];
        if (is_numeric($x) && is_numeric($y) && $x >= 0 && $x <= SIZE && $y >= 0 && $y <= SIZE) {
            $publish(['id' => $node->id, 'kind' => (string) ($node->metadata['kind'] ?? ''), 'at' => [round($x, 1), round($y, 1)]]);
        }
    });
    foreach (['unregister' => 'left', 'disconnected' => 'connection lost', 'timeout' => 'fell silent'] as $event => $how) {
        $server->on($event, function (Node $node) use ($publish, $how): void {
            // Pages are nodes as well.
            if (isset($node->metadata['kind'])) {
                $publish(['id' => $node->id, 'gone' => $how]);
            }
        });
    }
    serve_page(__DIR__ . '/page', $options['web'], ['port' => $options['port'], 'size' => SIZE]);
    $server->on('start', function () use ($options): void {
        $options['quiet'] || print("The map is at http://{$options['web']} - Ctrl-C ends it.\n");
        $options['devices'] > 0 && start_devices($options);
    });
    $server->start();
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}

/** In a process beside this one, with the same extension; it ends with us. */
function start_devices(array $options): void
{
    $devices = proc_open([...php_command(), __DIR__ . '/devices.php', (string) $options['devices'], '--host', $options['host'],
        '--port', (string) $options['port'], '--attached'], [['pipe', 'r']], $pipes);
    register_shutdown_function(static function () use ($devices, $pipes): void {
        fclose($pipes[0]);
        proc_close($devices);
    });
}
