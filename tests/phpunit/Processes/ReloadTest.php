<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{Crowd, Frame, Peer, PhpProcess, Port, ServerApp, TestCase, Wait, WorkermanApp};

/** `reload`: PHP workers are replaced beside an engine that goes on. */
final class ReloadTest extends TestCase
{
    /** @dataProvider \Heartbus\Tests\WorkermanApp::installationsAndWorkers */
    public function test_ten_reloads_cost_a_thousand_talking_clients_no_connection_no_heartbeat_and_no_message(string $workerman, int $workers): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => $workers], ServerApp::NOTE . '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                static $count = 0;
                note($server, $node, $payload);
                $count++ || say("tells", $GLOBALS["version"]);
            });');
        for ($worker = 0; $worker < $workers; $worker++) {
            self::assertSame(1, $server->next('start')[1]);
        }
        $crowd = Crowd::join($server->port, 1000);
        [$master, $engine, $known] = [$server->app->master(), $server->engine(), $server->phpWorkers()];
        self::assertCount($workers, $known);
        // A worker may leave before its first message: each version is heard of before the next one comes.
        $talk = function (int $version) use ($server, $crowd): void {
            $crowd->talk(1);
            $this->until(fn () => in_array([$version], $server->process->said('tells'), true), "version $version tells", 30);
        };
        $talk(1);
        for ($version = 2; $version <= 11; $version++) {
            $server->version($version);
            $server->command('reload');
            for ($worker = 0; $worker < $workers; $worker++) {
                [$pid, $loaded] = $server->next('start', 30);
                self::assertSame($version, $loaded, 'the worker has the code of now');
                self::assertNotContains($pid, $known);
                $known[] = $pid;
            }
            $talk($version);
        }
        $rounds = $crowd->finish();
        $this->until(fn () => $server->counter('data_in') === 1000 * $rounds, 'all have arrived', 60);
        $server->untilAllIsTold();
        self::assertSame([$master, $engine], [$server->app->master(), $server->engine()], 'these two were not replaced');
        $engine = $server->bus()->stats()['engine'];
        self::assertSame([0, 0, 0, 0, 0], [$engine['dispatch_refused'], $engine['dispatch_dropped'], $engine['dispatch_redelivered'],
            $engine['connections_closed'], $engine['nodes_timed_out']]);

        $payloads = $versions = $pids = [];
        foreach ($server->notes() as [$node, $payload, , $redelivered, $pid, $version]) {
            self::assertFalse($redelivered);
            $payloads[$node][] = (int) $payload;
            $versions[$version] = true;
            $pids[$pid] = true;
        }
        self::assertCount(1000, $payloads);
        foreach ($payloads as $node => $told) {
            self::assertSame(range(1, $rounds), $told, "what $node said, once each and in its order");
        }
        self::assertSame(range(1, 11), array_keys($versions));
        self::assertSame([], array_diff(array_keys($pids), $known));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_each_worker_is_told_start_and_stop_and_on_takes_effect_in_start(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], '
            say_events($server, "register");
            $server->on("start", function (HeartbeatServer $server) {
                $code = require getcwd() . "/code.php";
                $server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, $code($payload)));
                say("start", getmypid());
            });
            $server->on("stop", fn () => say("stop", getmypid()));
            if (!is_file("code.php")) { file_put_contents("code.php", "<?php return strtoupper(...);"); }');
        $workers = [$server->next('start')[0], $server->next('start')[0]];
        $peer = $server->node('a');
        self::assertSame('HELLO', $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload);
        $server->app->write('code.php', '<?php return strrev(...);');
        $server->command('reload');
        self::assertEqualsCanonicalizing($workers, [$server->next('stop')[0], $server->next('stop')[0]]);
        $newcomers = [$server->next('start')[0], $server->next('start')[0]];
        self::assertSame([], array_intersect($workers, $newcomers));
        self::assertSame('olleh', $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload);
        $peer->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_graceful_reload_replaces_the_workers_and_waits_for_no_connection(string $workerman): void
    {
        $server = ServerApp::start($workerman);
        [$before] = $server->next('start');
        $peer = $server->node('a');
        $server->version(2);
        $server->command('reload', '-g');
        [$pid, $version] = $server->next('start');
        self::assertNotSame($before, $pid);
        self::assertSame(2, $version);
        $peer->beat();
        $peer->send(Frame::DATA, 'x');
        $this->until(fn () => array_column($server->notes(), 1) === ['x'], 'the new worker hears');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_what_happens_while_no_worker_is_there_waits_for_the_next(string $workerman): void
    {
        // The replacement waits in its start event until it may go on.
        $server = ServerApp::start($workerman, [], ServerApp::NOTE . '
            $server->on("start", function () {
                while (is_file("wait")) { usleep(5000); clearstatcache(); }
                $GLOBALS["version"] = 0;
                say("start", getmypid(), 0);
            });');
        $server->next('start');
        $peer = $server->node('a');
        $server->app->write('wait', '');
        $server->command('reload');
        $this->until(fn () => $server->counter('dispatch_workers') === 0, 'the worker has left');
        for ($number = 1; $number <= 100; $number++) {
            $peer->send(Frame::DATA, (string) $number);
        }
        $peer->beat();
        $this->until(fn () => $server->counter('dispatch_queued_events') === 100, 'they wait');
        unlink("{$server->app->folder}/wait");
        $server->next('start');
        $this->until(fn () => count($server->notes()) >= 100, 'they are told');
        self::assertSame(array_map('strval', range(1, 100)), array_column($server->notes(), 1));
        self::assertNotContains(true, array_column($server->notes(), 3));
    }

    /** @dataProvider cachedInstallations */
    public function test_with_opcache_a_reload_runs_what_is_on_disk(string $workerman, string $checks, string $frequency): void
    {
        if (!extension_loaded('Zend OPcache')) {
            self::markTestSkipped('PHP has no opcache here');
        }
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        mkdir("$app->folder/release1");
        mkdir("$app->folder/release2");
        foreach ([1, 2] as $release) {
            file_put_contents("$app->folder/release$release/code.php", "<?php return 'release $release';");
        }
        symlink('release1', "$app->folder/current");
        // Files are told from older ones by the second in which they came.
        Wait::pass(1.1);
        $app->write('handler.php', '<?php return fn (string $payload) => strtoupper($payload);');
        // Old enough to be cached: opcache leaves files alone that are younger than two seconds.
        touch("$app->folder/handler.php", time() - 60);
        $app->write('server.php', "
            \$server = new HeartbeatServer('127.0.0.1', $port, ['bus' => '$app->folder/bus.sock', 'worker_count' => 1]);
            \$server->on('start', function (HeartbeatServer \$server) {
                \$handler = require '$app->folder/handler.php';
                \$release = require '$app->folder/current/code.php';
                \$server->on('data', fn (Node \$node, string \$payload) => \$server->sendTo(\$node->id, \$handler(\$payload)));
                say('start', isset(opcache_get_status()['scripts'][realpath('$app->folder/handler.php')]), \$release);
            });
            \$server->start();");
        $process = PhpProcess::file('server.php', ['start'], ['cwd' => $app->folder, 'ini' => ['opcache.enable_cli=1', "opcache.validate_timestamps=$checks",
            "opcache.revalidate_freq=$frequency", 'opcache.file_update_protection=0']]);
        self::assertSame([true, 'release 1'], $process->next('start', 20));
        $peer = Peer::served($port);
        $peer->register('a');
        self::assertSame('HELLO', $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload);
        foreach (['strrev' => 'olleh', 'ucfirst' => 'Hello', 'str_rot13' => 'uryyb'] as $function => $answer) {
            $app->write('handler.php', "<?php return fn (string \$payload) => $function(\$payload);");
            // As tools that keep times copy it.
            touch("$app->folder/handler.php", time() - 60);
            unlink("$app->folder/current");
            symlink('release2', "$app->folder/current");
            $app->command('server.php', 'reload');
            self::assertSame('release 2', $process->next('start', 20)[1]);
            self::assertSame($answer, $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload);
        }
        $peer->beat();
    }

    public static function cachedInstallations(): array
    {
        $sets = [];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            $sets["$name, files are looked at seldom"] = [$folder, '1', '60'];
            $sets["$name, files are never looked at"] = [$folder, '0', '2'];
        }
        return $sets;
    }
}
