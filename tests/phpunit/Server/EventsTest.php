<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Port, TestCase};

/** The server's events as PHP sees them: names, arguments, order, and each exactly once. */
final class EventsTest extends TestCase
{
    private const ALL = 'say_events($server, "connect", "register", "heartbeat", "data", "unregister", "timeout", "replaced", "disconnected", "close", "start", "stop");';

    public function test_the_story_of_a_connection_is_told_in_order_with_the_documented_arguments(): void
    {
        $server = $this->server([], self::ALL);
        $peer = $server->connect();
        $channel = $peer->register('a')['channel_id'];
        $peer->beat();
        $peer->send(Frame::DATA, 'hello')->send(Frame::UNREGISTER);
        $peer->expectSilence();
        $peer->close();
        $server->next('close');
        self::assertSame(0, $server->stop());

        $told = $this->told($server);
        self::assertSame(['start', 'connect', 'register', 'heartbeat', 'data', 'unregister', 'close', 'stop'], array_column($told, 0));
        [$start, $connect, $register, $heartbeat, $data, $unregister, $close, $stop] = $told;
        self::assertSame(['start', 'PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer'], $start);
        self::assertSame(['connect', '127.0.0.1', $connect[2], 1, 'tcp'], $connect);
        self::assertIsInt($connect[2]);
        self::assertSame(['register', 'a'], $register);
        self::assertSame(['heartbeat', 'a'], $heartbeat);
        self::assertSame(['data', 'a', 'hello', $channel], $data);
        self::assertSame(['unregister', 'a'], $unregister);
        self::assertSame(['close', 1, 'peer closed'], $close);
        self::assertSame(['stop', 'PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer'], $stop);
    }

    public function test_a_node_that_leaves_gets_exactly_one_of_four_events(): void
    {
        $server = $this->server(['heartbeat_timeout' => 3], self::ALL);
        $server->node('unregisters')->send(Frame::UNREGISTER)->expectSilence();
        $old = $server->node('replaced');
        $new = $server->node('replaced');
        $server->node('disconnects')->close();
        $silent = $server->node('times out');
        $silent->expectClosed(15);
        $old->close();
        $new->expectClosed(15);
        $left = fn (): array => array_values(array_filter($this->told($server), fn (array $said) => in_array($said[0], ['unregister', 'timeout', 'replaced', 'disconnected'], true)));
        $this->until(fn () => $server->stats()['connections']['active_connections'] <= 1 && count($left()) >= 5, 'all is over');
        self::assertEqualsCanonicalizing([['unregister', 'unregisters'], ['replaced', 'replaced'], ['disconnected', 'disconnects'],
            ['timeout', 'times out'], ['timeout', 'replaced']], $left());
        self::assertCount(5, $server->process->said('register'));
    }

    public function test_events_of_a_stop_tell_every_node_and_connection_that_went(): void
    {
        $server = $this->server([], self::ALL);
        $peers = [$server->node('a'), $server->node('b'), $server->connect()];
        $peers[2]->expectSilence();
        self::assertSame(0, $server->stop());
        $told = $this->told($server);
        self::assertSame('stop', end($told)[0]);
        self::assertEqualsCanonicalizing([['a'], ['b']], $server->process->said('disconnected'));
        self::assertCount(3, $server->process->said('close'));
        self::assertSame(['server stopped'], array_values(array_unique(array_column($server->process->said('close'), 1))));
    }

    public function test_the_last_callback_of_an_event_wins(): void
    {
        $server = $this->server([], '$server->on("register", fn () => say("first")); $server->on("register", fn () => say("second"));');
        $server->node('a');
        $server->next('second');
        self::assertSame([], $server->process->said('first'));
    }

    public function test_callbacks_can_be_set_while_the_server_runs(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        $server->ask('$server->on("data", fn (Node $node, string $payload) => say("late", $payload));');
        $peer->send(Frame::DATA, 'heard');
        self::assertSame(['heard'], $server->next('late'));
    }

