<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, ServerApp, TestCase, Wait, WorkermanApp};

/** Several PHP workers beside one engine: who hears whom, and what each can do. */
final class WorkersTest extends TestCase
{
    /** Runs what a node says as PHP, in the worker that the node belongs to, and answers in JSON. */
    private const ASK = '
        $server->on("data", function (Node $node, string $payload) use ($server) {
            $answer = fn (mixed $value) => $server->sendTo($node->id, json_encode($value));
            $answer((function (string $code) use ($server) { return eval(IMPORTS . $code); })($payload));
        });';

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_node_belongs_to_one_worker_and_is_heard_in_order(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2]);
        for ($number = 0; $number < 40; $number++) {
            $peers[$number] = $server->node("n$number");
        }
        for ($round = 1; $round <= 20; $round++) {
            foreach ($peers as $peer) {
                $peer->send(Frame::DATA, (string) $round);
            }
        }
        $this->until(fn () => count($server->notes()) === 800, 'all are told');
        $told = $workers = [];
        foreach ($server->notes() as [$node, $payload, $sequence, , $pid]) {
            $told[$node][] = (int) $payload;
            $workers[$pid][$node] = true;
            $sequences[] = $sequence;
        }
        foreach ($told as $rounds) {
            self::assertSame(range(1, 20), $rounds);
        }
        self::assertCount(2, $workers);
        self::assertEqualsCanonicalizing($server->phpWorkers(), array_keys($workers));
        [$first, $second] = array_values($workers);
        self::assertSame([], array_intersect_key($first, $second), 'nobody belongs to both');
        self::assertCount(800, array_unique($sequences));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_what_a_worker_has_read_at_once_is_told_to_its_end_without_another_event_coming(string $workerman): void
    {
        $server = ServerApp::at(WorkermanApp::make($workerman), Port::free(), [], '
            $server->on("start", function () {
                say("begins");
                while (!is_file("go")) { usleep(1000); clearstatcache(); }
            });
            $server->on("data", function () {
                static $count = 0;
                if (++$count === 2048) { say("all"); }
            });');
        $server->next('begins');
        $peer = Peer::served($server->port);
        $peer->register('a');
        // As much as a worker may have in hand: it is sent in one go when the worker is ready, and fits into one read.
        $peer->bytes(str_repeat(Frame::bytes(Frame::DATA, 'x'), 2048));
        $this->until(fn () => $server->counter('data_in') === 2048, 'all have arrived');
        touch("{$server->app->folder}/go");
        $server->next('all');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_every_worker_sees_and_reaches_the_nodes_of_all(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], self::ASK);
        [$mine, $other] = $this->nodesOfTwoWorkers($server);
        [$peer, $id] = $mine;
        [$stranger, $strangeId] = $other;
        $ask = fn (string $code): mixed => json_decode($peer->send(Frame::DATA, $code)->expect(Frame::DATA)->payload, true);

        $online = $server->bus()->stats()['nodes']['online'];
        self::assertSame($online, $ask('return $server->getStats()["nodes"]["online"];'));
        self::assertSame(2, $ask('return $server->getStats()["engine"]["dispatch_workers"];'));
        self::assertSame([$strangeId, '127.0.0.1', true], $ask("\$node = \$server->getNodeManager()->getNode('$strangeId'); return [\$node->id, \$node->ip, \$node->isOnline()];"));
        self::assertNull($ask('return $server->getNodeManager()->getNode("nobody");'));
        self::assertSame($online, $ask('return count($server->getNodeManager()->getAllNodes());'));
        self::assertTrue($ask("return \$server->sendTo('$strangeId', 'across');"));
        self::assertSame('across', $stranger->expect(Frame::DATA)->payload);
        self::assertFalse($ask('return $server->sendTo("nobody", "x");'));
        self::assertSame($online, $ask('$server->every(0.05, function () use ($server) { static $once = 0; $once++ || say("broadcast", $server->broadcast("all")); }); return ' . $online . ';'));
        self::assertSame([$online], $server->next('broadcast'));
        self::assertSame('all', $stranger->expect(Frame::DATA)->payload);
        self::assertSame('all', $peer->expect(Frame::DATA)->payload);
        self::assertTrue($ask("return \$server->disconnect('$strangeId');"));
        $stranger->expectClosed();
        self::assertNull($ask("return \$server->getNodeManager()->getNode('$strangeId');"));
        $peer->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_worker_receives_on_the_channel_of_a_node_of_another_worker(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], self::ASK);
        [[$peer, $id], [$stranger, $strangeId]] = $this->nodesOfTwoWorkers($server);
        $receive = fn (string $node): string => "
            \$channel = current(\$server->getChannelScheduler()->getNodeChannels('$node'));
            say('receives', \$channel->nodeId);
            return [\$channel->recv(10), \$channel->recv(10), \$channel->send('from the channel')];";
        $peer->send(Frame::DATA, $receive($strangeId));
        self::assertSame([$strangeId], $server->next('receives'));
        $stranger->send(Frame::DATA, 'return 1;')->send(Frame::DATA, 'return 2;');
        self::assertSame(['return 1;', 'return 2;', true], json_decode($peer->expect(Frame::DATA)->payload));
        $heard = array_map(fn () => $stranger->expect(Frame::DATA)->payload, range(1, 3));
        self::assertEqualsCanonicalizing(['1', '2', 'from the channel'], $heard, 'its own worker hears it as well');
        // And on one of its own.
        $peer->send(Frame::DATA, $receive($id));
        self::assertSame([$id], $server->next('receives'));
        $peer->send(Frame::DATA, 'return 1;')->send(Frame::DATA, 'return 2;');
        $heard = array_map(fn () => $peer->expect(Frame::DATA)->payload, range(1, 4));
        self::assertEqualsCanonicalizing(['1', '2', 'from the channel', '["return 1;","return 2;",true]'], $heard);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_message_is_in_a_channel_once_even_if_its_node_moves_to_the_worker_that_has_it(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], self::ASK);
        [[$peer], [$stranger, $strangeId]] = $this->nodesOfTwoWorkers($server);
        $peer->send(Frame::DATA, "
            \$channel = current(\$server->getChannelScheduler()->getNodeChannels('$strangeId'));
            \$server->every(0.02, function () use (\$channel) {
                static \$got = [];
                while (\$channel->getRecvQueueSize() > 0) { \$got[] = \$channel->recv(1); }
                file_put_contents('got.new', json_encode(\$got));
                rename('got.new', 'got');
            });
            return 'watches';")->expect(Frame::DATA);
        $said = [
            'if (!is_file("hung")) { touch("hung"); say("hangs", getmypid()); while (true) { usleep(10000); } } return 0;',
            ...array_map(fn (int $number) => "return $number;", range(1, 30)),
        ];
        foreach ($said as $code) {
            $stranger->send(Frame::DATA, $code);
        }
        [$pid] = $server->next('hangs');
        $got = fn () => json_decode((string) @file_get_contents("{$server->app->folder}/got"));
        $this->until(fn () => $got() === $said, 'the channel has them, though the worker of the node hangs');
        posix_kill($pid, SIGKILL);
        foreach (range(0, 30) as $number) {
            self::assertSame((string) $number, $stranger->expect(Frame::DATA, 30)->payload);
        }
        $server->untilAllIsTold();
        unlink("{$server->app->folder}/got");
        $this->until(fn () => $got() !== null, 'the channel is looked into once more');
        self::assertSame($said, $got());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_event_tells_numbers_inside_of_callbacks_only(string $workerman): void
    {
        $server = ServerApp::start($workerman, [], '
            say_events($server, "register");
            $server->on("data", fn () => say("event", $server->event()));
            $server->on("start", fn () => say("in start", $server->event()));');
        self::assertSame([[]], $server->next('in start'));
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x')->send(Frame::DATA, 'y');
        [[$first], [$second]] = [$server->next('event'), $server->next('event')];
        self::assertSame(['sequence' => $first['sequence'], 'redelivered' => false], $first);
        self::assertSame($first['sequence'] + 1, $second['sequence']);
        self::assertSame([], $server->process->ask('return $server->event();'));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_timers_run_in_every_worker(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], '$server->every(0.02, fn () => say("tick", getmypid()));');
        $this->until(fn () => count(array_unique(array_column($server->process->said('tick'), 0))) === 2, 'both tick');
        self::assertEqualsCanonicalizing($server->phpWorkers(), array_values(array_unique(array_column($server->process->said('tick'), 0))));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_engine_s_process_has_the_threads_and_the_workers_have_none(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2]);
        $threads = fn (int $pid): array => array_map(fn (string $file) => trim((string) @file_get_contents($file)), glob("/proc/$pid/task/*/comm"));
        $this->until(fn () => array_diff(['heartbus-io-0', 'heartbus-rt'], $threads($server->engine())) === [], 'they have named themselves');
        foreach ([...$server->phpWorkers(), $server->app->master()] as $pid) {
            self::assertCount(1, $threads($pid));
        }
        self::assertSame(2, $server->counter('dispatch_workers'));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_without_php_workers_engine_and_callbacks_share_a_process_as_before(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 0]);
        [$pid] = $server->next('start');
        self::assertSame([$pid], $server->app->workers());
        self::assertSame([$pid, 0], [$server->engine(), $server->counter('dispatch_workers')]);
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x')->send(Frame::DATA, 'y');
        $this->until(fn () => count($server->notes()) === 2, 'they are told');
        self::assertSame([[false, $pid], [false, $pid]], array_map(fn (array $note) => [$note[3], $note[4]], $server->notes()));
        self::assertSame(1, $server->notes()[1][2] - $server->notes()[0][2]);
        self::assertTrue($server->bus()->sendTo('a', 'over the bus'));
        self::assertSame('over the bus', $peer->expect(Frame::DATA)->payload);
        // Everything is replaced: clients are told.
        $server->command('reload');
        $peer->expectError(503, 'Server is shutting down');
        $peer->expectClosed();
        self::assertNotSame($pid, $server->next('start')[0]);
        $server->command('stop');
        self::assertSame(0, $server->process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_server_with_nothing_to_call_runs_the_engine_alone(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        [$port, $socket] = [Port::free(), "$app->folder/bus.sock"];
        $app->write('server.php', "(new HeartbeatServer('127.0.0.1', $port, ['bus' => '$socket']))->start();");
        $process = $app->php('server.php', 'start');
        // Workerman's master makes the file as well, for a moment: to see whether it can be made.
        $this->until(function () use ($socket, &$bus, &$pid): bool {
            try {
                $bus = \Heartbus\Bus::connect($socket, 10.0);
                $pid = $bus->stats()['server']['pid'];
                return true;
            } catch (\Heartbus\Exception\IoException) {
                return false;
            }
        }, 'it is up', 20);
        self::assertSame([$pid], $app->workers());
        $peer = Peer::served($port);
        $peer->register('a');
        self::assertTrue($bus->sendTo('a', 'hello'));
        self::assertSame('hello', $peer->expect(Frame::DATA)->payload);
        // There is nothing that a reload could replace.
        $app->command('server.php', 'reload');
        $peer->beat();
        $app->command('server.php', 'stop');
        $peer->expectError(503, 'Server is shutting down');
        self::assertSame(0, $process->exitCode());
        self::assertFileDoesNotExist($socket);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_stop_ends_all_processes_and_tells_what_was_said_last(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], 'say_events($server, "disconnected");
            $server->on("stop", fn () => say("stop", getmypid()));');
        $workers = $server->phpWorkers();
        foreach (['a', 'b', 'c', 'd', 'e', 'f'] as $id) {
            $peers[] = $server->node($id);
        }
        self::assertStringContainsString('stop success', $server->command('stop'));
        foreach ($peers as $peer) {
            $peer->expectError(503, 'Server is shutting down');
            $peer->expectClosed();
        }
        self::assertSame(0, $server->process->exitCode());
        self::assertEqualsCanonicalizing([['a'], ['b'], ['c'], ['d'], ['e'], ['f']], $server->process->said('disconnected'), 'each is told once');
        self::assertEqualsCanonicalizing($workers, array_column($server->process->said('stop'), 0));
        self::assertFileDoesNotExist($server->socket);
        foreach ($workers as $pid) {
            self::assertFalse(posix_kill($pid, 0));
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_graceful_stop_waits_for_the_connections_with_callbacks_as_before(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], ServerApp::NOTE . 'say_events($server, "stop");');
        $peer = $server->node('a');
        $stop = $server->app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($server->port), 'nobody is let in');
        Wait::pass(0.5);
        self::assertTrue($stop->isRunning(), $stop->transcript());
        $peer->send(Frame::DATA, 'x');
        $this->until(fn () => count($server->notes()) === 1, 'callbacks run');
        $peer->beat();
        self::assertSame([], $server->process->said('stop'));
        $peer->finish();
        self::assertSame(0, $stop->exitCode());
        self::assertSame(0, $server->process->exitCode());
        self::assertCount(2, $server->process->said('stop'));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_status_has_a_row_for_the_engine_and_one_for_each_worker(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2, 'name' => 'fleet']);
        for ($number = 0; $number < 3; $number++) {
            $server->node("n$number");
        }
        [$first, $second] = $server->phpWorkers();
        $expected = [
            [$server->engine(), "tcp://127.0.0.1:$server->port", 'fleet', 3, 3],
            [$first, 'none', 'fleet-php', 0, 0],
            [$second, 'none', 'fleet-php', 0, 0],
        ];
        sort($expected);
        $this->untilShown($server, 'status', function (string $status) use ($expected): bool {
            preg_match_all('/^(\d+)\t\S+\s+(\S+)\s+(fleet(?:-php)?)\s+(\d+)\s+\d+\s+\d+\s+(\d+)\s+\d+\s+\[idle\]/m', $status, $rows, PREG_SET_ORDER);
            $rows = array_map(fn (array $row) => [(int) $row[1], $row[2], $row[3], (int) $row[4], (int) $row[5]], $rows);
            sort($rows);
            return $rows === $expected;
        });
        $this->untilShown($server, 'connections', fn (string $shown): bool => preg_match_all('/^' . $server->engine() . '\s+fleet\s/m', $shown) === 3);
    }

    public function test_more_than_one_worker_needs_workerman(): void
    {
        foreach (['native', 'auto', 'manual'] as $loop) {
            $process = $this->script('
                try {
                    (new HeartbeatServer("127.0.0.1", ' . Port::free() . ", ['loop' => '$loop', 'php_workers' => 2]))->start();
                } catch (Heartbus\Exception\ConfigException \$e) { say('refused', \$e->getMessage()); }");
            self::assertSame(["'php_workers' => 2 or more needs Workerman, which runs the workers"], $process->next('refused'));
            self::assertSame(0, $process->exitCode());
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_more_than_one_worker_is_refused_inside_of_a_worker(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $app->write('app.php', '
            $worker = new Worker();
            $worker->onWorkerStart = function () {
                try {
                    (new HeartbeatServer("127.0.0.1", ' . Port::free() . ', ["php_workers" => 2]))->start();
                } catch (Heartbus\Exception\ConfigException $e) { say("refused", $e->getMessage()); }
            };
            Worker::runAll();');
        self::assertStringContainsString("'php_workers' => 2", $app->php('app.php', 'start')->next('refused')[0]);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_workers_without_a_bus_are_refused_and_a_server_in_one_process_needs_none(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $refused = ServerApp::at($app, $port, ['bus' => false, 'php_workers' => 1], ServerApp::NOTE)->process;
        self::assertSame(255, $refused->exitCode(), $refused->transcript());
        $this->until(fn () => str_contains($refused->output() . $refused->errors() . @file_get_contents("$app->folder/workerman.log"),
            "'bus' => false leaves no way to PHP workers: it needs 'php_workers' => 0"), 'it is told');
        $server = ServerApp::at($app, $port, ['bus' => false, 'php_workers' => 0], ServerApp::NOTE)->process;
        $server->next('start');
        Peer::connect($port)->register('a');
        $descriptors = array_map(fn (string $file) => (string) @readlink($file), glob("/proc/{$app->workers()[0]}/fd/*"));
        self::assertNotSame([], $descriptors);
        self::assertSame([], glob("$app->folder/*.sock"));
    }

    /** @dataProvider wrongSettings */
    public function test_wrong_settings_are_refused(array $config, string $text): void
    {
        try {
            new \PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer('127.0.0.1', 9501, $config);
            self::fail('it was taken');
        } catch (\RuntimeException $error) {
            self::assertSame("Configuration validation failed: $text", $error->getMessage());
        }
    }

    public static function wrongSettings(): array
    {
        return [
            [['php_workers' => -1], 'php_workers must be an integer >= 0'],
            [['php_workers' => '2'], 'php_workers must be an integer >= 0'],
            [['php_workers' => 257], 'php_workers should not exceed 256'],
            [['name' => 'a/b'], 'name must have 1 to 64 letters, digits, dots, dashes or underscores: a/b'],
            [['name' => str_repeat('a', 65)], 'name must have 1 to 64 letters, digits, dots, dashes or underscores: ' . str_repeat('a', 65)],
            [['bus' => 'relative.sock'], 'bus must be the absolute path of a socket, or false'],
            [['bus' => true], 'bus must be the absolute path of a socket, or false'],
            [['inbox_policy' => 'newest'], "inbox_policy must be one of 'reject', 'drop_oldest'"],
            [['bus_group' => ['www-data']], 'bus_group must be of type string, array given'],
        ];
    }

    /** @return array{0: array{0: Peer, 1: string}, 1: array{0: Peer, 1: string}} two nodes of different workers, with their ids */
    private function nodesOfTwoWorkers(ServerApp $server): array
    {
        $byWorker = [];
        for ($number = 0; $number < 40 && count($byWorker) < 2; $number++) {
            $peer = $server->node("n$number");
            $byWorker[$peer->send(Frame::DATA, 'return getmypid();')->expect(Frame::DATA)->payload] ??= [$peer, "n$number"];
        }
        self::assertCount(2, $byWorker);
        return array_values($byWorker);
    }

    /** Asks again until the answer is right: a process that is late with its part is left out of it. */
    private function untilShown(ServerApp $server, string $command, callable $isRight): void
    {
        $shown = '';
        Wait::until(function () use ($server, $command, $isRight, &$shown): bool {
            return $isRight($shown = $server->command($command));
        }, "'$command' shows it", 30, function () use (&$shown): string {
            return $shown;
        });
    }

    private function listens(int $port): bool
    {
        $probe = @stream_socket_client("tcp://127.0.0.1:$port");
        return $probe && fclose($probe);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installationsAndWorkers */
    public function test_what_a_callback_sets_of_a_node_every_worker_sees_and_the_next_callback_too(string $workerman, int $workers): void
    {
        // The library's FAQ builds rooms like this.
        $server = ServerApp::start($workerman, ['php_workers' => $workers], '
            $server->on("start", fn () => say("start", $server->workerId(), getmypid()));
            $server->on("register", function (Node $node) use ($server) {
                $server->getNodeManager()->getNode($node->id)->setMetadata("room", "blue");
                $server->getNodeManager()->getNode($node->id);
            });
            // Maybe described before the room was set: it came with the registration.
            $server->on("data", fn (Node $node, string $payload) => say("data", $payload, $node->getMetadata("room"), $node->getMetadata("from")));
            function rooms(HeartbeatServer $server): array {
                $found = [];
                foreach ($server->getNodeManager()->getAllNodes() as $node) { $found[$node->id] = $node->getMetadata("room"); }
                ksort($found);
                return $found;
            }
            $server->every(0.05, fn () => say("rooms", $server->workerId(), rooms($server)));');
        $ids = [];
        for ($worker = 0; $worker < $workers; $worker++) {
            [$ids[], $pids[]] = $server->next('start');
        }
        self::assertEqualsCanonicalizing(range(0, $workers - 1), $ids);
        foreach (['a', 'b', 'c'] as $id) {
            $peer = Peer::connect($server->port);
            $peer->bytes(Frame::registration($id, ['from' => 'node']) . Frame::bytes(Frame::DATA, $id));
            $peer->expect(Frame::REGISTER);
            self::assertSame([$id, 'blue', 'node'], $server->next('data'));
            $peer->expectSilence();
        }
        $expected = ['a' => 'blue', 'b' => 'blue', 'c' => 'blue'];
        foreach ($ids as $id) {
            $this->until(fn () => in_array([$id, $expected], $server->process->said('rooms'), true), "worker $id sees all rooms");
        }
        self::assertCount(3, $server->bus()->nodes(['metadata' => ['room' => 'blue']])['nodes']);
        // The number stays with the place, whoever takes it.
        $server->command('reload');
        $after = [];
        for ($worker = 0; $worker < $workers; $worker++) {
            [$after[], $newcomers[]] = $server->next('start');
        }
        self::assertEqualsCanonicalizing($ids, $after);
        self::assertSame([], array_intersect($pids, $newcomers));
        self::assertSame('blue', $server->bus()->node('a')->getMetadata('room'), 'a reload loses nothing');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installationsAndWorkers */
    public function test_metrics_of_a_worker_are_the_engine_s(string $workerman, int $workers): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => $workers], '
            $server->every(0.05, fn () => say("metrics", PfinalClub\AsyncioHeartbeat\Utils\Metrics::getInstance()->export(),
                json_decode(PfinalClub\AsyncioHeartbeat\Utils\Metrics::getInstance()->exportJson(), true)["uptime"]));');
        $server->node('a')->beat();
        $number = fn (string $text, string $name): float => (float) preg_replace("/.*^$name (\\S+)$.*/ms", '$1', $text);
        // A worker that has just begun does not begin to count.
        $this->until(fn () => $server->counter('uptime_seconds') >= 2, 'the engine has run for a while');
        $server->command('reload');
        $said = count($server->process->said('metrics'));
        $this->until(fn () => count($server->process->said('metrics')) > $said + 10 * $workers, 'the new workers export theirs');
        foreach (array_slice($server->process->said('metrics'), -$workers) as [$text, $uptime]) {
            self::assertGreaterThanOrEqual(2, $number($text, 'heartbeat_uptime_seconds'));
            self::assertLessThanOrEqual($server->counter('uptime_seconds'), $number($text, 'heartbeat_uptime_seconds'));
            self::assertGreaterThanOrEqual(2, $uptime);
            self::assertSame([1.0, 1.0, 1.0], array_map(fn (string $name) => $number($text, $name), ['heartbeat_nodes_online', 'heartbeat_received_total', 'heartbeat_connections_active']));
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_logger_that_is_set_in_the_start_event_gets_the_engine_s_messages_too(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['log' => 'logger', 'php_workers' => 2], '
            $server->on("start", function () {
                PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
                    public function log($level, $message, array $context = []): void { say("log", getmypid(), $level, $message, $context); }
                });
                say("start", getmypid());
            });');
        $pids = [$server->next('start')[0], $server->next('start')[0]];
        $lines = fn (string $message): array => array_values(array_filter($server->process->said('log'), fn (array $line) => $line[2] === $message));
        // From before there was a worker, too.
        $this->until(fn () => $lines('HeartbeatServer starting') !== [], 'the first message arrives');
        $peer = $server->node('a');
        $peer->send(99)->expectSilence();
        $this->until(fn () => $lines('Unknown message type: 99') !== [], 'a warning arrives');
        [[$pid, $level, , $context]] = $lines('Node registered');
        self::assertContains($pid, $pids);
        self::assertSame(['info', 'a'], [$level, $context['node_id']]);
        self::assertSame('warning', $lines('Unknown message type: 99')[0][1]);
        // Whatever happens while the workers are replaced goes to those who come.
        $server->command('reload');
        $server->node('b');
        $newcomers = [$server->next('start')[0], $server->next('start')[0]];
        $this->until(fn () => count($lines('Node registered')) === 2, 'nothing is lost');
        $server->node('c');
        $this->until(fn () => count($lines('Node registered')) === 3, 'it goes on');
        self::assertContains($lines('Node registered')[2][0], $newcomers);
        foreach (['HeartbeatServer starting', 'Unknown message type: 99'] as $message) {
            self::assertCount(1, $lines($message), 'each message is logged once');
        }
        self::assertStringNotContainsString('Node registered', preg_replace('/^@.*$/m', '', $server->process->output()), 'and nowhere else');
    }
}
