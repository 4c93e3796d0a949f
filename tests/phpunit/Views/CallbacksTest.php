<?php

namespace Heartbus\Tests\Views;

use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, TestCase, WorkermanApp};

/** Callbacks do what people do in them, and nothing hangs. pfinal-asyncio is found where HEARTBUS_ASYNCIO names it. */
final class CallbacksTest extends TestCase
{
    public function test_sleeping_in_a_callback_delays_the_others_and_loses_nothing(): void
    {
        $gate = PhpProcess::folder() . '/gate';
        $server = $this->server([], '$server->on("data", function (Node $node, string $payload) {
            if ($payload === "0") { while (!file_exists(' . var_export($gate, true) . ')) { usleep(1000); } }
            say("data", $payload);
        });');
        $peer = $server->node('a');
        for ($i = 0; $i < 50; $i++) {
            $peer->send(Frame::DATA, "$i");
        }
        // The engine answers meanwhile.
        $peer->beat();
        self::assertSame([], $server->process->said('data'));
        touch($gate);
        for ($i = 0; $i < 50; $i++) {
            self::assertSame(["$i"], $server->next('data'));
        }
    }

    public function test_a_callback_may_start_another_client_and_wait_for_its_answer(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                if ($node->id === "inner") { $server->sendTo("inner", "echo: $payload"); return; }
                $client = new HeartbeatClient("127.0.0.1", $GLOBALS["port"], ["node_id" => "inner"]);
                $client->on("register", fn () => $client->send("from inside"));
                $client->on("data", function (string $answer) use ($client) { $GLOBALS["answer"] = $answer; $client->disconnect(); });
                $client->connect();
                $deadline = microtime(true) + 20;
                while (!isset($GLOBALS["answer"]) && microtime(true) < $deadline) { HeartbeatClient::poll(0.05); }
                say("done", $payload, $GLOBALS["answer"] ?? null);
            });');
        $server->ask('$GLOBALS["port"] = $server->getStats()["server"]["port"];');
        $server->node('a')->send(Frame::DATA, 'go');
        self::assertSame(['go', 'echo: from inside'], $server->next('done', 30));
    }

    public function test_callbacks_may_unsubscribe_cancel_and_unregister_from_within_themselves(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node) use ($server) { $server->on("data", fn () => null); say("once", $server->getNodeManager()->unregister($node->id)->status); });
            $server->on("disconnected", function (Node $node) use ($server) { say("left", $node->status, $server->getNodeManager()->getNodeCount()); });
            $timer = $server->every(0.01, function () use ($server, &$timer) { say("tick", $server->cancel($timer)); });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x')->send(Frame::DATA, 'y');
        self::assertSame(['offline'], $server->next('once'));
        self::assertSame(['offline', 0], $server->next('left'));
        self::assertSame([true], $server->next('tick'));
        $peer->expectClosed();
        usleep(50_000);
        self::assertCount(1, $server->process->said('tick'));
        self::assertCount(1, $server->process->said('once'));
    }

    public function test_order_is_kept_while_a_callback_polls_and_receives_itself(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                say("data", $payload);
                if ($payload === "0") { $c = $server->getChannelScheduler()->getNodeMainChannel("a"); for ($i = 0; $i < 10; $i++) { say("recv", $c->recv(20)); } }
            });');
        $peer = $server->node('a');
        $server->ask('$server->getChannelScheduler()->getNodeMainChannel("a")->recv(0.001);');
        for ($i = 0; $i < 30; $i++) {
            $peer->send(Frame::DATA, "$i");
        }
        for ($i = 0; $i < 30; $i++) {
            self::assertSame(["$i"], $server->next('data'));
        }
        for ($i = 0; $i < 10; $i++) {
            self::assertSame(["$i"], $server->next('recv'));
        }
        self::assertSame(20, $server->ask('return $server->getChannelScheduler()->getNodeMainChannel("a")->getRecvQueueSize();'));
    }

    public function test_ctrl_c_ends_a_callback_that_waits_for_ever(): void
    {
        $server = $this->server([], '$server->on("data", function () { say("waits"); say("got", (new PfinalClub\AsyncioHeartbeat\Channel\Channel(1, "own"))->recv()); });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x');
        $server->next('waits');
        self::assertSame(0, $server->stop());
        self::assertSame([null], $server->next('got'));
    }

    // ---- pfinal-asyncio ----

    /** @dataProvider asyncios */
    public function test_a_server_s_callback_may_create_tasks_and_await_them(string $asyncio, string $workerman): void
    {
        [$port, $server] = $this->serve($asyncio, $workerman, '
            $server->on("data", fn (Node $node, string $payload) => in_scope(function () use ($server, $node, $payload) {
                $task = Asyncio\create_task(function () use ($payload) { Asyncio\sleep($payload === "slow" ? 1.5 : 0.01); return "result of $payload"; });
                say("begins", $payload);
                $server->sendTo($node->id, Asyncio\await($task));
            }));');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->bytes(Frame::bytes(Frame::DATA, 'slow') . Frame::bytes(Frame::DATA, 'quick'));
        self::assertSame(['slow'], $server->next('begins'));
        self::assertSame(['quick'], $server->next('begins'));
        self::assertSame('result of quick', $peer->expect(Frame::DATA)->payload);
        self::assertSame('result of slow', $peer->expect(Frame::DATA)->payload);
        $peer->beat();
    }

    /** @dataProvider asyncios */
    public function test_a_channel_waits_as_asyncio_does(string $asyncio, string $workerman): void
    {
        [$port, $server] = $this->serve($asyncio, $workerman, '
            $server->on("register", function (Node $node) use ($server) {
                $channel = $server->getChannelScheduler()->getNodeMainChannel($node->id);
                $future = $channel->recvAsync();
                say("future", $future::class);
                $future->addDoneCallback(fn () => say("async", $future->getResult()));
                say("timed out", $channel->recv(0.05));
                while (($message = $channel->recv()) !== null) { say("recv", $message); }
                say("closed");
            });
            $server->on("data", fn (Node $node, string $payload) => say("data", $payload));');
        $peer = Peer::connect($port);
        $peer->register('a');
        $class = is_file("$asyncio/src/Future.php") ? 'PfinalClub\Asyncio\Future' : 'PfinalClub\Asyncio\Internal\Future';
        self::assertSame([$class], $server->next('future'));
        self::assertSame([null], $server->next('timed out'));
        for ($i = 0; $i < 10; $i++) {
            $peer->send(Frame::DATA, "$i");
        }
        self::assertSame(['0'], $server->next('async'));
        for ($i = 0; $i < 10; $i++) {
            self::assertSame(["$i"], $server->next('data'));
            self::assertSame(["$i"], $i === 0 ? ['0'] : $server->next('recv'));
        }
        $peer->close();
        $server->next('closed');
    }

    /** @dataProvider asyncios */
    public function test_a_client_s_callback_may_sleep_and_await(string $asyncio, string $workerman): void
    {
        $server = $this->server([], '$server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, $payload));');
        $app = WorkermanApp::make($workerman);
        $app->write('client.php', self::load($asyncio) . '
            $client = new HeartbeatClient("127.0.0.1", ' . $server->port . ');
            $client->on("register", fn () => in_scope(function () use ($client) {
                Asyncio\sleep(0.05);
                say("slept", $client->send(Asyncio\await(Asyncio\create_task(fn () => "from a task"))));
            }));
            $client->on("data", function (string $data) { Asyncio\sleep(0.05); say("data", $data); });
            $client->connect();
            Worker::runAll();');
        $process = $app->php('client.php', 'start');
        self::assertSame([true], $process->next('slept'));
        self::assertSame(['from a task'], $process->next('data'));
    }

    private function serve(string $asyncio, string $workerman, string $script): array
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', self::load($asyncio) . "\$server = new HeartbeatServer('127.0.0.1', $port);\n$script\nserve(\$server);");
        $process = $app->php('server.php', 'start');
        $process->next('ready');
        return [$port, $process];
    }

    /** Version 3 wants its tasks in a scope. */
    private static function load(string $asyncio): string
    {
        if ($asyncio === '') {
            self::markTestSkipped('HEARTBUS_ASYNCIO names no pfinal-asyncio');
        }
        return '
            use PfinalClub\Asyncio;
            spl_autoload_register(function (string $class): void {
                $file = ' . var_export("$asyncio/src/", true) . ' . strtr(substr($class, 19), "\\\\", "/") . ".php";
                if (str_starts_with($class, "PfinalClub\\\\Asyncio\\\\") && is_file($file)) { require $file; }
            });
            require ' . var_export("$asyncio/src/functions.php", true) . ';
            function in_scope(callable $do): mixed {
                $scope = "PfinalClub\Asyncio\Concurrency\CancellationScope";
                return class_exists($scope) ? $scope::run($do) : $do();
            }
        ';
    }

    public static function asyncios(): array
    {
        $found = [];
        foreach (array_filter(explode(':', getenv('HEARTBUS_ASYNCIO') ?: '')) as $asyncio) {
            foreach (WorkermanApp::installations() as $name => [$workerman]) {
                // Version 2 is for Workerman 4.
                if ($workerman !== '' && (is_dir("$asyncio/src/Internal") || str_contains($name, ' 4.'))) {
                    $found[basename($asyncio) . " on $name"] = [$asyncio, $workerman];
                }
            }
        }
        return $found ?: ['no pfinal-asyncio' => ['', '']];
    }
}
