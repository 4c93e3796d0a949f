<?php

namespace Heartbus\Tests\Client;

use Heartbus\Tests\{FakeServer, Frame, PhpProcess, Port, TestCase, TestServer, Wait};

/** A client that carries many nodes over its connection: a gateway for devices. */
final class ManyNodesTest extends TestCase
{
    public function test_two_hundred_devices_over_one_connection_send_and_get_their_own_data(): void
    {
        $server = $this->server([], '$server->on("data", fn (Node $node, string $data) => $server->sendTo($node->id, "$node->id: $data"));');
        $gateway = $this->gateway($server->port, 200, '
            $answers = $channels = [];
            $client->on("register", function (string $nodeId, int $channelId) use (&$channels): void { $channels[$channelId] = $nodeId; });
            $client->on("data", function (string $data, int $channelId) use (&$answers, &$channels): void { $answers[$channels[$channelId]] = $data; });');
        $this->until(fn () => $gateway->ask('return $client->getStats()["nodes"];') === 201, 'all are registered');
        $this->until(fn () => $gateway->ask('return count($GLOBALS["channels"]);') === 201, 'each is told, the gateway itself too');
        $stats = $server->stats();
        self::assertSame([201, 1], [$stats['nodes']['online'], $stats['engine']['connections_total']]);
        self::assertSame(['number' => 17], $server->ask('return $server->getNodeManager()->getNode("device-17")->metadata;'));
        self::assertSame('gateway', $gateway->ask('return $client->getNodeId();'));

        self::assertSame(200, $gateway->ask('$sent = 0; for ($i = 1; $i <= 200; $i++) { $sent += (int) $client->sendFrom("device-$i", "reading $i"); } return $sent;'));
        self::assertTrue($gateway->ask('return $client->send("of its own");'));
        $this->until(fn () => $gateway->ask('return count($GLOBALS["answers"]);') === 201, 'each is answered');
        $answers = $gateway->ask('return $GLOBALS["answers"];');
        self::assertSame('gateway: of its own', $answers['gateway']);
        for ($i = 1; $i <= 200; $i++) {
            self::assertSame("device-$i: reading $i", $answers["device-$i"]);
        }
    }

    public function test_a_removed_device_signs_off_and_the_others_stay(): void
    {
        $server = $this->server([], 'say_events($server, "unregister", "data");');
        $gateway = $this->registered($server, 3);
        self::assertSame([true, false, false], $gateway->ask('return [$client->removeNode("device-2"), $client->removeNode("device-2"), $client->removeNode("nobody")];'));
        self::assertFalse($gateway->ask('return $client->removeNode("gateway");'), 'its first node stays as long as the client');
        self::assertSame(['device-2'], $server->next('unregister'));
        self::assertSame(3, $gateway->ask('return $client->getStats()["nodes"];'));
        self::assertSame([false, false, true], $gateway->ask('return [$client->sendFrom("device-2", "x"), $client->heartbeat("device-2"), $client->sendFrom("device-3", "y")];'));
        self::assertSame(['device-3', 'y'], array_slice($server->next('data'), 0, 2));
        self::assertStringContainsString('Failed to send data: The client has no such node', $gateway->output() . $gateway->errors());

        self::assertSame([true, false], $gateway->ask('return [$client->addNode("device-2"), $client->addNode("device-2")];'));
        $this->until(fn () => $server->stats()['nodes']['online'] === 4, 'it is back');
        self::assertSame([], $gateway->said('node.lost'));
    }

    public function test_a_replaced_device_is_told_of_by_name_and_may_be_taken_back(): void
    {
        $server = $this->server();
        $gateway = $this->registered($server, 3);
        $channels = array_column($gateway->said('register'), 1, 0);
        $newer = $server->node('device-2');
        self::assertSame(['device-2', $channels['device-2'], 409, 'Replaced by a newer connection'], $gateway->next('node.lost'));
        self::assertSame([3, false], $gateway->ask('return [$client->getStats()["nodes"], $client->sendFrom("device-2", "x")];'));
        $newer->beat();

        self::assertTrue($gateway->ask('return $client->addNode("device-2");'));
        $newer->expectError(409, 'Replaced by a newer connection');
        $this->until(fn () => $gateway->ask('return $client->getStats()["nodes"];') === 4, 'it is taken back');
        self::assertSame([], $gateway->said('close'));
        self::assertSame([], $gateway->said('server_error'));
    }

    public function test_a_device_that_the_server_refuses_is_told_of_without_a_channel(): void
    {
        $server = $this->server(['max_nodes_per_connection' => 3]);
        $gateway = $this->gateway($server->port, 3);
        self::assertSame(['device-3', 0, 403, 'Too many nodes on this connection'], $gateway->next('node.lost'));
        self::assertSame([3, false], $gateway->ask('return [$client->getStats()["nodes"], $client->heartbeat("device-3")];'));
        self::assertTrue($gateway->ask('return $client->removeNode("device-1") && $client->addNode("device-3");'));
        $this->until(fn () => in_array('device-3', array_column($gateway->said('register'), 0)), 'there is room now');
    }

    public function test_a_server_that_restarts_gets_all_devices_back(): void
    {
        $port = Port::free();
        $start = function () use ($port): PhpProcess {
            $server = $this->script("\$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);\nserve(\$server);");
            $server->next('ready');
            return $server;
        };
        $server = $start();
        $gateway = $this->gateway($port, 200, '$client->on("register", fn () => null);');
        $nodes = fn (): int => $gateway->ask('return $client->getStats()["nodes"];');
        $this->until(fn () => $nodes() === 201, 'all are registered');
        self::assertTrue($gateway->ask('return $client->removeNode("device-200");'));
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
        $gateway->next('close');
        self::assertTrue($gateway->ask('return $client->addNode("late");'), 'also while there is no connection');
        $server = $start();
        $this->until(fn () => $nodes() === 201, 'all are back', 30);
        $ids = $server->ask('return array_keys($server->getNodeManager()->getAllNodes());');
        self::assertEqualsCanonicalizing(['gateway', 'late', ...array_map(fn (int $i): string => "device-$i", range(1, 199))], $ids);
        self::assertSame([], $gateway->said('node.lost'));
    }

    public function test_with_heartbeats_of_their_own_exactly_the_silent_device_times_out(): void
    {
        $server = $this->server(['heartbeat_timeout' => 5]);
        // The heartbeat that it sends by itself is not its devices'.
        $gateway = $this->registered($server, 3, ['heartbeat_all' => false, 'heartbeat_interval' => 3]);
        $report = fn () => $gateway->ask('foreach (["gateway", "device-1", "device-3"] as $id) { $client->heartbeat($id); }');
        $this->until(fn () => [$report(), $gateway->said('node.lost')][1] !== [], 'somebody is missed', 20);
        [$nodeId, , $code, $message] = $gateway->next('node.lost');
        self::assertSame(['device-2', 408, 'Node timed out: device-2'], [$nodeId, $code, $message]);
        self::assertFalse($gateway->ask('return $client->heartbeat("device-2");'));
        // The others go on for longer than any of them could be silent.
        $beats = fn (string $id): ?int => $server->ask("return \$server->getNodeManager()->getNode('$id')?->heartbeatCount;");
        $seen = [$beats('device-1'), $beats('device-3')];
        Wait::pass(6, $report);
        $this->until(fn () => $beats('device-1') > $seen[0] + 8 && $beats('device-3') > $seen[1] + 8, 'they live by their heartbeats', 20);
        self::assertCount(1, $gateway->said('node.lost'));
        self::assertSame(3, $server->stats()['nodes']['online']);

        self::assertTrue($gateway->ask('return $client->addNode("device-2");'));
        $this->until(fn () => $server->stats()['nodes']['online'] === 4, 'it reports again and is back');
    }

    public function test_by_default_one_heartbeat_keeps_all_alive(): void
    {
        $server = $this->server(['heartbeat_timeout' => 6]);
        $gateway = $this->registered($server, 5, ['heartbeat_interval' => 1]);
        $this->until(fn () => count($gateway->said('heartbeat')) >= 8, 'eight heartbeats are answered', 30);
        self::assertSame([], $gateway->said('node.lost'));
        self::assertSame(6, $server->stats()['nodes']['online']);
    }

    public function test_devices_wait_for_the_connect_and_come_along_to_the_next(): void
    {
        $server = $this->server();
        $gateway = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "gateway", "max_nodes" => 3]);
            say_events($client, "register", "node.lost");
            say("before", $client->addNode("a", ["k" => "v"]), $client->addNode("a"), $client->addNode("b"), $client->addNode("c"),
                $client->removeNode("b"), $client->removeNode("b"), $client->addNode("d"));
            say("not yet", $client->sendFrom("a", "x"), $client->heartbeat("a"), $client->getStats()["nodes"]);
            $client->connect();
            attend(["client" => $client]);', $server->port));
        self::assertSame([true, false, true, false, true, false, true], $gateway->next('before'));
        self::assertSame([false, false, 0], $gateway->next('not yet'));
        self::assertStringContainsString('Cannot add node: The client has as many nodes as it may', $gateway->output() . $gateway->errors());
        $online = fn (): array => $server->ask('return array_keys($server->getNodeManager()->getAllNodes());');
        $all = fn (array $ids): bool => array_diff($ids, $online()) === [] && count($online()) === count($ids);
        $this->until(fn () => $all(['gateway', 'a', 'd']), 'they are registered');
        self::assertSame(['k' => 'v'], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        self::assertSame([false, false], $gateway->ask('return [$client->addNode("e"), $client->addNode("gateway")];'), 'too many; its own');

        $gateway->ask('$client->disconnect();');
        $this->until(fn () => $online() === [], 'all have signed off');
        self::assertSame([true, true], $gateway->ask('return [$client->removeNode("d"), $client->addNode("f")];'));
        $gateway->ask('$client->connect();');
        $this->until(fn () => $all(['gateway', 'a', 'f']), 'those that it has then come along');
        self::assertSame(['k' => 'v'], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        self::assertSame([], $gateway->said('node.lost'));
    }

    public function test_what_is_no_id_or_metadata_throws_and_adds_nothing(): void
    {
        $server = $this->server();
        $gateway = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "gateway"]);
            $refused = function () use ($client): array {
                $said = [];
                foreach ([[""], [str_repeat("x", 256)], ["\xFF"], ["a", ["k" => "\xFF"]], ["a", ["k" => str_repeat("x", 65536)]]] as $arguments) {
                    try { $said[] = $client->addNode(...$arguments); } catch (InvalidArgumentException $e) { $said[] = $e->getMessage(); }
                }
                foreach (["removeNode", "heartbeat"] as $method) {
                    try { $said[] = $client->$method("\xFF"); } catch (InvalidArgumentException $e) { $said[] = $e->getMessage(); }
                }
                return $said;
            };
            say("refused", $refused());
            say_events($client, "register");
            $client->connect();
            attend(["client" => $client, "refused" => $refused]);', $server->port));
        $expected = ['node_id must have 1 to 255 bytes', 'node_id must have 1 to 255 bytes', 'node_id must be valid UTF-8', 'metadata cannot be encoded as JSON',
            'metadata must have at most 65536 bytes', 'node_id must be valid UTF-8', 'node_id must be valid UTF-8'];
        self::assertSame([$expected], $gateway->next('refused'));
        $gateway->next('register');
        self::assertSame($expected, $gateway->ask('return $refused();'), 'the same when connected');
        self::assertTrue($gateway->ask('return $client->addNode("a");'));
        $gateway->next('register');
        self::assertSame(2, $server->stats()['nodes']['online']);
    }

    public function test_in_a_forked_process_the_nodes_are_the_parent_s(): void
    {
        $server = $this->server();
        $gateway = $this->registered($server, 1);
        self::assertSame(['addNode', 'removeNode', 'sendFrom', 'heartbeat'], $gateway->ask('
            $calls = ["addNode" => ["b"], "removeNode" => ["device-1"], "sendFrom" => ["device-1", "x"], "heartbeat" => ["device-1"]];
            [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
            if (pcntl_fork() === 0) {
                $thrown = [];
                foreach ($calls as $method => $arguments) {
                    try { $client->$method(...$arguments); } catch (Heartbus\Exception\WrongProcessException) { $thrown[] = $method; }
                }
                fwrite($theirs, json_encode($thrown) . "\n");
                posix_kill(getmypid(), SIGKILL);
            }
            pcntl_wait($status);
            return json_decode(fgets($ours), true);'));
        self::assertSame([2, true], $gateway->ask('return [$client->getStats()["nodes"], $client->sendFrom("device-1", "x")];'));
    }

    public function test_a_server_of_the_old_wire_is_told_of_each_with_its_metadata(): void
    {
        $server = FakeServer::listen();
        $gateway = $this->gateway($server->port, 2);
        [$peer] = $server->register(5);
        foreach ([1, 2] as $number) {
            $frame = $peer->expect(Frame::REGISTER);
            self::assertSame(["device-$number", ['number' => $number]], [$frame->json()['node_id'], $frame->json()['metadata']]);
            $peer->send(Frame::REGISTER, json_encode(['node_id' => "device-$number", 'channel_id' => 5 + $number]));
        }
        self::assertSame([['gateway', 5], ['device-1', 6], ['device-2', 7]], [$gateway->next('register'), $gateway->next('register'), $gateway->next('register')]);
        self::assertTrue($gateway->ask('return $client->sendFrom("device-2", "hello") && $client->heartbeat("device-1");'));
        $data = $peer->expect(Frame::DATA);
        self::assertSame(['hello', 7], [$data->payload, $data->channel]);
        self::assertSame(6, $peer->expect(Frame::HEARTBEAT_REQ)->channel);
    }

    /** A gateway with devices "device-1" and so on, told before it connects. */
    private function gateway(int $port, int $devices, string $script = '', array $config = []): PhpProcess
    {
        return $this->client($port, $config + ['node_id' => 'gateway', 'reconnect_interval' => 0.1], "
            say_events(\$client, 'node.lost');
            for (\$i = 1; \$i <= $devices; \$i++) {
                \$client->addNode(\"device-\$i\", ['number' => \$i]);
            }
            $script");
    }

    /** The same, with all of them registered and told. */
    private function registered(TestServer $server, int $devices, array $config = [], string $script = ''): PhpProcess
    {
        $gateway = $this->gateway($server->port, $devices, $script, $config);
        $this->until(fn () => count($gateway->said('register')) === $devices + 1, 'all are registered');
        return $gateway;
    }
}
