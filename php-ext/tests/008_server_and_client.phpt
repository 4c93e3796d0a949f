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
// A low descriptor limit is worth a warning, and no fault.
$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'heartbeat_timeout' => 30, 'max_connections' => 100, 'log_level' => 'error']);
$client = new HeartbeatClient('127.0.0.1', $port, ['node_id' => 'n1', 'metadata' => ['version' => '1.0'], 'heartbeat_interval' => 2]);

// Each side's lines by themselves: which of the two hears first of what both hear is open.
$said = ['server' => [], 'client' => []];
$say = function (string $side, string $line) use (&$said): void {
    $said[$side][] = "$side: $line\n";
};

$server->on('start', function () use ($client, $say): void {
    $say('server', 'started');
    $client->connect();
});
$server->on('register', function (Node $node) use ($say): void {
    $say('server', "$node->id registered from $node->ip, version " . $node->getMetadata('version'));
});
$server->on('data', function (Node $node, string $payload, int $channelId) use ($server, $say): void {
    $say('server', "$node->id says $payload");
    $server->sendTo($node->id, "$payload, too");
});
$server->on('unregister', function (Node $node) use ($server, $say): void {
    $say('server', "$node->id said goodbye");
    $server->stop();
});
$server->on('stop', fn () => $say('server', 'stopped'));

$client->on('register', function (string $nodeId, int $channelId) use ($client, $say): void {
    $say('client', "registered as $nodeId on a channel of its own: " . var_export($channelId > 0, true));
    $client->send('hello');
});
$client->on('data', function (string $payload) use ($client, $say): void {
    $say('client', "got $payload");
    $client->on('heartbeat', function () use ($client, $say): void {
        $say('client', 'heartbeat answered');
        $client->on('heartbeat', fn () => null);
        $client->disconnect();
    });
});

// If something goes wrong, the test ends by itself.
$server->every(20.0, fn () => $server->stop());
$server->start();
echo implode($said['server']), implode($said['client']);

$stats = $server->getStats();
var_dump($stats['nodes']['total_registered'], $stats['nodes']['total_timeout'], $stats['nodes']['online']);
var_dump($client->isConnected(), $client->getNodeId());
?>
--EXPECT--
server: started
server: n1 registered from 127.0.0.1, version 1.0
server: n1 says hello
server: n1 said goodbye
server: stopped
client: registered as n1 on a channel of its own: true
client: got hello, too
client: heartbeat answered
int(1)
int(0)
int(0)
bool(false)
string(2) "n1"
