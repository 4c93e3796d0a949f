<?php

namespace Heartbus\Tests\Workerman;

use Heartbus\Tests\{FakeServer, Frame, Library, Peer, PhpProcess, Port, TestCase, Wait, WorkermanApp};

/** Workerman's commands on a native server: what they print, what they wait for, and how the processes end. */
final class CommandsTest extends TestCase
{
    private const EVENTS = 'say_events($server, "start", "stop", "unregister", "disconnected");';

    /** @return array<string, array{0: string, 1: int}> every Workerman, with the callbacks beside the engine's process and in it */
    public static function modes(): array
    {
        $sets = [];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            $sets["$name, one PHP worker"] = [$folder, 1];
            $sets["$name, all in one process"] = [$folder, 0];
        }
        return $sets;
    }

    /** @dataProvider modes */
    public function test_status_shows_the_engine_s_connections_and_requests(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $server] = $this->serve($workerman, $phpWorkers);
        $status = fn (): array => $this->status($app, 1 + $phpWorkers);
        self::assertSame(["tcp://127.0.0.1:$port", 'HeartbeatServer', 0, 0, 0], $status());
        for ($i = 0; $i < 3; $i++) {
            $peers[$i] = Peer::connect($port);
            $peers[$i]->register("n$i");
        }
        $peers[0]->beat();
        $peers[0]->send(Frame::DATA, 'x')->expectSilence();
        $quiet = Peer::connect($port);
        $quiet->expectSilence();
        // 3 registrations, 1 heartbeat, 1 message, 2 pings.
        self::assertSame(["tcp://127.0.0.1:$port", 'HeartbeatServer', 4, 0, 7], $status());
        $peers[0]->close();
        $server->next('disconnected');
        $this->until(fn () => $server->ask('return $server->getStats();')['connections']['active_connections'] === 3, 'the connection is gone');
        self::assertSame(["tcp://127.0.0.1:$port", 'HeartbeatServer', 3, 0, 7], $status(), 'it counts anew each time');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_status_counts_timers_and_outgoing_connections_as_workerman_does_its_own(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        [$port, $elsewhere] = [Port::free(), FakeServer::listen()];
        $app->write('server.php', "
            \$worker = new Worker();
            \$worker->name = 'mine';
            \$worker->onWorkerStart = function () {
                \$server = new HeartbeatServer('127.0.0.1', $port);
                Workerman\Timer::add(60, fn () => null);
                \$server->every(60, fn () => null);
                \$kept = \$server->every(60, fn () => null);
                \$server->cancel(\$server->every(60, fn () => null));
                \$server->start();
                \$client = new HeartbeatClient('127.0.0.1', {$elsewhere->port}, ['heartbeat_interval' => 60]);
                \$client->on('register', fn () => say('ready'));
                \$client->connect();
            };
            Worker::runAll();");
        $process = $app->php('server.php', 'start');
        $outgoing = $elsewhere->register();
        $process->next('ready');
        $shown = function () use ($app): array {
            [[$row]] = $this->show($app, 'status', '/^\d+\t\S+\s+\S+\s+mine\s+(\d+)\s+\d+\s+(\d+)\s/m', 1);
            return [(int) $row[1], (int) $row[2]];
        };
        // One timer of Workerman's and two of ours; nobody's connection but ours that goes out.
        self::assertSame([1, 3], $shown());
        self::assertSame([1, 3], $shown(), 'nothing stays behind');
        $peer = Peer::connect($port);
        $peer->register('a');
        self::assertSame([2, 3], $shown());
        // A graceful stop waits for those who came, not for ours.
        $stop = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($port), 'nobody is let in');
        $peer->finish();
        self::assertSame(0, $stop->exitCode());
        self::assertSame(0, $process->exitCode());
        unset($outgoing);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_server_in_a_worker_of_the_application_s_own_is_counted_with_that_worker(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        [$port, $text] = [Port::free(), Port::free()];
        $app->write('server.php', "
            \$worker = new Worker('text://127.0.0.1:$text');
            \$worker->name = 'mine';
            \$worker->onMessage = fn (\$connection, \$line) => \$connection->send(\$line);
            \$worker->onWorkerStart = function () {
                \$server = new HeartbeatServer('127.0.0.1', $port);
                \$server->start();
                say('ready');
            };
            Worker::runAll();");
        $process = $app->php('server.php', 'start');
        $process->next('ready');
        $node = Peer::connect($port);
        $node->register('a');
        $line = stream_socket_client("tcp://127.0.0.1:$text");
        fwrite($line, "hello\n");
        self::assertSame("hello\n", fgets($line));
        self::assertSame(["text://127.0.0.1:$text", 'mine', 2, 0, 2], $this->status($app, 1));
        self::assertSame(['mine', 'mine'], array_column($this->connections($app, 2), 'Worker'));
        // A graceful stop waits for both kinds.
        $stop = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($port), 'nobody is let in');
        stream_socket_shutdown($line, STREAM_SHUT_RDWR);
        Wait::pass(0.3);
        self::assertTrue($stop->isRunning());
        $node->beat();
        $node->finish();
        self::assertSame(0, $stop->exitCode());
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider modes */
    public function test_connections_shows_a_row_for_each(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $server] = $this->serve($workerman, $phpWorkers);
        self::assertSame([], $this->connections($app, 0));
        $peer = Peer::connect($port);
        $peer->register('a');
        $half = Peer::connect($port);
        $read = fn (): int => $server->ask('return $server->getStats();')['engine']['bytes_in'];
        $before = $read();
        $half->bytes(substr(Frame::bytes(Frame::DATA, str_repeat('x', 5000)), 0, 3000));
        $this->until(fn () => $read() === $before + 3000, 'it is read');
        $rows = $this->connections($app, 2);
        foreach ($rows as $row) {
            self::assertSame((string) $app->workers()[0], $row['PID']);
            self::assertSame(['HeartbeatServer', 'tcp', 'heartbeat', '1', '0'],
                [str_replace('HeartbeatSer..', 'HeartbeatServer', $row['Worker']), $row['Trans'], $row['Protocol'], $row['ipv4'], $row['ipv6']]);
            self::assertSame(["127.0.0.1:$port", 'ESTABLISHED'], [$row['Local'], $row['Status']]);
            self::assertMatchesRegularExpression('/^127\.0\.0\.1:\d+$/', $row['Foreign']);
        }
        self::assertEqualsCanonicalizing(['0B', '2.9KB'], array_column($rows, 'Recv-Q'));
        $read = array_column($rows, 'Bytes-R', 'Recv-Q');
        self::assertSame('2.9KB', $read['2.9KB']);
        self::assertMatchesRegularExpression('/^1\d\dB$/', array_column($rows, 'Bytes-W', 'Recv-Q')['0B']);
        $peer->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_connections_shows_the_first_thousand(string $workerman): void
    {
        [$app, $port, $server] = $this->serve($workerman, 1);
        for ($i = 0; $i < 1100; $i++) {
            $peers[] = Peer::connect($port);
        }
        $this->until(fn () => $server->ask('return $server->getStats();')['engine']['connections_active'] === 1100, 'all are accepted');
        $rows = $this->connections($app, 1000);
        self::assertCount(1000, array_unique(array_column($rows, 'Foreign')));
        self::assertSame(1100, $this->status($app, 2)[2]);
    }

    /** @dataProvider modes */
    public function test_stop_tells_every_client_and_ends_everything(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $server] = $this->serve($workerman, $phpWorkers);
        $peer = Peer::connect($port);
        $peer->register('a');
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop'));
        $peer->expectError(503, 'Server is shutting down');
        $peer->expectClosed();
        self::assertSame(0, $server->exitCode());
        self::assertCount(1, $server->said('stop'));
        self::assertSame(0, $app->master());
    }

    /** @dataProvider modes */
    public function test_a_graceful_stop_waits_for_the_connections_and_lets_nobody_in(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $server] = $this->serve($workerman, $phpWorkers, '$server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, "echo $payload"));');
        $peers = [Peer::connect($port), Peer::connect($port)];
        $peers[0]->register('a');
        $peers[1]->register('b');
        $command = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($port), 'nobody is let in');
        Wait::pass(1.5);
        self::assertTrue($command->isRunning(), $command->transcript());
        $peers[0]->beat();
        $peers[0]->send(Frame::DATA, 'x');
        self::assertSame('echo x', $peers[0]->expect(Frame::DATA)->payload, 'callbacks run as before');
        // Not closed: the process of the command has inherited the descriptor.
        $peers[0]->finish();
        self::assertSame(['a'], $server->next('disconnected'));
        Wait::pass(0.5);
        $peers[1]->beat();
        self::assertTrue($command->isRunning(), $command->transcript());
        self::assertSame([], $server->said('stop'));
        $peers[1]->send(Frame::UNREGISTER);
        self::assertSame(['b'], $server->next('unregister'));
        $peers[1]->finish();
        self::assertSame(0, $command->exitCode());
        self::assertStringContainsString('stop success', $command->output());
        self::assertSame(0, $server->exitCode());
        self::assertSame([['a']], $server->said('disconnected'));
        self::assertSame([['b']], $server->said('unregister'));
        self::assertCount(1, $server->said('stop'));
    }

    /** @dataProvider modes */
    public function test_a_graceful_stop_ends_with_its_time_and_says_who_is_waited_for(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $server] = $this->serve($workerman, $phpWorkers, '', ['stop_timeout' => '1.5']);
        $stays = Peer::connect($port);
        $stays->register('stays');
        $command = $app->php('server.php', 'stop', '-g');
        $says = fn (string $text): bool => str_contains($server->errors(), $text);
        $this->until(fn () => $says('[WARNING] A graceful stop waits for connections {"connections":1,"own":0,"some":"stays (127.0.0.1:'), 'it says who is waited for');
        $stays->beat();
        self::assertTrue($command->isRunning());
        self::assertFalse($says('has waited long enough'));
        $stays->expectError(503, 'Server is shutting down');
        $stays->expectClosed();
        self::assertTrue($says('[WARNING] A graceful stop has waited long enough: these connections are closed {"connections":1,"own":0,"some":"stays ('));
        self::assertSame(0, $command->exitCode(20));
        self::assertSame(0, $server->exitCode(20));
        self::assertSame([['stays']], $server->said('disconnected'), 'the callbacks are told');
        self::assertCount(1, $server->said('stop'));
    }

    /** @dataProvider modes */
    public function test_a_connection_that_a_worker_holds_to_others_does_not_hold_up_a_graceful_stop_for_ever(string $workerman, int $phpWorkers): void
    {
        $other = stream_socket_server('tcp://127.0.0.1:0');
        $address = stream_socket_get_name($other, false);
        [$app, , $server] = $this->serve($workerman, $phpWorkers, "
            \$server->on('start', function () {
                \$GLOBALS['connection'] = new Workerman\Connection\AsyncTcpConnection('tcp://$address');
                \$GLOBALS['connection']->onConnect = fn () => say('connected');
                \$GLOBALS['connection']->connect();
            });", ['stop_timeout' => 1]);
        $kept = stream_socket_accept($other);
        $server->next('connected');
        $command = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => str_contains($server->errors(), 'A graceful stop waits for connections {"connections":0,"own":1'), 'it says that it waits');
        self::assertSame(0, $command->exitCode(30));
        self::assertSame(0, $server->exitCode(20));
        self::assertStringContainsString('A graceful stop has waited long enough', $server->errors());
        fclose($kept);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_zero_waits_without_end_and_wrong_times_are_refused(string $workerman): void
    {
        [$app, $port, $server] = $this->serve($workerman, 1, '', ['stop_timeout' => 0]);
        $peer = Peer::connect($port);
        $peer->register('a');
        $command = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($port), 'nobody is let in');
        Wait::pass(2);
        $peer->beat();
        self::assertTrue($command->isRunning());
        $peer->finish();
        self::assertSame(0, $command->exitCode(20));
        self::assertSame(0, $server->exitCode(20));
        foreach ([-1, 'soon', NAN] as $wrong) {
            try {
                new \PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer('127.0.0.1', 9501, ['stop_timeout' => $wrong]);
                self::fail('not refused');
            } catch (\RuntimeException $error) {
                self::assertStringContainsString('stop_timeout must be a number of seconds, or 0 for none', $error->getMessage());
            }
        }
    }

    /** @dataProvider modes */
    public function test_the_processes_of_a_server_are_the_user_s_and_the_group_s_that_it_names(string $workerman, int $phpWorkers): void
    {
        $this->needRoot();
        [$nobody, $group] = [posix_getpwnam('nobody')['uid'], posix_getgrnam('www-data')['gid']];
        foreach ([['user' => 'nobody', 'group' => 'www-data'], ['user' => $nobody, 'group' => (string) $group]] as $identity) {
            $app = WorkermanApp::make($workerman);
            // Others must be able to read the application, and the extension: theirs is loaded already.
            chmod(dirname($app->folder), 0755);
            chmod($app->folder, 0777);
            $port = Port::free();
            $config = $identity + ['php_workers' => $phpWorkers, 'worker_count' => 1, 'name' => 'heartbus-tests-' . getmypid()];
            $app->write('server.php', sprintf('$server = new HeartbeatServer("127.0.0.1", %d, %s);
                $server->on("start", fn () => say("start", posix_getuid(), posix_getgid()));
                $server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, strrev($payload)));
                $server->start();', $port, var_export($config, true)));
            $process = $app->php('server.php', 'start');
            self::assertSame([$nobody, $group], $process->next('start', 20));
            foreach ($app->workers() as $pid) {
                self::assertMatchesRegularExpression("/^Uid:\t$nobody\t$nobody\t.*^Gid:\t$group\t$group\t/ms", file_get_contents("/proc/$pid/status"));
            }
            self::assertMatchesRegularExpression("/^Uid:\t0\t0\t.*^Gid:\t0\t0\t/ms", file_get_contents("/proc/{$app->master()}/status"), 'the master is still root');
            $peer = Peer::served($port);
            $peer->register('a');
            self::assertSame('olleh', $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload);
            // Its socket is where that user may have it, and root finds it.
            $socket = \Heartbus\Bus::connect($config['name'], 10.0)->getSocket();
            self::assertSame($nobody, fileowner($socket));
            $app->command('server.php', 'stop');
            self::assertSame(0, $process->exitCode(20));
            self::assertFileDoesNotExist($socket);
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_what_that_user_may_not_do_is_told_before_anything_starts(string $workerman): void
    {
        $this->needRoot();
        $app = WorkermanApp::make($workerman);
        chmod($app->folder, 0755);
        $faults = [
            [['user' => 'nobody-has-this-name'], 'user: there is no user nobody-has-this-name'],
            [['group' => 'nobody-has-this-group'], 'group: there is no group nobody-has-this-group'],
            [['user' => 'nobody', 'bus' => "$app->folder/bus.sock"], "Cannot open the bus socket $app->folder/bus.sock: Permission denied"],
            [['user' => 'nobody', 'log_file' => "$app->folder/server.log"], 'Cannot open log_file'],
            [['bus_group' => 'nobody-has-this-group'], 'bus_group: there is no group nobody-has-this-group'],
            [['bus' => "$app->folder/missing/bus.sock"], "Cannot open the bus socket $app->folder/missing/bus.sock: No such file or directory"],
        ];
        foreach ($faults as [$config, $message]) {
            $app->write('server.php', sprintf('$server = new HeartbeatServer("127.0.0.1", %d, %s); $server->on("start", fn () => say("start")); $server->start();',
                Port::free(), var_export($config, true)));
            $process = $app->php('server.php', 'start');
            self::assertSame(255, $process->exitCode(20), $process->transcript());
            $this->until(fn () => str_contains($process->output() . $process->errors(), $message), "'$message' is told");
            self::assertSame([], $process->said('start'));
        }
        // Without Workerman nobody makes the processes.
        $process = $this->script('try { (new HeartbeatServer("127.0.0.1", 1, ["user" => "nobody", "loop" => "native"]))->start(); } catch (Throwable $e) { say("refused", $e::class, $e->getMessage()); }');
        self::assertSame(['Heartbus\Exception\ConfigException', "'user' and 'group' need Workerman, which makes the processes: this one is another user's"], $process->next('refused'));
    }

    private function needRoot(): void
    {
        if (posix_getuid() !== 0 || !posix_getpwnam('nobody') || !posix_getgrnam('www-data')) {
            self::markTestSkipped('only root can be somebody else');
        }
    }

    /** @dataProvider modes */
    public function test_a_graceful_stop_without_connections_ends_at_once(string $workerman, int $phpWorkers): void
    {
        [$app, , $server] = $this->serve($workerman, $phpWorkers);
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop', '-g'));
        self::assertSame(0, $server->exitCode());
        self::assertCount(1, $server->said('stop'));
    }

    /** @dataProvider modes */
    public function test_whoever_does_not_want_to_wait_any_longer_says_stop(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $server] = $this->serve($workerman, $phpWorkers);
        $peer = Peer::connect($port);
        $peer->register('a');
        $patient = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($port), 'the graceful stop has begun');
        self::assertTrue($patient->isRunning());
        $app->command('server.php', 'stop');
        $peer->expectError(503, 'Server is shutting down');
        $peer->expectClosed();
        self::assertSame(0, $patient->exitCode());
        self::assertSame(0, $server->exitCode());
        self::assertCount(1, $server->said('stop'));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_reload_replaces_the_engine_where_it_shares_its_process_with_the_callbacks(string $workerman): void
    {
        [$app, $port, $server] = $this->serve($workerman, 0);
        [$before] = $app->workers();
        $peer = Peer::connect($port);
        $peer->register('a');
        $app->command('server.php', 'reload');
        $peer->expectError(503, 'Server is shutting down');
        $peer->expectClosed();
        $server->next('start');
        $server->next('start');
        self::assertNotSame($before, $app->workers()[0]);
        self::assertSame($server->pid(), $app->master());
        Peer::connect($port)->register('b');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_graceful_reload_waits_for_the_connections_of_such_an_engine(string $workerman): void
    {
        [$app, $port, $server] = $this->serve($workerman, 0);
        [$before] = $app->workers();
        $server->next('start');
        $peer = Peer::connect($port);
        $peer->register('a');
        $app->command('server.php', 'reload', '-g');
        $this->until(fn () => !$this->listens($port), 'the worker lets nobody in');
        Wait::pass(0.5);
        $peer->beat();
        self::assertSame([$before], $app->workers());
        $peer->close();
        $server->next('start');
        self::assertNotSame($before, $app->workers()[0]);
        Peer::connect($port)->register('b');
        self::assertSame($server->pid(), $app->master());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_start_as_a_daemon_and_restart(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "(new HeartbeatServer('127.0.0.1', $port))->start();");
        self::assertStringContainsString('start in DAEMON mode', $app->command('server.php', 'start', '-d'));
        $peer = Peer::served($port);
        self::assertStringContainsString('already running', $app->command('server.php', 'start', '-d'));
        $before = $app->master();
        $peer->register('a');
        $app->command('server.php', 'restart', '-d');
        $peer->expectError(503, 'Server is shutting down');
        Peer::served($port)->register('a');
        self::assertNotSame($before, $app->master());
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop'));
        self::assertFalse($this->listens($port));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_second_start_says_so_and_leaves_the_first_alone(string $workerman): void
    {
        [$app, $port] = $this->serve($workerman, 1);
        self::assertStringContainsString('already running', $app->command('server.php', 'start'));
        Peer::connect($port)->register('a');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_server_that_cannot_start_ends_with_an_exit_code_that_says_so(string $workerman): void
    {
        $other = $this->server();
        $faults = [
            "(new HeartbeatServer('127.0.0.1', {$other->port}))->start();" => 'Address already in use',
            "(new HeartbeatServer('127.0.0.1', 65536))->start();" => 'Invalid port: 65536',
            "(new HeartbeatServer('127.0.0.1', 9501, ['worker_count' => 0]))->start();" => 'worker_count must be >= 1',
            "(new HeartbeatServer('127.0.0.1', " . Port::free() . ", ['log_file' => '/no/such/folder/log']))->start();" => 'Cannot open log_file',
        ];
        foreach ($faults as $code => $message) {
            $app = WorkermanApp::make($workerman);
            $app->write('server.php', $code . 'say("start returned");');
            foreach ([[], ['-d']] as $mode) {
                $process = $app->php('server.php', 'start', ...$mode);
                self::assertSame(255, $process->exitCode(), $process->transcript());
                $this->until(fn () => str_contains($process->output() . $process->errors(), $message), "'$message' is told");
                self::assertSame([], $process->said('start returned'));
                $this->until(fn () => $app->master() === 0, 'no master is left');
            }
        }
        $other->node('still fine')->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_an_alarm_that_is_still_to_come_does_not_kill_a_master_that_ends(string $workerman): void
    {
        // PHP waits for this command when signals have their default action again, longer than the second to Workerman's next alarm.
        [, , $server] = $this->serve($workerman, 1, 'class Slow { public static $end; }
            Worker::$onMasterStop = fn () => Slow::$end = popen("sleep 1.5", "r");');
        $server->signal(SIGINT);
        self::assertSame(0, $server->exitCode(20), $server->transcript());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_workerman_waits_five_seconds_before_it_kills_or_longer_where_it_was_told_to(string $workerman): void
    {
        foreach ([2 => 5, 5 => 5, 7 => 7] as $told => $waited) {
            [$app, $port, $server] = $this->serve($workerman, 1, "Worker::\$stopTimeout = $told; \$server->on('start', fn () => say('waits', Worker::\$stopTimeout));");
            self::assertSame([$waited], $server->next('waits'));
            $peer = Peer::connect($port);
            $peer->register('a');
            // Long enough for what a stop takes while somebody does not close his side.
            $app->command('server.php', 'stop');
            $peer->expectError(503, 'Server is shutting down');
            self::assertSame(0, $server->exitCode());
            self::assertCount(1, $server->said('stop'));
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_other_commands_do_not_look_at_the_port(string $workerman): void
    {
        $other = $this->server();
        $app = WorkermanApp::make($workerman);
        $app->write('server.php', "(new HeartbeatServer('127.0.0.1', {$other->port}))->start();");
        foreach (['status', 'stop', 'reload', 'connections'] as $command) {
            self::assertStringContainsString('not run', $app->command('server.php', $command));
        }
        self::assertStringContainsString('Usage: php', $app->command('server.php'));
    }

    public function test_the_commands_work_on_the_fiber_loop_of_version_5(): void
    {
        $versions = array_filter(WorkermanApp::installations(), fn (string $name) => str_starts_with($name, 'Workerman 5'), ARRAY_FILTER_USE_KEY);
        if ($versions === []) {
            self::markTestSkipped('Workerman 5 is neither in vendor/ nor in a folder that HEARTBUS_WORKERMAN names');
        }
        [$app, $port, $server] = $this->serve(current($versions)[0], 1, Library::autoload('Revolt') . 'Worker::$eventLoopClass = Workerman\Events\Fiber::class;');
        $this->until(fn () => str_contains($app->command('server.php', 'status'), 'fiber'), 'the status names the loop', 30);
        $peer = Peer::connect($port);
        $peer->register('a');
        self::assertSame(["tcp://127.0.0.1:$port", 'HeartbeatServer', 1, 0, 1], $this->status($app, 2));
        $this->connections($app, 1);
        $last = Peer::connect($port);
        $last->expectSilence();
        $stop = $app->php('server.php', 'stop', '-g');
        $this->until(fn () => !$this->listens($port), 'nobody is let in');
        Wait::pass(0.3);
        $peer->beat();
        self::assertTrue($stop->isRunning());
        $peer->finish();
        self::assertSame(['a'], $server->next('disconnected'));
        $last->finish();
        self::assertSame(0, $stop->exitCode());
        self::assertSame(0, $server->exitCode());
        self::assertSame([['a']], $server->said('disconnected'));
        self::assertCount(1, $server->said('stop'));
    }

    /** @return array{0: WorkermanApp, 1: int, 2: PhpProcess} the application, the port, and the ready master */
    private function serve(string $workerman, int $phpWorkers, string $script = '', array $config = []): array
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $config += ['worker_count' => 2, 'php_workers' => $phpWorkers, 'bus' => "$app->folder/bus.sock"];
        $app->write('server.php', sprintf("\$server = new HeartbeatServer('127.0.0.1', %d, %s);\n%s\n%s\nserve(\$server);", $port, var_export($config, true),
            self::EVENTS, $script));
        $process = $app->php('server.php', 'start');
        $process->next('ready');
        return [$app, $port, $process];
    }

    /** With so many worker processes. @return array what it shows of the engine's: listening, name, connections, failed sends, requests */
    private function status(WorkermanApp $app, int $workers): array
    {
        [$rows, $output] = $this->show($app, 'status', '/^\d+\t\S+\s+(\S+)\s+(\S+)\s+(\d+)\s+(\d+)\s+\d+\s+(\d+)\s+\d+\s+\[idle\]/m', $workers);
        usort($rows, fn (array $one, array $other) => $one[2] <=> $other[2]);
        [, $listening, $name, $connections, $failed, $requests] = $rows[0];
        self::assertMatchesRegularExpression("/^Summary\\t.*\\s$connections\\s+$failed\\s+\\d+\\s+$requests\\s/m", $output);
        return [$listening, $name, (int) $connections, (int) $failed, (int) $requests];
    }

    /** @return list<array<string, string>> so many rows by the names of the columns, addresses as Local and Foreign */
    private function connections(WorkermanApp $app, int $count): array
    {
        $columns = ['PID', 'Worker', 'CID', 'Trans', 'Protocol', 'ipv4', 'ipv6', 'Recv-Q', 'Send-Q', 'Bytes-R', 'Bytes-W', 'Status', 'Local', 'Foreign'];
        [$rows, $output] = $this->show($app, 'connections', '/^\d+\s.*$/m', $count);
        self::assertStringContainsString('WORKERMAN CONNECTION STATUS', $output);
        return array_map(fn (array $row) => array_combine($columns, preg_split('/\s+/', trim($row[0]))), $rows);
    }

    /**
     * Workerman prints what its workers have written after a second or half a one: asks again while rows are missing.
     *
     * @return array{0: list<array>, 1: string} as many matches as there must be, and the whole output
     */
    private function show(WorkermanApp $app, string $command, string $row, int $count): array
    {
        for ($tries = 0; $tries < 5; $tries++) {
            $output = $app->command('server.php', $command);
            if (preg_match_all($row, $output, $rows, PREG_SET_ORDER) === $count) {
                break;
            }
        }
        self::assertCount($count, $rows, $output);
        return [$rows, $output];
    }

    private function listens(int $port): bool
    {
        $probe = @stream_socket_client("tcp://127.0.0.1:$port");
        return $probe && fclose($probe);
    }
}
