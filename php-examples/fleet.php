<?php

/**
 * Many real clients in one PHP process: they register, heartbeat, send a message with every answered heartbeat, and say
 * goodbye. Prints what happened, and ends with 1 if something was wrong.
 */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;

require __DIR__ . '/options.php';
require __DIR__ . '/processes.php';

const USAGE = <<<'TEXT'
Usage: php fleet.php [N] [options]

Connects N clients (1000) to a server.

  --host H       server (127.0.0.1)
  --port P       its port (9501)
  --seconds S    how long they stay (10)
  --interval S   seconds between heartbeats (2)
  --echo         the server echoes: every message must come back
  --help         this text

TEXT;

/** How long we wait for what is still on its way. */
const GRACE = 5.0;

[$options, $words] = read_options(USAGE, [
    'host' => '127.0.0.1', 'port' => 9501, 'seconds' => 10.0, 'interval' => 2.0, 'echo' => false,
]);
$size = filter_var($words[0] ?? '1000', FILTER_VALIDATE_INT, ['options' => ['min_range' => 1]]);
count($words) <= 1 && $size !== false || refuse_usage("N is one whole number, 1 or more", USAGE);
require_extension();
raise_file_limit();

$count = ['registered' => 0, 'heartbeats' => 0, 'sent' => 0, 'received' => 0, 'refused' => 0, 'strange' => 0, 'errors' => 0, 'closed' => 0];
$leaving = false;
$clients = [];
for ($number = 1; $number <= $size; $number++) {
    $client = $clients[] = new HeartbeatClient($options['host'], $options['port'], [
        'heartbeat_interval' => $options['interval'],
        'node_id' => sprintf('fleet-%d-%d', getmypid(), $number),
        'metadata' => ['number' => $number],
    ]);
    $message = "message of client $number";
    $say = function () use ($client, $message, &$count, &$leaving): void {
        if (!$leaving) {
            $count[$client->send($message) ? 'sent' : 'refused']++;
        }
    };
    $client->on('register', function () use (&$count, $say): void {
        $count['registered']++;
        $say();
    });
    $client->on('heartbeat', function () use (&$count, $say): void {
        $count['heartbeats']++;
        $say();
    });
    $client->on('data', function (string $payload) use (&$count, $message): void {
        $count[$payload === $message ? 'received' : 'strange']++;
    });
    $client->on('server_error', function (?array $error) use (&$count): void {
        $count['errors']++;
        complain('the server says: ' . ($error['message'] ?? 'nothing readable'));
    });
    $client->on('error', function (int $code, string $message) use (&$count): void {
        $count['errors']++;
        complain($message);
    });
    $client->on('close', function () use (&$count, &$leaving): void {
        $count['closed'] += $leaving ? 0 : 1;
    });
    $client->connect();
}

$line = new StatusLine();
$started = microtime(true);
$shownAt = $started;
$show = function () use ($line, $started, &$count): void { // by reference: an arrow function would keep today's zeros
    $line->show(sprintf('%4.1f s | %s registered | %s heartbeats answered | %s messages sent | %s received',
        microtime(true) - $started, ...array_map('number_format', [$count['registered'], $count['heartbeats'], $count['sent'], $count['received']])));
};
$pollUntil = function (float $deadline, callable $done) use (&$shownAt, $show): void {
    while (!$done() && ($left = $deadline - microtime(true)) > 0) {
        HeartbeatClient::poll(min($left, 0.1));
        if (microtime(true) - $shownAt >= 1) {
            $shownAt = microtime(true);
            $show();
        }
    }
};

$pollUntil($started + $options['seconds'], fn (): bool => false);
$leaving = true;
$pollUntil(microtime(true) + GRACE, function () use (&$count, $size, $options): bool {
    return $count['registered'] >= $size && (!$options['echo'] || $count['received'] >= $count['sent']);
});
$show();
$line->end();
foreach ($clients as $client) {
    $client->disconnect();
}
HeartbeatClient::run(); // until the last goodbye is on its way

$wrong = array_filter([
    'clients never registered' => max(0, $size - $count['registered']),
    'messages were not taken by send()' => $count['refused'],
    'messages never came back' => $options['echo'] ? max(0, $count['sent'] - $count['received']) : 0,
    'messages were not what was sent' => $count['strange'],
    'errors' => $count['errors'],
    'connections were lost' => $count['closed'],
    'heartbeats at all' => $count['heartbeats'] > 0 || $options['seconds'] <= $options['interval'] ? 0 : -1,
]);
echo sprintf("%s clients: %s registered, %s heartbeats answered, %s messages sent, %s received, %.1f MB.\n", ...array_map('number_format',
    [$size, $count['registered'], $count['heartbeats'], $count['sent'], $count['received']]), ...[resident_megabytes()]);
foreach ($wrong as $what => $howMany) {
    echo 'WRONG: ' . ($howMany < 0 ? 'no' : number_format($howMany)) . " $what\n";
}
echo $wrong === [] ? "Everything went well.\n" : '';
exit($wrong === [] ? 0 : 1);
