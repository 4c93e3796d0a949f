<?php

/**
 * As many clients as fit: connects them in waves, keeps their heartbeats going, and says what that costs the server.
 * Ends with 1 if a single client was refused, lost or left without an answer.
 */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;

require __DIR__ . '/options.php';
require __DIR__ . '/processes.php';

const USAGE = <<<'TEXT'
Usage: php stress_test.php [clients] [options]

Connects clients (10000, or as many as may be) to a server that it starts for the occasion.

  --seconds S    how long they stay once all are there (10)
  --interval S   seconds between heartbeats (2)
  --port P       use the server that listens there instead of an own one (0)
  --host H       where that server is (127.0.0.1)
  --help         this text

TEXT;

/** Clients that may be on their way at the same time: a listening socket has room for about that many. */
const WAVE = 500;
/** Seconds without a single new registration after which we stop waiting for more. */
const GRACE = 10.0;
/** Files that server and clients have open beside their connections. */
const SPARE_FILES = 128;
/** Those who may ask a server over its bus socket at the same time. */
const BUS_CALLERS = 4352;

[$options, $words] = read_options(USAGE, ['seconds' => 10.0, 'interval' => 2.0, 'port' => 0, 'host' => '127.0.0.1']);
$wanted = filter_var($words[0] ?? '10000', FILTER_VALIDATE_INT, ['options' => ['min_range' => 1]]);
count($words) <= 1 && $wanted !== false || refuse_usage('clients is one whole number, 1 or more', USAGE);
require_extension();
end_in_order();

$isOurs = $options['port'] === 0;
$files = raise_file_limit() - SPARE_FILES;
// Our server keeps an eighth of them for those who ask it over its bus socket.
$places = $isOurs ? $files - max(1, min(intdiv($files, 8), BUS_CALLERS)) : $files;
$size = min($wanted, $places, $isOurs ? PHP_INT_MAX : outgoing_ports());
if ($size < $wanted) {
    printf("Lowered from %s to %s clients: %s.\n", number_format($wanted), number_format($size), $size === outgoing_ports()
        ? 'there are no more ports for connections to one address'
        : 'a process may have ' . number_format(raise_file_limit()) . ' files open here (ulimit -n)');
}
// To one address of the server we can have as many connections as there are ports, and from half of them on the kernel searches
// long for each; a server of ours has all of 127.0.0.*.
$addresses = $isOurs ? (int) ceil($size / (0.4 * outgoing_ports())) : 1;
$server = $isOurs ? new ServerProcess(__DIR__ . '/server.php', $addresses > 1 ? '0.0.0.0' : '127.0.0.1') : null;
$port = $server?->port ?? $options['port'];
$emptyMegabytes = $server?->megabytes();
printf("%s clients, a heartbeat every %g s from each, %s\n", number_format($size), $options['interval'],
    $isOurs ? "against a server of our own on port $port" : "against {$options['host']} port $port");

$count = ['connected' => 0, 'registered' => 0, 'heartbeats' => 0, 'errors' => 0, 'lost' => 0];
$leaving = false;
$latest = microtime(true); // when something went forward
$clients = [];
$connect = function (int $number) use ($options, $port, $isOurs, $addresses, &$count, &$leaving, &$latest): HeartbeatClient {
    $client = new HeartbeatClient($isOurs ? '127.0.0.' . 1 + $number % $addresses : $options['host'], $port, [
        'node_id' => sprintf('stress-%d-%d', getmypid(), $number),
        'heartbeat_interval' => $options['interval'],
        'auto_reconnect' => false,
        'connect_timeout' => GRACE,
    ]);
    $client->on('register', function () use (&$count, &$latest): void {
        $count['registered']++;
        $latest = microtime(true);
    });
    $client->on('heartbeat', function () use (&$count): void {
        $count['heartbeats']++;
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
        $count['lost'] += $leaving ? 0 : 1;
    });
    $client->connect();
    return $client;
};

$line = new StatusLine();
$started = microtime(true);
$shownAt = 0.0;
$work = function () use ($line, $started, $size, $server, &$shownAt, &$count): void {
    HeartbeatClient::poll(0.05);
    if (microtime(true) - $shownAt >= 1) {
        $shownAt = microtime(true);
        $line->show(sprintf('%4.1f s | %s %s registered | %s heartbeats answered | lost %s%s', $shownAt - $started, bar($count['registered'] / $size),
            number_format($count['registered']), number_format($count['heartbeats']), number_format($count['lost']),
            $server ? sprintf(' | server %.0f MB', $server->megabytes()) : ''));
    }
};

while ($count['registered'] + $count['errors'] < $size && microtime(true) - $latest < GRACE) {
    while (count($clients) < $size && count($clients) - $count['registered'] - $count['errors'] < WAVE) {
        $clients[] = $connect(count($clients));
    }
    $work();
}
$connecting = $latest - $started;

$heartbeatsBefore = $count['heartbeats'];
$cpuBefore = $server?->cpuSeconds();
$heldSince = microtime(true);
while (microtime(true) - $heldSince < $options['seconds']) {
    $work();
}
$held = microtime(true) - $heldSince;
$heartbeats = $count['heartbeats'] - $heartbeatsBefore;
$cpu = $server?->cpuSeconds() - $cpuBefore;
$megabytes = $server?->megabytes();
$line->end();

$leaving = true;
foreach ($clients as $client) {
    $client->disconnect();
}
HeartbeatClient::run(); // until the last goodbye is on its way
$said = $server?->stop();

printf("\n%s of %s clients registered in %.1f s: %s per second\n", number_format($count['registered']), number_format($size), $connecting,
    number_format($count['registered'] / max($connecting, 0.001)));
printf("%s heartbeats answered in the %.1f s after that: %s per second\n", number_format($heartbeats), $held, number_format($heartbeats / max($held, 0.001)));
if ($server) {
    printf("the server took %.1f MB, %.1f KB for each client (the kernel's sockets not counted), and %.0f %% of one core%s\n", $megabytes,
        ($megabytes - $emptyMegabytes) * 1024 / max($count['registered'], 1), 100 * $cpu / max($held, 0.001),
        $heartbeats > 0 ? sprintf(', %.1f µs for each heartbeat', 1e6 * $cpu / $heartbeats) : '');
    preg_match('/^Stopped after .*$/m', $said, $lastWords);
    printf("it says itself: %s\n", $lastWords[0] ?? 'nothing');
}
printf("the clients took %.1f MB, all in this one process\n", resident_megabytes());

$wrong = array_filter([
    'clients never registered' => $size - $count['registered'],
    'errors' => $count['errors'],
    'connections were lost' => $count['lost'],
    'heartbeats were never answered' => $held > 2 * $options['interval'] ? max(0, $size - $heartbeats) : 0,
]);
foreach ($wrong as $what => $howMany) {
    echo 'WRONG: ' . number_format($howMany) . " $what\n";
}
echo $wrong === [] ? "Everything went well.\n" : '';
exit($wrong === [] ? 0 : 1);
