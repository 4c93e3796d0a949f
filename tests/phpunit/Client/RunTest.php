<?php

namespace Heartbus\Tests\Client;

use Heartbus\Tests\{FakeServer, Frame, TestCase};

/** Driving clients without any loop: run(), poll(), and what callbacks may do. */
final class RunTest extends TestCase
{
    public function test_run_and_poll_without_clients_return_at_once(): void
    {
        $process = $this->script('HeartbeatClient::run(); $client = new HeartbeatClient(); HeartbeatClient::run();
            say("back", HeartbeatClient::poll(), HeartbeatClient::poll(0.0));');
        self::assertSame([0, 0], $process->next('back'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_run_returns_when_the_last_client_is_gone(): void
    {
        $server = $this->server([], 'say_events($server, "unregister");');
        $process = $this->script(sprintf('
            foreach (["a", "b"] as $id) {
                $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => $id]);
                $client->on("register", fn () => $client->disconnect());
                $client->connect();
            }
            HeartbeatClient::run();
            say("done");', $server->port));
        $process->next('done');
        self::assertSame(0, $process->exitCode());
        $this->until(fn () => count($server->process->said('unregister')) === 2, 'both said goodbye');
    }

    /** @dataProvider signals */
    public function test_a_signal_ends_run_politely(int $signal): void
    {
        $server = $this->server([], 'say_events($server, "unregister", "disconnected");');
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a"]);
            say_events($client, "register");
            $client->connect();
            HeartbeatClient::run();
            say("after run");', $server->port));
        $process->next('register');
        $process->signal($signal);
        self::assertSame(0, $process->exitCode(20));
        $process->next('after run');
        self::assertSame(['a'], $server->next('unregister'));
        self::assertSame([], $server->process->said('disconnected'));
    }

    public static function signals(): array
    {
        return ['SIGINT' => [SIGINT], 'SIGTERM' => [SIGTERM]];
    }

    public function test_a_script_that_ends_with_connected_clients_says_goodbye(): void
    {
        $server = $this->server([], 'say_events($server, "unregister", "disconnected");');
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a"]);
            $client->connect();
            drive(fn () => $client->getNodeId() !== null);', $server->port));
        self::assertSame(0, $process->exitCode(20));
        self::assertSame(['a'], $server->next('unregister'));
    }

    public function test_poll_waits_no_longer_than_told(): void
    {
        $server = FakeServer::listen();
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a"]);
            $client->connect();
            drive(fn () => $client->getNodeId() !== null);
            while (HeartbeatClient::poll(0.05) > 0);
            // The shortest of five: the process may have to wait for the machine.
            foreach (["idle" => 0.3, "at once" => 0.0] as $topic => $timeout) {
                $callbacks = 0;
                $seconds = [];
                for ($i = 0; $i < 5; $i++) {
                    $start = microtime(true);
                    $callbacks += $timeout > 0 ? HeartbeatClient::poll($timeout) : HeartbeatClient::poll();
                    $seconds[] = microtime(true) - $start;
                }
                say($topic, $callbacks, min($seconds));
            }
            fgets(STDIN);', $server->port));
        [$peer] = $server->register();
        [$callbacks, $seconds] = $process->next('idle', 20);
        self::assertSame(0, $callbacks);
        self::assertGreaterThan(0.25, $seconds);
        self::assertLessThan(2.0, $seconds);
        [$callbacks, $seconds] = $process->next('at once');
        self::assertSame(0, $callbacks);
        self::assertLessThan(0.25, $seconds);
        unset($peer);
    }

    public function test_poll_counts_the_callbacks_it_ran_and_wakes_up_for_them(): void
    {
        $server = FakeServer::listen();
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a"]);
            $data = 0;
            $client->on("data", function () use (&$data) { $data++; });
            $client->connect();
            $callbacks = 0;
            while ($data < 10) { $callbacks += HeartbeatClient::poll(5); }
            say("callbacks", $callbacks, $data);', $server->port));
        [$peer] = $server->register();
        for ($i = 0; $i < 10; $i++) {
            $peer->send(Frame::DATA, "x$i");
        }
        self::assertSame([10, 10], $process->next('callbacks'), 'only data has a callback');
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_callback_may_destroy_its_own_client(): void
    {
        $server = $this->server();
        $process = $this->script(sprintf('
            for ($i = 0; $i < 20; $i++) {
                $clients[$i] = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "n$i"]);
                $clients[$i]->on(["connect", "register"][$i %% 2], function () use ($i, &$clients) {
                    if (isset($clients[$i])) { $clients[$i]->disconnect(); unset($clients[$i]); gc_collect_cycles(); say("gone", $i); }
                });
                $clients[$i]->connect();
            }
            HeartbeatClient::run();
            say("left", count($clients));', $server->port));
        self::assertSame([0], $process->next('left'));
        self::assertSame(0, $process->exitCode());
        self::assertCount(20, $process->said('gone'));
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'none is left on the server');
    }

    public function test_a_callback_may_disconnect_connect_and_make_new_clients(): void
    {
        $server = $this->server();
        $process = $this->script(sprintf('
            $first = new HeartbeatClient("127.0.0.1", %1$d, ["node_id" => "first"]);
            $rounds = 0;
            $first->on("register", function () use ($first, &$rounds) { $rounds++; $first->disconnect(); });
            $first->on("close", function () use ($first, &$rounds, &$second) {
                if ($rounds < 3) { $first->connect(); return; }
                $second = new HeartbeatClient("127.0.0.1", %1$d, ["node_id" => "second"]);
                $second->on("register", function () use (&$second) { say("second"); $second->disconnect(); });
                $second->connect();
            });
            $first->connect();
            HeartbeatClient::run();
            say("rounds", $rounds);', $server->port));
        self::assertSame([3], $process->next('rounds'));
        $process->next('second');
        self::assertSame(0, $process->exitCode());
    }

    public function test_an_exception_in_a_callback_comes_out_of_run_and_poll_and_nothing_is_lost(): void
    {
        $server = FakeServer::listen();
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a", "auto_reconnect" => false]);
            $client->on("data", function (string $payload) { say("data", $payload); if ($payload === "bad") { throw new DomainException("from the callback"); } });
            $client->connect();
            foreach (["run", "poll"] as $method) {
                try { while (true) { $method === "run" ? HeartbeatClient::run() : HeartbeatClient::poll(1); } }
                catch (DomainException $e) { say($method, $e->getMessage(), $e->getLine() > 0); }
            }
            HeartbeatClient::run();
            say("end");', $server->port));
        [$peer] = $server->register();
        foreach (['good', 'bad', 'bad', 'good again'] as $payload) {
            $peer->send(Frame::DATA, $payload);
        }
        self::assertSame(['from the callback', true], $process->next('run'));
        self::assertSame(['from the callback', true], $process->next('poll'));
        foreach (['good', 'bad', 'bad', 'good again'] as $payload) {
            self::assertSame([$payload], $process->next('data'));
        }
        $peer->close();
        $process->next('end');
        self::assertSame(0, $process->exitCode());
    }

    public function test_an_uncaught_exception_ends_the_script_as_any_other(): void
    {
        $server = $this->server();
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a"]);
            $client->on("register", fn () => throw new DomainException("nobody catches me"));
            $client->connect();
            HeartbeatClient::run();', $server->port));
        self::assertSame(255, $process->exitCode());
        self::assertStringContainsString('Uncaught DomainException: nobody catches me', $process->errors());
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'its node is gone');
    }

    public function test_exit_in_a_callback_ends_the_script_with_its_code(): void
    {
        $server = $this->server();
        $process = $this->script(sprintf('
            register_shutdown_function(fn () => say("shutdown function"));
            $client = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "a"]);
            $client->on("register", function () { exit(7); });
            $client->connect();
            HeartbeatClient::run();
            say("never");', $server->port));
        self::assertSame(7, $process->exitCode());
        $process->next('shutdown function');
        self::assertSame([], $process->said('never'));
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'its node is gone');
    }

    public function test_clients_in_cycles_are_collected(): void
    {
        $process = $this->script('
            class Holder { public ?HeartbeatClient $client = null; public string $weight; }
            function cycles(int $count): void {
                for ($i = 0; $i < $count; $i++) {
                    $holder = new Holder; $holder->weight = str_repeat("x", 1000);
                    $holder->client = new HeartbeatClient("127.0.0.1", 1, ["metadata" => ["k" => $i]]);
                    $holder->client->on("data", fn () => $holder->weight);
                }
                gc_collect_cycles();
            }
            cycles(1000);
            $before = memory_get_usage();
            cycles(20000);
            say("grown", memory_get_usage() - $before);');
        self::assertLessThan(1_000_000, $process->next('grown')[0]);
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_connected_client_that_only_its_own_callback_holds_keeps_working(): void
    {
        $server = $this->server([], '$server->on("register", fn (Node $node) => $server->sendTo($node->id, "welcome"));');
        $process = $this->script(sprintf('
            function start(int $port): void {
                $client = new HeartbeatClient("127.0.0.1", $port, ["node_id" => "forgotten"]);
                $client->on("data", function (string $payload) use ($client) { say("data", $payload); $client->disconnect(); });
                $client->connect();
            }
            start(%d);
            gc_collect_cycles();
            HeartbeatClient::run();', $server->port));
        self::assertSame(['welcome'], $process->next('data'));
        self::assertSame(0, $process->exitCode());
    }
}
