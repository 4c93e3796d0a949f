<?php

/**
 * A chat in the browser. Pages publish to topics and follow them; the engine keeps the last messages of each room, so whoever comes, or comes
 * back, reads what was said meanwhile. PHP only tells who is there.
 *
 * Whoever is connected may publish, under any name. Where names have to be true pages say what they have to say with `send()`, and the server
 * publishes it with the name that it knows.
 */

use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/../options.php';
require __DIR__ . '/../page.php';

const USAGE = <<<'TEXT'
Usage: php server.php [options]

Serves a chat and its page until Ctrl-C. Open the page in two windows.

  --host H    address that the bus listens on (127.0.0.1)
  --port P    its port, for the page's WebSocket (9501)
  --web A     address of the page, HOST:PORT (127.0.0.1:8080)
  --keep N    messages that are kept of each room (200)
  --quiet     print nothing but errors
  --help      this text

TEXT;

/** Names on the list; of more people only the number is told. */
const MAX_NAMES = 200;

[$options, $words] = read_options(USAGE, ['host' => '127.0.0.1', 'port' => 9501, 'web' => '127.0.0.1:8080', 'keep' => 200, 'quiet' => false]);
$words === [] || refuse_usage("unknown argument '$words[0]'", USAGE);
require_extension();

try {
    $server = new HeartbeatServer($options['host'], $options['port'], [
        'loop' => 'native',
        'log_level' => $options['quiet'] ? 'error' : 'warning',
        'websocket' => true,
        'bus' => false, // nobody else asks this server
        'max_frame_bytes' => 16 * 1024,
        'heartbeat_timeout' => 90, // browsers slow the timers of pages in the background down to one a minute
        'history' => [
            'chat/#' => ['count' => $options['keep'], 'bytes' => 1 << 20, 'ttl' => 7 * 86400],
            'people' => ['count' => 1], // whoever comes gets the last one
        ],
    ]);
    $people = [];
    $hasChanged = true;
    $call = function (Node $node, mixed $name) use (&$people, &$hasChanged): void {
        $people[$node->id] = is_string($name) && preg_match('/^.{1,40}/su', $name, $found) ? $found[0] : '?';
        $hasChanged = true;
    };
    $server->on('register', fn (Node $node) => $call($node, $node->metadata['name'] ?? null));
    // The only thing that pages tell the server itself is a new name.
    $server->on('data', fn (Node $node, string $name) => $call($node, $name));
    foreach (['unregister', 'disconnected', 'timeout'] as $event) {
        $server->on($event, function (Node $node) use (&$people, &$hasChanged): void {
            unset($people[$node->id]);
            $hasChanged = true;
        });
    }
    // Many who come at once are one message.
    $server->every(0.3, function () use ($server, &$people, &$hasChanged): void {
        if ($hasChanged) {
            $names = array_values($people);
            sort($names);
            $server->publish('people', json_encode(['count' => count($names), 'names' => array_slice($names, 0, MAX_NAMES)]));
            $hasChanged = false;
        }
    });
    serve_page(__DIR__ . '/page', $options['web'], ['port' => $options['port']]);
    $options['quiet'] || $server->on('start', fn () => print("The chat is at http://{$options['web']} - Ctrl-C ends it.\n"));
    $server->start();
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
