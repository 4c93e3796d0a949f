<?php

namespace Heartbus\Tests\Examples;

use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, TestCase, WorkermanApp};

/** The examples of php-examples/ that have several processes: reload/, host.php and push.php. */
final class ProcessesTest extends TestCase
{
    private const FOLDER = __DIR__ . '/../../../php-examples';

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_reload_changes_what_the_server_says_and_nobody_is_disconnected(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        mkdir("$app->folder/reload");
        foreach (['options.php', 'reload/server.php', 'reload/handlers.php'] as $file) {
            copy(self::FOLDER . "/$file", "$app->folder/$file");
        }
        [$port, $name] = [Port::free(), 'heartbus-tests-' . getmypid()];
        $run = fn (string $command): PhpProcess => PhpProcess::file('reload/server.php', [$command, '--host', '127.0.0.1', '--port', (string) $port, '--name', $name],
            ['cwd' => $app->folder, 'ini' => ["auto_prepend_file=$app->folder/vendor/autoload.php"]]);
        $server = $run('start');
        $peer = Peer::served($port);
        $peer->register('a');
        self::assertSame('welcome to version 1', $peer->expect(Frame::DATA)->payload);
        $peer->send(Frame::DATA, 'hello');
        self::assertSame('version 1 heard: hello', $peer->expect(Frame::DATA)->payload);

        $this->until(fn () => count($app->workers()) === 3, 'all are there');
        $before = $app->workers();
        $handlers = file_get_contents("$app->folder/reload/handlers.php");
        file_put_contents("$app->folder/reload/handlers.php", str_replace('VERSION = 1', 'VERSION = 2', $handlers));
        self::assertSame(0, $run('reload')->exitCode());
        $this->until(fn () => count(array_diff($app->workers(), $before)) === 2 && count($app->workers()) === 3, 'both workers are replaced');
        $this->until(fn () => $peer->send(Frame::DATA, 'hello')->expect(Frame::DATA)->payload === 'version 2 heard: hello', 'the new code answers');
        $peer->beat();
        self::assertSame(0, $run('stop')->exitCode());
        $peer->expectError(503, 'Server is shutting down');
        self::assertSame(0, $server->exitCode());
    }

    public function test_the_host_serves_and_push_reaches_its_clients(): void
    {
        [$port, $name] = [Port::free(), 'heartbus-tests-' . getmypid()];
        $host = PhpProcess::file(self::FOLDER . '/host.php', ['--host', '127.0.0.1', '--port', (string) $port, '--name', $name]);
        [$a, $b] = [Peer::served($port), Peer::connect($port)];
        $a->register('a');
        $b->register('b');
        $push = fn (string ...$arguments): PhpProcess => PhpProcess::file(self::FOLDER . '/push.php', [...$arguments, '--socket', $name]);
        self::assertSame(0, $push('a', 'good morning, 早上好')->exitCode());
        self::assertSame('good morning, 早上好', $a->expect(Frame::DATA)->payload);
        $all = $push('*', 'all');
        self::assertSame(0, $all->exitCode());
        self::assertSame("2 nodes\n", $all->output());
        self::assertSame(['all', 'all'], [$a->expect(Frame::DATA)->payload, $b->expect(Frame::DATA)->payload]);
        $list = $push('--list');
        self::assertSame(0, $list->exitCode());
        self::assertEqualsCanonicalizing(['a', 'b'], array_map(fn (string $line) => strtok($line, "\t"), explode("\n", trim($list->output()))));
        $nobody = $push('nobody', 'x');
        self::assertSame([1, "nobody is not online\n"], [$nobody->exitCode(), $nobody->errors()]);
        $host->signal(SIGTERM);
        self::assertSame(0, $host->exitCode());
        self::assertSame('', $host->errors());
        $nowhere = $push('a', 'x');
        self::assertSame(1, $nowhere->exitCode());
        self::assertStringStartsWith('No Heartbus server at ', $nowhere->errors());
    }

    public function test_the_host_says_what_is_wrong_in_one_line(): void
    {
        $host = PhpProcess::file(self::FOLDER . '/host.php', ['--timeout', '0.5', '--port', (string) Port::free()]);
        self::assertSame(1, $host->exitCode());
        self::assertStringContainsString('heartbeat_timeout must be >= 1 second', $host->errors());
    }

    public function test_the_benchmark_of_the_workers_measures_each_of_its_parts(): void
    {
        $app = WorkermanApp::make(current(WorkermanApp::installations())[0]);
        $benchmark = PhpProcess::file(self::FOLDER . '/benchmark_workers.php', ['--events', '1000', '--calls', '20', '--seconds', '0.05'],
            ['ini' => ["auto_prepend_file=$app->folder/vendor/autoload.php"]]);
        self::assertSame(0, $benchmark->exitCode(60), $benchmark->transcript());
        $lines = ['events to one worker, 64 bytes: [\d,]+ per second; CPU for each: worker \d+\.\d\d µs, engine \d+\.\d\d µs',
            'sendTo\(\), connection kept: p50 \d+ µs, p99 \d+ µs, max \d+ µs', 'connect\(\) and sendTo\(\): p50 \d+ µs, p99 \d+ µs, max \d+ µs', 'connect\(\) and sendTo\(\) of a new process: p50 \d+ µs, p99 \d+ µs, max \d+ µs',
            'memory of an attached worker: -?\d+ KB in the engine, \d+\.\d MB of its own', 'callbacks of 100 µs, 1 worker: [\d,]+ per second',
            'callbacks of 100 µs, 2 workers: [\d,]+ per second', 'two workers do \d+\.\d\d times the work of one'];
        foreach ($lines as $line) {
            self::assertMatchesRegularExpression("/^$line\$/m", $benchmark->output());
        }
        self::assertSame('', $benchmark->errors());
    }
}
