<?php

namespace Heartbus\Tests\Workerman;

use Heartbus\Tests\{Frame, Peer, Port, TestCase, WorkermanApp};

/** Several servers in one script, and a server's object in workers that are not its own. */
final class SeveralServersTest extends TestCase
{
    private const TWO = '
        foreach ([9501, 9502] as $i => $port) {
            $servers[] = $server = new HeartbeatServer("127.0.0.1", (int) $ports[$i], ["worker_count" => 1]);
            $server->on("start", fn () => say("start", $i));
            $server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, "server $i: $payload"));
        }';

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_prepared_servers_run_beside_each_other_and_beside_the_application_s_workers(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $ports = [Port::free(), Port::free()];
        $app->write('server.php', '$ports = ' . json_encode($ports) . ';' . self::TWO . '
            $worker = new Worker();
            $worker->onWorkerStart = fn () => say("worker");
            $servers[0]->prepare();
            $servers[0]->prepare();
            $servers[1]->prepare();
            Worker::runAll();');
        $process = $app->php('server.php', 'start');
        self::assertEqualsCanonicalizing([[0], [1]], [$process->next('start', 20), $process->next('start', 20)]);
        $process->next('worker');
        self::assertCount(5, $app->workers(), 'an engine and a PHP worker for each, and one of the application');
        foreach ($ports as $i => $port) {
            $peers[$i] = Peer::served($port);
            $peers[$i]->register("n$i");
            self::assertSame("server $i: hello", $peers[$i]->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload, 'its own callbacks, no others');
        }
        // Neither has a name of its own: they say which socket is whose, and each PHP worker is at its own engine.
        self::assertMatchesRegularExpression("/Two servers have the same name.*HeartbeatServer-$ports[1]\\.sock/", $process->errors());
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop'));
        foreach ($peers as $peer) {
            $peer->expectError(503, 'Server is shutting down');
        }
        self::assertSame(0, $process->exitCode(20));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_start_runs_what_others_prepared(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $ports = [Port::free(), Port::free()];
        $app->write('server.php', '$ports = ' . json_encode($ports) . ';' . self::TWO . '$servers[0]->prepare(); $servers[1]->start();');
        $process = $app->php('server.php', 'start');
        self::assertEqualsCanonicalizing([[0], [1]], [$process->next('start', 20), $process->next('start', 20)]);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_server_that_would_never_be_started_is_told_and_the_other_commands_work(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $ports = [Port::free(), Port::free()];
        $app->write('server.php', '$ports = ' . json_encode($ports) . ';' . self::TWO . '
            try { $servers[0]->start(); } catch (LogicException $e) { say("refused", $e->getMessage()); }');
        foreach (['start', 'restart'] as $command) {
            $process = $app->php('server.php', $command);
            [$message] = $process->next('refused');
            self::assertStringContainsString("the server at tcp://127.0.0.1:$ports[1] would never be started. Call prepare()", $message);
            self::assertSame(0, $process->exitCode());
            self::assertSame(0, $app->master());
        }
        foreach (['status', 'stop', 'reload'] as $command) {
            self::assertStringContainsString('not run', $app->command('server.php', $command));
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_callbacks_may_be_set_after_the_workers_were_prepared(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "
            \$server = new HeartbeatServer('127.0.0.1', $port, ['php_workers' => 2, 'bus' => '$app->folder/bus.sock']);
            \$server->prepare();
            \$server->on('start', fn () => say('start', getmypid()));
            \$server->on('data', fn (Node \$node, string \$payload) => \$server->sendTo(\$node->id, strrev(\$payload)));
            Worker::runAll();");
        $process = $app->php('server.php', 'start');
        self::assertNotSame($process->next('start', 20), $process->next('start', 20));
        $peer = Peer::served($port);
        $peer->register('a');
        self::assertSame('olleh', $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload);
    }

    public function test_prepare_is_refused_where_it_can_do_nothing(): void
    {
        $tries = [
            '(new HeartbeatServer("127.0.0.1", 1))->prepare();' => ['Heartbus\Exception\ConfigException', 'HeartbeatServer::prepare() needs Workerman: there is no class Workerman\Worker'],
            '(new HeartbeatServer("127.0.0.1", 1, ["loop" => "native"]))->prepare();' => ['LogicException', "HeartbeatServer::prepare() makes workers of Workerman: 'loop' asks for another loop"],
        ];
        foreach ($tries as $code => $refusal) {
            $process = $this->script("try { $code } catch (Throwable \$e) { say('refused', \$e::class, \$e->getMessage()); }");
            self::assertSame($refusal, $process->next('refused'));
        }
        foreach (WorkermanApp::installations() as [$workerman]) {
            $app = WorkermanApp::make($workerman);
            $app->write('server.php', '
                $worker = new Worker();
                $worker->onWorkerStart = function () {
                    try { (new HeartbeatServer("127.0.0.1", 1))->prepare(); } catch (LogicException $e) { say("refused", $e->getMessage()); }
                };
                Worker::runAll();');
            self::assertStringContainsString('Worker::runAll(), which runs already', $app->php('server.php', 'start')->next('refused', 20)[0]);
        }
    }

    // ---- the server's object elsewhere ----

    /** Asks everything of `$server` in a worker that is not one of the server's, once a device is there. */
    private const ELSEWHERE = '
        $worker = new Worker();
        $worker->name = "other";
        $worker->onWorkerStart = function () use ($server) {
            $questions = [
                "sendTo" => fn () => $server->sendTo("a", "to a"),
                "nobody" => fn () => $server->sendTo("nobody", "x"),
                "broadcast" => fn () => $server->broadcast("to all"),
                "join" => fn () => $server->join("a", "topic"),
                "publish" => fn () => $server->publish("topic", "to one")->reach,
                "subscribers" => fn () => $server->subscribers("topic"),
                "online" => fn () => $server->getNodeManager()->getOnlineNodeCount(),
                "node" => fn () => $server->getNodeManager()->getNode("a")->id,
                "nodes" => fn () => array_keys($server->getNodeManager()->getAllNodes()),
                "channel" => fn () => $server->getChannelScheduler()->getNodeMainChannel("a")->send("over its channel"),
                "stats" => fn () => $server->getStats()["nodes"]["online"],
                "recv" => fn () => $server->getChannelScheduler()->getNodeMainChannel("a")->recv(0.1),
                "monitor" => function () use ($server) { $m = new PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor($server->getNodeManager(), 1.0); $m->start(); },
                "on" => fn () => $server->on("data", fn () => say("heard in the wrong place")),
                "workerId" => fn () => $server->workerId(),
                "start" => fn () => $server->start(),
                "prepare" => fn () => $server->prepare(),
                "disconnect" => fn () => $server->disconnect("a"),
                "stop" => fn () => $server->stop(),
            ];
            stream_set_blocking(STDIN, false);
            Workerman\Timer::add(0.01, function () use ($questions) {
                foreach (explode("\n", (string) fgets(STDIN)) as $name) {
                    if (!isset($questions[$name])) { continue; }
                    try { say($name, $questions[$name]()); } catch (Throwable $e) { say($name, $e::class); }
                }
            });
            say("other", getmypid());
        };';

    private const WRONG = ['Heartbus\Exception\WrongProcessException'];

    /** @dataProvider \Heartbus\Tests\Workerman\CommandsTest::modes */
    public function test_a_server_s_object_in_another_worker_of_the_script_asks_over_the_bus(string $workerman, int $phpWorkers): void
    {
        [$app, $port, $process] = $this->elsewhere($workerman, ['php_workers' => $phpWorkers]);
        $a = Peer::served($port);
        $a->register('a');
        Peer::connect($port)->register('b');
        $ask = fn (string $question): array => $this->ask($process, $question);
        self::assertSame([true], $ask('sendTo'));
        self::assertSame('to a', $a->expect(Frame::DATA)->payload);
        self::assertSame([false], $ask('nobody'));
        self::assertSame([2], $ask('broadcast'));
        self::assertSame('to all', $a->expect(Frame::DATA)->payload);
        self::assertSame([[true], [1], [1]], [$ask('join'), $ask('publish'), $ask('subscribers')]);
        self::assertSame(['topic', 'to one'], $a->message());
        self::assertSame([2], $ask('online'));
        self::assertSame(['a'], $ask('node'));
        self::assertEqualsCanonicalizing(['a', 'b'], $ask('nodes')[0]);
        self::assertSame([true], $ask('channel'));
        self::assertSame('over its channel', $a->expect(Frame::DATA)->payload);
        self::assertSame([2], $ask('stats'));
        foreach (['recv', 'monitor', 'on', 'workerId', 'start', 'prepare'] as $question) {
            self::assertSame(self::WRONG, $ask($question), $question);
        }
        self::assertSame([true], $ask('disconnect'));
        $a->expectClosed();
        self::assertSame([null], $ask('stop'), 'any of the script\'s workers may stop it');
        $this->until(fn () => !$process->isRunning(), 'all of it ends', 30);
        self::assertSame([], $process->said('heard in the wrong place'));
        unset($app);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_without_a_bus_it_is_the_wrong_process_for_everything(string $workerman): void
    {
        [, $port, $process] = $this->elsewhere($workerman, ['php_workers' => 0, 'bus' => false]);
        Peer::served($port)->register('a');
        foreach (['sendTo', 'nobody', 'broadcast', 'join', 'publish', 'subscribers', 'online', 'node', 'nodes', 'channel', 'stats', 'disconnect'] as $question) {
            self::assertSame(self::WRONG, $this->ask($process, $question), $question);
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_so_does_one_that_was_started_in_one_of_the_application_s_own_workers(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "
            \$server = new HeartbeatServer('127.0.0.1', $port);
            \$first = new Worker();
            \$first->onWorkerStart = function () use (\$server) {
                // As before the start anywhere.
                say('alone', \$server->getNodeManager()->getNodeCount(), \$server->getStats()['nodes']['online']);
                \$server->on('start', fn () => say('started', getmypid()));
                \$server->every(60, fn () => null);
                \$server->start();
            };" . self::ELSEWHERE . 'Worker::runAll();');
        $process = $app->php('server.php', 'start');
        self::assertSame([0, 0], $process->next('alone', 20));
        $process->next('started', 20);
        $process->next('other', 20);
        $a = Peer::served($port);
        $a->register('a');
        self::assertSame([true], $this->ask($process, 'sendTo'));
        self::assertSame('to a', $a->expect(Frame::DATA)->payload);
        self::assertSame([1], $this->ask($process, 'online'));
        self::assertSame([1], $this->ask($process, 'stats'));
        foreach (['recv', 'monitor', 'workerId', 'stop'] as $question) {
            self::assertSame(self::WRONG, $this->ask($process, $question), $question);
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_timer_that_another_worker_sets_runs_there_and_no_other_does(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "
            \$server = new HeartbeatServer('127.0.0.1', $port, ['bus' => '$app->folder/bus.sock']);
            \$server->every(0.05, fn () => say('the server\\'s', getmypid()));
            \$worker = new Worker();
            \$worker->onWorkerStart = function () use (\$server) {
                say('other', getmypid());
                \$kept = \$server->every(0.05, fn () => say('its own', getmypid()));
                say('cancelled', \$server->cancel(\$server->every(0.01, fn () => say('cancelled one'))));
            };
            \$server->start();");
        $process = $app->php('server.php', 'start');
        [$other] = $process->next('other', 20);
        for ($i = 0; $i < 3; $i++) {
            self::assertSame([$other], $process->next('its own'));
            self::assertNotSame([$other], $process->next('the server\'s'));
        }
        self::assertSame([[true]], $process->said('cancelled'));
        self::assertNotContains([$other], $process->said('the server\'s'));
        self::assertSame([], $process->said('cancelled one'));
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop'));
    }

    /** @return array{0: WorkermanApp, 1: int, 2: \Heartbus\Tests\PhpProcess} */
    private function elsewhere(string $workerman, array $config): array
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $config += ['worker_count' => 1, 'bus' => "$app->folder/bus.sock"];
        $app->write('server.php', sprintf('$server = new HeartbeatServer("127.0.0.1", %d, %s);
            $server->on("start", fn () => say("start"));%s
            $server->start();', $port, var_export($config, true), self::ELSEWHERE));
        $process = $app->php('server.php', 'start');
        $process->next('start', 20);
        $process->next('other', 20);
        return [$app, $port, $process];
    }

    private function ask(\Heartbus\Tests\PhpProcess $process, string $question): array
    {
        $process->tell($question);
        return $process->next($question, 20);
    }
}
