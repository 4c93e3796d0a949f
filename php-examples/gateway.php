<?php

/**
 * A gateway: brings many devices onto the bus over one connection, each as a node of its own. A real one hears its devices by
 * radio or over a serial line; here they are played. Who reports is alive: a device that falls silent times out, alone, and
 * comes back when it reports again.
 */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php gateway.php [DEVICES] [options]

Connects DEVICES devices (20) to a server over one connection. One of them falls silent until the server has missed it. Ends
when it is back. Wants a server that echoes: php server.php --echo --timeout 5

  --host H       server (127.0.0.1)
  --port P       its port (9501)
  --interval S   seconds between two reports of a device, and two heartbeats of the gateway (1)
  --seconds S    the longest that it may take (60)
  --help         this text

TEXT;

const SILENT = 'device-1';

[$options, $words] = read_options(USAGE, ['host' => '127.0.0.1', 'port' => 9501, 'interval' => 1.0, 'seconds' => 60.0]);
$size = filter_var($words[0] ?? '20', FILTER_VALIDATE_INT, ['options' => ['min_range' => 1]]);
count($words) <= 1 && $size !== false || refuse_usage('DEVICES is one whole number, 1 or more', USAGE);
require_extension();

$gateway = new HeartbeatClient($options['host'], $options['port'], [
    'node_id' => 'gateway-' . getmypid(),
    'max_nodes' => $size + 1, // it is a node itself
    'heartbeat_all' => false, // devices live by their own reports, and the gateway by its heartbeats:
    'heartbeat_interval' => $options['interval'],
]);
$devices = array_map(fn (int $number): string => "device-$number", range(1, $size));
foreach ($devices as $device) {
    $gateway->addNode($device);
}

$count = ['sent' => 0, 'answered' => 0];
$online = [];
[$isComplete, $wasLost, $isBack] = [false, false, false];
$gateway->on('register', function (string $nodeId) use ($gateway, $size, &$online, &$isComplete, &$wasLost, &$isBack): void {
    if ($nodeId !== $gateway->getNodeId()) {
        $online[$nodeId] = true;
    }
    if (!$isComplete && count($online) === $size) {
        $isComplete = true;
        echo "$size devices are on the bus, over one connection\n";
    } elseif ($wasLost && $nodeId === SILENT) {
        $isBack = true;
        echo "$nodeId reports again and is back\n";
    }
});
$gateway->on('node.lost', function (string $nodeId, int $channelId, int $code, string $message) use (&$online, &$wasLost): void {
    unset($online[$nodeId]);
    echo 'the server says: ' . printable($message) . " ($code)\n";
    $wasLost = $wasLost || $nodeId === SILENT;
});
$gateway->on('close', function () use (&$online): void {
    $online = []; // all are registered again when it is back
});
$gateway->on('data', function () use (&$count): void {
    $count['answered']++;
});
$gateway->on('error', fn (int $code, string $message) => complain($message));
$gateway->connect();

$report = function (string $device) use ($gateway, &$count): void {
    if ($gateway->heartbeat($device)) {
        $count['sent'] += (int) $gateway->sendFrom($device, '21.5 °C');
    } else {
        $gateway->addNode($device); // it had timed out; false if it is about to be registered anyway
    }
};
[$round, $deadline] = [0, microtime(true) + $options['seconds']];
while (!$isBack && microtime(true) < $deadline) {
    $next = microtime(true) + $options['interval'];
    if ($isComplete) {
        $isSilent = ++$round > 2 && !$wasLost;
        $round === 3 && print(SILENT . " falls silent\n");
        array_map($report, array_diff($devices, $isSilent ? [SILENT] : []));
    }
    while (!$isBack && ($left = $next - microtime(true)) > 0) {
        HeartbeatClient::poll($left);
    }
}
printf("%d readings sent, %d answered, %d devices on the bus\n", $count['sent'], $count['answered'], count($online));
$gateway->disconnect();
HeartbeatClient::run(); // until the goodbye is on its way
$wrong = match (true) {
    !$isComplete => 'not all devices got onto the bus',
    !$wasLost => 'the server has not missed ' . SILENT,
    !$isBack => SILENT . ' did not come back',
    default => null,
};
echo $wrong === null ? "Everything went well.\n" : "WRONG: $wrong\n";
exit($wrong === null ? 0 : 1);
