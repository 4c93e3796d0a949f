<?php

namespace Heartbus\Tests\Examples;

use Heartbus\Tests\{FakeServer, Frame, Peer, PhpProcess, Port, TestCase, WorkermanApp};

/** The scripts of php-examples/, as a person runs them. */
final class ExamplesTest extends TestCase
{
    private const FOLDER = __DIR__ . '/../../../php-examples';

    /** @dataProvider scripts */
    public function test_each_explains_itself(string $script): void
    {
        $process = $this->example($script, '--help');
        self::assertSame(0, $process->exitCode());
        self::assertStringStartsWith('Usage: php ' . basename($script) . '.php', $process->output());
        self::assertStringContainsString('--help', $process->output());
        self::assertSame('', $process->errors());
    }

    /** @dataProvider scripts */
    public function test_each_refuses_what_it_does_not_know(string $script): void
    {
        // Two words are what push.php wants.
        foreach ([['--nonsense'], ['--port'], ['--port', 'http'], ['--port=9501x'], $script === 'push' ? ['alone'] : ['nonsense', 'more']] as $arguments) {
            $process = $this->example($script, ...$arguments);
            self::assertSame(2, $process->exitCode(), implode(' ', $arguments));
            self::assertStringContainsString('Usage: php', $process->errors());
        }
    }

    public static function scripts(): array
    {
        $scripts = ['server', 'client', 'gateway', 'fleet', 'stress_test', 'benchmark', 'benchmark_workers', 'chat_server', 'chat', 'host', 'push', 'reload/server', 'chat/server', 'map/server', 'map/devices'];
        return array_combine($scripts, array_map(fn (string $script): array => [$script], $scripts));
    }

    public function test_without_the_extension_each_says_how_to_load_it(): void
    {
        foreach (array_keys(self::scripts()) as $script) {
            $output = [];
            exec(escapeshellarg(PHP_BINARY) . ' ' . escapeshellarg(self::FOLDER . "/$script.php") . ' 2>&1', $output, $code);
            self::assertSame(1, $code, $script);
            self::assertStringContainsString('make build', implode("\n", $output));
        }
    }

