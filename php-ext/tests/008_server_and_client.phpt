--TEST--
A server and a client in one process: register, data in both directions, heartbeat, goodbye
--EXTENSIONS--
heartbus
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/free_port.inc';

$port = free_port();
$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'heartbeat_timeout' => 30]);
$client = new HeartbeatClient('127.0.0.1', $port, ['node_id' => 'n1', 'metadata' => ['version' => '1.0'], 'heartbeat_interval' => 0.1]);

$server->on('start', function () use ($client): void {
    echo "server: started\n";
    $client->connect();
});
$server->on('register', function (Node $node): void {
    echo "server: $node->id registered from $node->ip, version ", $node->getMetadata('version'), "\n";
});
$server->on('data', function (Node $node, string $payload, int $channelId) use ($server): void {
    echo "server: $node->id says $payload\n";
    $server->sendTo($node->id, "$payload, too");
});
$server->on('unregister', function (Node $node) use ($server): void {
    echo "server: $node->id said goodbye\n";
    $server->stop();
});
$server->on('stop', fn () => print("server: stopped\n"));

$client->on('register', function (string $nodeId, int $channelId) use ($client): void {
    echo "client: registered as $nodeId on a channel of its own: ", var_export($channelId > 0, true), "\n";
    $client->send('hello');
});
$client->on('data', function (string $payload) use ($client): void {
    echo "client: got $payload\n";
    $client->on('heartbeat', function () use ($client): void {
        echo "client: heartbeat answered\n";
        $client->on('heartbeat', fn () => null);
        $client->disconnect();
    });
});

// If something goes wrong, the test ends by itself.
$server->every(20.0, fn () => $server->stop());
$server->start();

$stats = $server->getStats();
var_dump($stats['nodes']['total_registered'], $stats['nodes']['total_timeout'], $stats['nodes']['online']);
var_dump($client->isConnected(), $client->getNodeId());
?>
--EXPECT--
server: started
server: n1 registered from 127.0.0.1, version 1.0
client: registered as n1 on a channel of its own: true
server: n1 says hello
client: got hello, too
client: heartbeat answered
server: n1 said goodbye
server: stopped
int(1)
int(0)
int(0)
bool(false)
string(2) "n1"
