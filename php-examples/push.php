<?php

/**
 * Pushes a message to a node from outside of the server: from the command line, or as a page of PHP-FPM.
 *
 * As a page it takes `node` and `text`, and answers in JSON. The server must let PHP-FPM's user in: 'bus_group' =>
 * 'www-data'. Where its bus socket is not in the usual place, php.ini or the pool's configuration says so: heartbus.socket.
 */

use Heartbus\Bus;
use Heartbus\Exception\HeartbusException;

if (PHP_SAPI !== 'cli') {
    [$status, $answer] = page($_REQUEST);
    http_response_code($status);
    header('Content-Type: application/json');
    echo json_encode($answer, JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    return;
}

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php push.php NODE TEXT [options]
       php push.php --list [options]

Pushes a message to one node, or to all with NODE *, through the server that runs on this machine.

  --list        show who is online instead
  --socket S    name of the server, or path of its bus socket (HeartbeatServer)
  --help        this text

TEXT;

[$options, $words] = read_options(USAGE, ['list' => false, 'socket' => '']);
require_extension();
count($words) === ($options['list'] ? 0 : 2) || refuse_usage('one node and one text are needed', USAGE);
exit(command($options, ...$words));

/** @return array{0: int, 1: array<string, mixed>} the status and what to answer */
function page(array $parameters): array
{
    ['node' => $node, 'text' => $text] = $parameters + ['node' => null, 'text' => null];
    if (!is_string($node) || !is_string($text)) {
        return [400, ['error' => 'node and text are needed']];
    }
    try {
        // The connection is made once for each PHP-FPM process and kept for the pages to come.
        return Bus::connect()->sendTo($node, $text) ? [200, ['sent' => true]] : [404, ['error' => "$node is not online"]];
    } catch (HeartbusException $error) {
        return [503, ['error' => $error->getMessage()]];
    }
}

/** Returns the exit code. */
function command(array $options, string $node = '', string $text = ''): int
{
    try {
        $bus = Bus::connect($options['socket'] === '' ? null : $options['socket'], 10.0); // a person waits longer than a page
        if ($options['list']) {
            everybody($bus);
            return 0;
        }
        if ($node === '*') {
            echo $bus->broadcast($text), " nodes\n";
            return 0;
        }
        if ($bus->sendTo($node, $text)) {
            return 0;
        }
        fwrite(STDERR, "$node is not online\n");
    } catch (HeartbusException $error) {
        fwrite(STDERR, $error->getMessage() . "\n");
    }
    return 1;
}

/** However many they are: page by page. */
function everybody(Bus $bus): void
{
    $page = null;
    do {
        ['nodes' => $nodes, 'next' => $page] = $bus->nodes(page: $page);
        foreach ($nodes as $node) {
            echo printable($node->id), "\t$node->ip\t$node->heartbeatCount heartbeats\n";
        }
    } while ($page !== null);
}