    public function test_the_server_serves_shows_its_status_in_plain_lines_and_stops_with_zero(): void
    {
        [$server, $port] = $this->startServer();
        $this->until(fn () => str_contains($server->output(), "port $port"), 'it says where it listens');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'no echo');
        $peer->expectSilence();
        $this->until(fn () => preg_match('/^nodes online 1 \| heartbeats\/s \d+ \| messages\/s \d+ \| connections 1 \| memory \d+\.\d MB$/m', $server->output()) === 1,
            'the status line shows the node');
        self::assertStringNotContainsString("\033", $server->output());
        $server->signal(SIGINT);
        self::assertSame(0, $server->exitCode());
        $peer->expectError(503, 'Server is shutting down');
        self::assertMatchesRegularExpression('/^Stopped after \d+ s: 1 registrations, 0 heartbeats, 1 messages\.$/m', $server->output());
        self::assertSame('', $server->errors());
    }

    public function test_on_a_terminal_the_status_line_is_updated_in_place(): void
    {
        $port = Port::free();
        $command = implode(' ', array_map('escapeshellarg', [PHP_BINARY, '-d', 'extension=' . PhpProcess::extension(), self::FOLDER . '/server.php',
            '--host', '127.0.0.1', '--port', (string) $port]));
        $terminal = PhpProcess::run('passthru("script -qec " . escapeshellarg($argv[1]) . " /dev/null");', [$command]);
        $this->until(fn () => substr_count($terminal->output(), "\r\033[?7l") >= 2, 'the line is written twice in its place');
        $terminal->kill();
    }

    public function test_quiet_prints_nothing_and_echo_echoes(): void
    {
        [$server, $port] = $this->startServer('--quiet', '--echo', '--workers', '1', '--timeout', '4');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'hello');
        self::assertSame('hello', $peer->expect(Frame::DATA)->payload);
        $peer->expectClosed(20);
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
        self::assertSame('', $server->output());
        self::assertSame('', $server->errors());
    }

    /** @dataProvider badSettings */
    public function test_wrong_settings_are_told_and_end_with_one(array $arguments, string $message): void
    {
        $process = $this->example('server', ...$arguments);
        self::assertSame(1, $process->exitCode());
        self::assertStringContainsString($message, $process->errors());
    }

    public static function badSettings(): array
    {
        return [
            'timeout' => [['--timeout', '0.5'], 'heartbeat_timeout must be >= 1 second'],
            'workers' => [['--workers', '0'], 'worker_count must be >= 1'],
            'port' => [['--port', '0'], 'Invalid port: 0'],
            'host' => [['--host', '*'], 'Invalid host: *'],
        ];
    }

    public function test_a_port_in_use_is_told_in_one_line(): void
    {
        $other = FakeServer::listen();
        $process = $this->example('server', '--host', '127.0.0.1', '--port', (string) $other->port);
        self::assertSame(1, $process->exitCode());
        self::assertSame("Cannot listen on 127.0.0.1:{$other->port}: Address already in use\n", $process->errors());
    }

    public function test_the_client_registers_says_hello_and_ends_with_ctrl_c(): void
    {
        [, $port] = $this->startServer('--echo');
        $client = $this->example('client', '--port', (string) $port, '--interval', '1');
        $this->until(fn () => preg_match('/^registered as client_\w+ on channel 1$/m', $client->output()) === 1, 'it registers');
        $this->until(fn () => str_contains($client->output(), "message on channel 1: hello\n"), 'its hello comes back');
        $this->until(fn () => str_contains($client->output(), "heartbeat answered\n"), 'its heartbeat is answered');
        $client->signal(SIGINT);
        self::assertSame(0, $client->exitCode());
    }

    public function test_the_gateway_s_silent_device_leaves_alone_and_comes_back(): void
    {
        [$server, $port] = $this->startServer('--echo', '--timeout', '5');
        $gateway = $this->example('gateway', '10', '--port', (string) $port, '--interval', '0.3');
        self::assertSame(0, $gateway->exitCode(60), $gateway->transcript());
        self::assertStringStartsWith("10 devices are on the bus, over one connection\ndevice-1 falls silent\n", $gateway->output());
        self::assertStringContainsString("the server says: Node timed out: device-1 (408)\n", $gateway->output());
        self::assertStringContainsString("device-1 reports again and is back\n", $gateway->output());
        self::assertStringNotContainsString('Node timed out: gateway', $gateway->output(), 'alone');
        self::assertMatchesRegularExpression('/^\d+ readings sent, \d+ answered, 10 devices on the bus$/m', $gateway->output());
        self::assertStringEndsWith("Everything went well.\n", $gateway->output());
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
    }

    public function test_the_gateway_stays_as_long_as_its_devices_however_the_readme_starts_it(): void
    {
        // A heartbeat less often than the timeout, which is the default, would lose the gateway itself.
        [, $port] = $this->startServer('--echo', '--timeout', '2');
        $gateway = $this->example('gateway', '3', '--port', (string) $port, '--interval', '0.5');
        self::assertSame(0, $gateway->exitCode(60), $gateway->transcript());
        preg_match_all('/^the server says: (.*)$/m', $gateway->output(), $lost);
        self::assertSame(['Node timed out: device-1 (408)'], $lost[1]);
        self::assertStringContainsString(' answered, 3 devices on the bus', $gateway->output());
    }

    public function test_the_gateway_complains_when_nobody_answers_or_misses_its_device(): void
    {
        $nobody = $this->example('gateway', '3', '--port', (string) Port::free(), '--seconds', '0.5');
        self::assertSame(1, $nobody->exitCode(20));
        self::assertStringContainsString('WRONG: not all devices got onto the bus', $nobody->output());

        [, $port] = $this->startServer();
        $patient = $this->example('gateway', '3', '--port', (string) $port, '--interval', '0.1', '--seconds', '6');
        self::assertSame(1, $patient->exitCode(30));
        self::assertStringContainsString('WRONG: the server has not missed device-1', $patient->output());
    }

    public function test_the_fleet_does_its_rounds_and_says_that_all_went_well(): void
    {
        [$server, $port] = $this->startServer('--echo');
        $fleet = $this->example('fleet', '50', '--port', (string) $port, '--seconds', '7', '--interval', '3', '--echo');
        self::assertSame(0, $fleet->exitCode(40), $fleet->transcript());
        self::assertMatchesRegularExpression('/^50 clients: 50 registered, [1-9]\d* heartbeats answered, (\d+) messages sent, \1 received, /m', $fleet->output());
        self::assertStringContainsString('Everything went well.', $fleet->output());
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
        self::assertMatchesRegularExpression('/^Stopped after \d+ s: 50 registrations, /m', $server->output());
    }

    public function test_the_fleet_complains_when_something_is_wrong(): void
    {
        $nobody = $this->example('fleet', '3', '--port', (string) Port::free(), '--seconds', '0.5');
        self::assertSame(1, $nobody->exitCode(20));
        self::assertStringContainsString('WRONG: 3 clients never registered', $nobody->output());

        [, $port] = $this->startServer();
        $unanswered = $this->example('fleet', '3', '--port', (string) $port, '--seconds', '3', '--interval', '60', '--echo');
        self::assertSame(1, $unanswered->exitCode(30));
        self::assertStringContainsString('WRONG: 3 messages never came back', $unanswered->output());
    }

    public function test_the_stress_test_brings_its_own_server_and_tells_what_it_took(): void
    {
        $stress = $this->example('stress_test', '200', '--seconds', '4', '--interval', '3');
        self::assertSame(0, $stress->exitCode(60), $stress->transcript());
        self::assertStringStartsWith('200 clients, a heartbeat every 3 s from each, against a server of our own on port ', $stress->output());
        self::assertMatchesRegularExpression('/^200 of 200 clients registered in \d+\.\d s: [\d,]+ per second$/m', $stress->output());
        self::assertMatchesRegularExpression('/^[1-9]\d* heartbeats answered in the \d+\.\d s after that: \d+ per second$/m', $stress->output());
        self::assertMatchesRegularExpression('/^the server took \d+\.\d MB, -?\d+\.\d KB for each client .*, and \d+ % of one core, \d+\.\d µs for each heartbeat$/m', $stress->output());
        self::assertMatchesRegularExpression('/^it says itself: Stopped after \d+ s: 200 registrations, \d+ heartbeats, 0 messages\.$/m', $stress->output());
        self::assertStringEndsWith("Everything went well.\n", $stress->output());
        self::assertStringNotContainsString("\033", $stress->output());
        self::assertSame('', $stress->errors());
    }

    public function test_the_stress_test_takes_a_server_that_runs_already(): void
    {
        [$server, $port] = $this->startServer();
        $stress = $this->example('stress_test', '20', '--port', (string) $port, '--seconds', '0.2');
        self::assertSame(0, $stress->exitCode(30), $stress->transcript());
        self::assertStringContainsString("against 127.0.0.1 port $port\n", $stress->output());
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
        self::assertMatchesRegularExpression('/^Stopped after \d+ s: 20 registrations, /m', $server->output());
    }

    public function test_the_stress_test_raises_the_limit_of_files_and_otherwise_says_how_far_it_got(): void
    {
        $limited = fn (string $limit): PhpProcess => PhpProcess::file(self::FOLDER . '/stress_test.php', ['300', '--seconds', '0.2'],
            ['wrap' => ['sh', '-c', "ulimit $limit; exec \"\$@\"", 'sh']]);
        $raised = $limited('-S -n 200');
        self::assertSame(0, $raised->exitCode(30), $raised->transcript());
        self::assertStringContainsString("\n300 of 300 clients registered", $raised->output());

        $lowered = $limited('-n 200');
        self::assertSame(0, $lowered->exitCode(30), $lowered->transcript());
        self::assertStringStartsWith("Lowered from 300 to 63 clients: a process may have 200 files open here (ulimit -n).\n", $lowered->output());
        self::assertStringContainsString("\n63 of 63 clients registered", $lowered->output());
    }

    public function test_the_stress_test_complains_when_nobody_answers(): void
    {
        $nobody = $this->example('stress_test', '3', '--port', (string) Port::free(), '--seconds', '0.1');
        self::assertSame(1, $nobody->exitCode(20));
        self::assertStringContainsString("WRONG: 3 clients never registered\n", $nobody->output());
        self::assertStringNotContainsString('Everything', $nobody->output());

        $none = $this->example('stress_test', '0');
        self::assertSame(2, $none->exitCode());
        self::assertStringStartsWith('clients is one whole number, 1 or more', $none->errors());
    }

    public function test_a_stress_test_that_is_stopped_takes_its_server_with_it(): void
    {
        $stress = $this->example('stress_test', '5', '--seconds', '60');
        $this->until(fn () => str_contains($stress->output(), ' 5 registered'), 'all are there');
        preg_match('/on port (\d+)$/m', $stress->output(), $found);
        self::assertIsResource(@stream_socket_client("tcp://127.0.0.1:$found[1]"));
        $stress->signal(SIGTERM);
        self::assertSame(128 + SIGTERM, $stress->exitCode());
        self::assertFalse(@stream_socket_client("tcp://127.0.0.1:$found[1]"));
    }

    public function test_the_benchmark_measures_each_of_its_parts(): void
    {
        $benchmark = $this->example('benchmark', '--seconds', '0.3', '--bytes', '10');
        self::assertSame(0, $benchmark->exitCode(60), $benchmark->transcript());
        self::assertMatchesRegularExpression('/^Heartbus \S+, PHP ' . preg_quote(PHP_VERSION) . ', \d+ × .*\. Messages of 10 bytes\.$/m', $benchmark->output());
        $row = ' +[\d,]+ +\d+\.\d\d µs +\d+ % +\d+ %';
        $times = '( +\d+(\.\d)? (µs|ms)){4}';
        foreach (["heartbeats$row", "messages to PHP$row", "echoes, 1 client$row$times", "echoes, 64 clients$row$times"] as $line) {
            self::assertMatchesRegularExpression("/^$line\$/m", $benchmark->output());
        }
        self::assertSame('', $benchmark->errors());
    }

    public function test_the_benchmark_refuses_what_it_cannot_measure(): void
    {
        foreach ([['--bytes', '0'], ['--seconds', '0'], ['--serve', 'tea', '--port', (string) Port::free()]] as $arguments) {
            self::assertSame(2, $this->example('benchmark', ...$arguments)->exitCode(), implode(' ', $arguments));
        }
    }

    public function test_the_demo_ends_by_itself_and_tells_both_sides(): void
    {
        $demo = PhpProcess::run('passthru($argv[1] . " 2>&1", $code); exit($code);', [dirname(self::FOLDER) . '/scripts/demo'],
            ['env' => ['CLIENTS' => '20', 'DEMO_SECONDS' => '7', 'DEMO_INTERVAL' => '3', 'PORT' => (string) Port::free()]]);
        self::assertSame(0, $demo->exitCode(60), $demo->transcript());
        self::assertMatchesRegularExpression('/^fleet  \| 20 clients: 20 registered, /m', $demo->output());
        self::assertMatchesRegularExpression('/^server \| Stopped after \d+ s: 20 registrations, /m', $demo->output());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_server_runs_natively_beside_workerman_and_hands_over_only_for_its_commands(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $run = fn (string ...$arguments): PhpProcess => PhpProcess::file(self::FOLDER . '/server.php', $arguments,
            ['cwd' => $app->folder, 'ini' => ["auto_prepend_file=$app->folder/vendor/autoload.php"]]);

        $native = $run('--host', '127.0.0.1', '--port', (string) $port, '--timeout', '5');
        $this->until(fn () => str_contains($native->output(), 'listens on'), 'it starts natively');
        self::assertSame(0, $app->master());
        $native->signal(SIGINT);
        self::assertSame(0, $native->exitCode());

        $started = $run('start', '--host', '127.0.0.1', '--port', (string) $port);
        $this->until(fn () => $app->workers() !== [] && str_contains($started->output(), 'listens on'), 'Workerman starts it');
        Peer::connect($port)->register('a');
        $stop = $run('stop', '--port', (string) $port);
        self::assertSame(0, $stop->exitCode());
        self::assertStringContainsString('stop success', $stop->output());
        self::assertSame(0, $started->exitCode());
    }

    public function test_a_workerman_command_without_workerman_is_told(): void
    {
        if (is_dir(dirname(self::FOLDER) . '/vendor/workerman')) {
            self::markTestSkipped('Workerman is in vendor/');
        }
        $process = $this->example('server', 'start');
        self::assertSame(1, $process->exitCode());
        self::assertStringContainsString('Workerman is not installed', $process->errors());
    }

    private function example(string $script, string ...$arguments): PhpProcess
    {
        return PhpProcess::file(self::FOLDER . "/$script.php", $arguments);
    }

    /** @return array{0: PhpProcess, 1: int} the server example, listening, and its port */
    private function startServer(string ...$arguments): array
    {
        $port = Port::free();
        $server = $this->example('server', '--host', '127.0.0.1', '--port', (string) $port, ...$arguments);
        Peer::served($port)->close();
        return [$server, $port];
    }
}
