<?php

/**
 * A heartbeat server with a live status line.
 *
 * It subscribes to nothing: all the work is done by the engine's own threads, PHP only looks at the counters once a
 * second. With --echo it subscribes to `data`, and every message crosses into PHP and back.
 */

use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php server.php [options]
       php server.php start|stop|restart|reload|status|connections [-d] [-g] [options]

Starts a heartbeat server. Without a command it runs on its own loop until Ctrl-C or SIGTERM;
with one of the commands it is a Workerman application (Workerman must be installed).

  --host H      address to listen on (0.0.0.0)
  --port P      port to listen on (9501)
  --workers N   I/O threads, never more than the machine has cores (4)
  --websocket A address at which browsers are nodes as well, HOST:PORT, or `true`: the main port (none)
  --firetower A the same for gateways and publishers of Firetower, as at its manager's TCP port (none)
  --timeout S   seconds of silence after which a node is down, 1 or more (30)
  --echo        send every message back to the node it came from
  --quiet       print nothing but errors
  --help        this text

TEXT;

[$options, $words] = read_options(USAGE, [
    'host' => '0.0.0.0', 'port' => 9501, 'workers' => 4, 'websocket' => '', 'firetower' => '', 'timeout' => 30.0, 'echo' => false, 'quiet' => false,
]);
$underWorkerman = array_intersect($words, ['start', 'stop', 'restart', 'reload', 'status', 'connections']) !== [];
require_extension();

if ($underWorkerman) {
    foreach ([__DIR__ . '/../vendor/autoload.php', __DIR__ . '/../../../autoload.php'] as $autoload) {
        if (is_file($autoload)) {
            require_once $autoload;
        }
    }
    if (!class_exists('Workerman\Worker')) {
        fwrite(STDERR, "Workerman is not installed: composer require workerman/workerman, or run this without a command.\n");
        exit(1);
    }
} elseif ($words !== []) {
    refuse_usage("unknown argument '$words[0]'", USAGE);
}

try {
    $server = new HeartbeatServer($options['host'], $options['port'], [
        'worker_count' => $options['workers'],
        'heartbeat_timeout' => $options['timeout'],
        'websocket' => $options['websocket'] === '' ? false : $options['websocket'],
        'firetower' => $options['firetower'] === '' ? false : $options['firetower'],
        'loop' => $underWorkerman ? 'workerman' : 'native',
        'log_level' => $options['quiet'] ? 'error' : 'warning',
    ]);
    if ($options['echo']) {
        $server->on('data', fn (Node $node, string $payload, int $channelId) => $server->sendTo($node->id, $payload, $channelId));
    }
    if (!$options['quiet']) {
        report($server, $options);
    }
    $server->start();
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}

/** Prints how to connect when the server starts, what happens once a second, and the totals when it stops. */
function report(HeartbeatServer $server, array $options): void
{
    $line = new StatusLine();
    $before = null;
    $startedAt = microtime(true);

    $server->on('start', function () use ($server, $options, &$before): void {
        echo sprintf("Heartbus %s listens on %s port %d (timeout %g s, %s)\n", phpversion('heartbus'), $options['host'], $options['port'],
            $options['timeout'], $options['echo'] ? 'messages are echoed' : 'messages are counted, not answered');
        echo "  one client:    scripts/php php-examples/client.php --port {$options['port']}\n";
        echo "  1,000 clients: scripts/php php-examples/fleet.php 1000 --port {$options['port']}\n";
        if ($options['websocket'] !== '') {
            $door = $options['websocket'] === 'true' ? "{$options['host']}:{$options['port']}" : $options['websocket'];
            echo "  a browser:     new WebSocket('ws://$door', 'heartbus.json')\n";
        }
        if ($options['firetower'] !== '') {
            $door = $options['firetower'] === 'true' ? "{$options['host']}:{$options['port']}" : $options['firetower'];
            echo "  Firetower:     topicServiceAddr = \"$door\" in a gateway's fireTower.toml\n";
        }
        echo "  stop:          Ctrl-C\n\n";
        $before = counters($server);
    });

    $server->every(1.0, function () use ($server, $line, &$before): void {
        $now = counters($server);
        $perSecond = fn (string $what): float => ($now[$what] - $before[$what]) / max(0.001, $now['at'] - $before['at']);
        $line->show(sprintf('nodes online %s | heartbeats/s %s | messages/s %s | connections %s | memory %.1f MB', number_format($now['online']),
            number_format($perSecond('heartbeats')), number_format($perSecond('messages')), number_format($now['connections']),
            resident_megabytes()));
        $before = $now;
    });

    $server->on('stop', function () use ($server, $line, $startedAt): void {
        $line->end();
        $total = counters($server);
        echo sprintf("Stopped after %.0f s: %s registrations, %s heartbeats, %s messages.\n", microtime(true) - $startedAt,
            number_format($total['registrations']), number_format($total['heartbeats']), number_format($total['messages']));
    });
}

/** The few counters we show, from the many that getStats() has. */
function counters(HeartbeatServer $server): array
{
    $stats = $server->getStats();
    return [
        'at' => microtime(true),
        'online' => $stats['nodes']['online'],
        'connections' => $stats['connections']['active_connections'],
        'registrations' => $stats['nodes']['total_registered'],
        'heartbeats' => $stats['engine']['heartbeats'],
        'messages' => $stats['engine']['data_in'],
    ];
}
