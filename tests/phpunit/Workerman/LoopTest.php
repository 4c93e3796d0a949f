<?php

namespace Heartbus\Tests\Workerman;

use Heartbus\Tests\{FakeServer, Frame, Peer, PhpProcess, Port, TestCase, WorkermanApp};

/** The server and the clients on Workerman's loop. */
final class LoopTest extends TestCase
{
    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_events_timers_and_pushes_work_and_all_nodes_are_in_one_process(string $workerman): void
    {
        [$app, $port, $server] = $this->serve($workerman, '
            say_events($server, "start", "connect", "register", "heartbeat", "unregister", "close");
            $server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, "echo: $payload"));
            $server->every(0.05, fn () => say("tick", getmypid()));', ['worker_count' => 4]);
        $peers = [];
        for ($i = 0; $i < 20; $i++) {
            $peers[$i] = Peer::connect($port);
            $peers[$i]->register("n$i");
        }
        self::assertSame(20, $server->ask('return $server->getStats();')['nodes']['online'], 'every node is seen, though worker_count is 4');
        $peers[3]->send(Frame::DATA, 'hi');
        self::assertSame('echo: hi', $peers[3]->expect(Frame::DATA)->payload);
        self::assertSame(20, $server->ask('return $server->broadcast("all");'));
        self::assertSame('all', $peers[19]->expect(Frame::DATA)->payload);
        $peers[5]->expect(Frame::DATA);
        $peers[5]->beat();
        self::assertSame(['n5'], $server->next('heartbeat'));
        $server->next('tick');
        $server->next('tick');
        self::assertCount(1, array_unique(array_column($server->said('tick'), 0)), 'the callbacks run in one process');
        self::assertCount(1, $server->said('start'));
        $peers[7]->send(Frame::UNREGISTER);
        self::assertSame(['n7'], $server->next('unregister'));
        self::assertNotEmpty($app->workers());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_ctrl_c_tells_every_client_and_ends_with_zero(string $workerman): void
    {
        foreach ([SIGINT, SIGTERM] as $signal) {
            [, $port, $server] = $this->serve($workerman, 'say_events($server, "stop");');
            $peer = Peer::connect($port);
            $peer->register('a');
            $server->signal($signal);
            $peer->expectError(503, 'Server is shutting down');
            $peer->expectClosed();
            self::assertSame(0, $server->exitCode());
            self::assertCount(1, $server->said('stop'));
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_start_as_daemon_status_connections_second_start_reload_and_stop(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "(new HeartbeatServer('127.0.0.1', $port))->start();");
        self::assertStringContainsString('start in DAEMON mode', $app->command('server.php', 'start', '-d'));
        $peer = Peer::served($port);
        $peer->register('a');
        // It prints after a second what the workers have written by then.
        $this->until(fn () => str_contains($app->command('server.php', 'status'), 'HeartbeatServer'), 'the status shows it', 30);
        $app->command('server.php', 'connections');
        self::assertStringContainsString('already running', $app->command('server.php', 'start'));
        $app->command('server.php', 'reload');
        $peer = Peer::served($port);
        $peer->register('b');
        $peer->beat();
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop'));
        self::assertSame(0, $app->master());
        self::assertFalse($this->listens($port));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_commands_without_a_running_server_say_so_and_end_with_zero(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $app->write('server.php', '(new HeartbeatServer("127.0.0.1", ' . Port::free() . '))->start();');
        self::assertStringContainsString('Usage: php', $app->command('server.php'));
        foreach (['status', 'stop', 'reload'] as $command) {
            self::assertStringContainsString('not run', $app->command('server.php', $command));
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_native_loop_can_be_asked_for_although_workerman_is_there(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "serve(new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']));");
        $server = $app->php('server.php');
        $server->next('ready');
        Peer::connect($port)->register('a');
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
        self::assertSame(0, $app->master());
        $server->next('returned');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_port_in_use_is_told(string $workerman): void
    {
        $other = $this->server();
        $app = WorkermanApp::make($workerman);
        $app->write('server.php', "(new HeartbeatServer('127.0.0.1', {$other->port}))->start();");
        $server = $app->php('server.php', 'start');
        $this->until(fn () => str_contains($server->output() . $server->errors() . @file_get_contents("$app->folder/workerman.log"), 'Address already in use'),
            'the fault is told');
        $other->node('still fine')->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_exit_and_exceptions_in_callbacks_cost_an_engine_in_the_same_process_and_workerman_starts_another(string $workerman): void
    {
        foreach (['exit(7);', 'throw new DomainException("from the callback");'] as $end) {
            [$app, $port] = $this->serve($workerman, "\$server->on('data', function (Node \$node, string \$payload) use (\$server) {
                if (\$payload === 'end') { $end }
                \$server->sendTo(\$node->id, (string) getmypid());
            });", ['php_workers' => 0]);
            // A worker that is about to end refuses newcomers: until the next one takes us.
            $node = function () use ($port): Peer {
                $this->until(function () use ($port, &$peer): bool {
                    $stream = @stream_socket_client("tcp://127.0.0.1:$port");
                    $peer = $stream ? new Peer($stream) : null;
                    $peer?->bytes(Frame::registration('a'));
                    return $peer?->receive()?->type === Frame::REGISTER;
                }, 'a worker takes a registration', 15);
                return $peer;
            };
            $first = $node();
            $pid = $first->send(Frame::DATA, 'who')->expect(Frame::DATA)->payload;
            $first->send(Frame::DATA, 'end');
            $this->until(fn () => $first->hasEnded(), 'the worker is gone');
            self::assertNotSame($pid, $node()->send(Frame::DATA, 'who')->expect(Frame::DATA)->payload);
            PhpProcess::killAll();
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_worker_of_the_application_s_own_runs_beside_the_server(string $workerman): void
    {
        $text = Port::free();
        [, $port] = $this->serve($workerman, "
            \$own = new Worker('text://127.0.0.1:$text');
            \$own->onMessage = fn (\$connection, \$line) => \$connection->send('you said ' . \$line);");
        $stream = stream_socket_client("tcp://127.0.0.1:$text");
        fwrite($stream, "hello\n");
        self::assertSame("you said hello\n", fgets($stream));
        Peer::connect($port)->register('a');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_client_in_a_running_worker_uses_that_worker_s_loop(string $workerman): void
    {
        $server = FakeServer::listen();
        $app = WorkermanApp::make($workerman);
        $app->write('app.php', "
            \$worker = new Worker();
            \$worker->onWorkerStart = function () {
                say('worker', getmypid());
                \$client = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => 'in a worker', 'reconnect_interval' => 0.1]);
                \$client->on('register', fn () => \$client->send('from the worker'));
                \$client->on('data', fn (string \$payload) => say('data', \$payload, getmypid()));
                \$client->connect();
            };
            Worker::runAll();");
        $process = $app->php('app.php', 'start');
        [$peer, $request] = $server->register(5);
        self::assertSame('in a worker', $request['node_id']);
        self::assertSame('from the worker', $peer->expect(Frame::DATA)->payload);
        $peer->send(Frame::DATA, 'to the worker');
        [$pid] = $process->next('worker');
        self::assertSame(['to the worker', $pid], $process->next('data'));
        $peer->close();
        [$peer] = $server->register(6);
        $peer->expect(Frame::DATA);
        $process->signal(SIGINT);
        $peer->expect(Frame::UNREGISTER);
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_nodes_added_before_run_all_wait_for_the_worker(string $workerman): void
    {
        $server = $this->server();
        $app = WorkermanApp::make($workerman);
        $app->write('app.php', "
            \$client = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => 'gateway']);
            \$client->on('register', fn (string \$id) => say('register', \$id));
            \$client->connect();
            say('added', \$client->addNode('lamp'), \$client->addNode('lamp'));
            Worker::runAll();");
        $process = $app->php('app.php', 'start');
        self::assertSame([true, false], $process->next('added'));
        self::assertSame([['gateway'], ['lamp']], [$process->next('register'), $process->next('register')]);
        $app->command('app.php', 'stop');
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'both have signed off');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_clients_connected_before_run_all_share_one_process_of_their_own(string $workerman): void
    {
        $server = FakeServer::listen();
        $app = WorkermanApp::make($workerman);
        $app->write('app.php', "
            say('master', getmypid());
            foreach (['a', 'b', 'c'] as \$id) {
                \$clients[\$id] = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => \$id]);
                \$clients[\$id]->on('register', fn (string \$id) => say('register', \$id, getmypid()));
                \$clients[\$id]->connect();
            }
            Worker::runAll();");
        $process = $app->php('app.php', 'start');
        $peers = [];
        for ($i = 1; $i <= 3; $i++) {
            [$peers[]] = $server->register($i);
        }
        $told = [$process->next('register'), $process->next('register'), $process->next('register')];
        self::assertEqualsCanonicalizing(['a', 'b', 'c'], array_column($told, 0));
        self::assertCount(1, array_unique(array_column($told, 1)));
        self::assertNotSame($process->next('master')[0], $told[0][1]);
        $this->until(fn () => str_contains($app->command('app.php', 'status'), 'HeartbeatClient'), 'the status shows it', 30);
        $app->command('app.php', 'stop');
        foreach ($peers as $peer) {
            $peer->expect(Frame::UNREGISTER);
        }
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_master_process_has_no_engine_thread(string $workerman): void
    {
        [$app, , $server] = $this->serve($workerman);
        self::assertCount(1, $server->threads());
        self::assertSame($server->pid(), $app->master());
        $threads = array_map(fn (int $pid) => array_map(fn ($file) => trim(file_get_contents($file)), glob("/proc/$pid/task/*/comm")), $app->workers());
        self::assertContains('heartbus-io-0', array_merge(...$threads));
    }

    /** @return array{0: WorkermanApp, 1: int, 2: PhpProcess} the application, the port, and the ready master */
    private function serve(string $workerman, string $script = '', array $config = []): array
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $config += ['bus' => "$app->folder/bus.sock"];
        $app->write('server.php', sprintf("\$server = new HeartbeatServer('127.0.0.1', %d, %s);\n%s\nserve(\$server);", $port, var_export($config, true), $script));
        $process = $app->php('server.php', 'start');
        $process->next('ready');
        return [$app, $port, $process];
    }

    private function listens(int $port): bool
    {
        $probe = @stream_socket_client("tcp://127.0.0.1:$port");
        return $probe && fclose($probe);
    }
}
