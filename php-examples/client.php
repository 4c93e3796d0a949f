<?php

/** One client: registers, keeps its heartbeat going, says hello and shows what it hears. Ctrl-C ends it. */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php client.php [options]

  --host H       server (127.0.0.1)
  --port P       its port (9501)
  --interval S   seconds between heartbeats (10)
  --help         this text

TEXT;

[$options, $words] = read_options(USAGE, ['host' => '127.0.0.1', 'port' => 9501, 'interval' => 10.0]);
$words === [] || refuse_usage("unknown argument '$words[0]'", USAGE);
require_extension();

$client = new HeartbeatClient($options['host'], $options['port'], ['heartbeat_interval' => $options['interval']]);
$client->on('register', function (string $nodeId, int $channelId) use ($client): void {
    echo "registered as $nodeId on channel $channelId\n";
    $client->send('hello');
});
$client->on('heartbeat', fn () => print("heartbeat answered\n"));
$client->on('data', fn (string $payload, int $channelId) => print("message on channel $channelId: " . printable($payload) . "\n"));
$client->on('server_error', fn (?array $error) => print('the server says: ' . printable("{$error['message']} ({$error['code']})") . "\n"));
$client->on('close', fn () => print("connection closed\n"));
$client->connect();
HeartbeatClient::run();