    public function test_an_unknown_event_is_refused(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", 9501);
            foreach (["", "Register", "messages", "error"] as $name) {
                try { $server->on($name, fn () => null); say("accepted", $name); } catch (InvalidArgumentException $e) { say("refused", $e->getMessage()); }
            }');
        self::assertSame(0, $process->exitCode());
        self::assertSame([], $process->said('accepted'));
        self::assertCount(4, $process->said('refused'));
    }

    public function test_any_callable_will_do(): void
    {
        $server = $this->server([], '
            class Listener { public function __invoke(Node $n) { say("invoke"); } public function on(Node $n) { say("method"); } public static function st(Node $n) { say("static"); } }
            function listener(Node $n, string $payload) { say("function"); }
            $server->on("register", new Listener); $server->on("heartbeat", [new Listener, "on"]); $server->on("unregister", "Listener::st"); $server->on("data", "listener");');
        $peer = $server->node('a');
        $peer->beat();
        $peer->send(Frame::DATA, 'x')->send(Frame::UNREGISTER);
        foreach (['invoke', 'method', 'function', 'static'] as $said) {
            $server->next($said);
        }
        self::assertTrue(true);
    }

    public function test_the_node_of_an_event_knows_its_state(): void
    {
        $server = $this->server([], '$server->on("unregister", fn (Node $node) => say("node", $node->toArray(), $node->getSummary()));');
        $peer = $server->node('a', ['k' => 'v']);
        $peer->beat();
        $peer->beat();
        $peer->send(Frame::DATA, 'x')->send(Frame::UNREGISTER);
        [$node, $summary] = $server->next('node');
        self::assertSame(['a', '127.0.0.1', 1, 'offline', 2, 1, ['k' => 'v']], [$node['id'], $node['ip'], $node['connection_id'], $node['status'],
            $node['heartbeat_count'], $node['total_messages'], $node['metadata']]);
        self::assertEqualsWithDelta(microtime(true), $node['created_at'], 10);
        self::assertEqualsWithDelta(microtime(true), $node['last_heartbeat'], 10);
        self::assertStringStartsWith('Node[a] 127.0.0.1:', $summary);
    }

    public function test_a_flood_of_data_arrives_complete_and_in_order(): void
    {
        $server = $this->server([], '
            $expected = 0; $wrong = 0;
            $server->on("data", function (Node $node, string $payload) use (&$expected, &$wrong) {
                $wrong += (int) $payload !== $expected++;
                if ($expected === 50000) { say("done", $wrong); }
            });');
        $peer = $server->node('a');
        for ($i = 0; $i < 50_000; $i += 500) {
            $peer->bytes(implode('', array_map(fn (int $n) => Frame::bytes(Frame::DATA, (string) $n), range($i, $i + 499))));
        }
        self::assertSame([0], $server->next('done', 30));
        self::assertSame(50_000, $server->counter('data_in'));
    }

    public function test_a_host_that_is_busy_makes_the_senders_wait_and_loses_nothing(): void
    {
        $server = $this->server([], '
            $bytes = 0;
            $server->on("data", function (Node $node, string $payload) use (&$bytes, $server) {
                if ($bytes === 0) {
                    for ($end = microtime(true) + 20; $server->getStats()["engine"]["reads_paused_by_host"] === 0 && microtime(true) < $end; usleep(1000));
                }
                $bytes += strlen($payload);
                if ($bytes === 300 * 1000_000) { say("all", $server->getStats()["engine"]["reads_paused_by_host"]); }
            });');
        $peer = $server->node('a');
        $frame = Frame::bytes(Frame::DATA, str_repeat('x', 1000_000));
        for ($i = 0; $i < 300; $i++) {
            self::assertSame(strlen($frame), $peer->bytes($frame, 30));
        }
        self::assertGreaterThan(0, $server->next('all', 60)[0], '300 MB against an inbox of 64 MB: reading must have paused');
        self::assertLessThan(400_000, $server->process->residentKilobytes());
    }

    /** @return list<array> what the server said, without the harness's own words */
    private function told(\Heartbus\Tests\TestServer $server): array
    {
        return array_values(array_filter($server->process->history(), fn (array $said) => !preg_match('/^(ready|returned|answer\d+)$/', $said[0])));
    }
}
