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
        self::assertStringStartsWith("Usage: php $script.php", $process->output());
        self::assertStringContainsString('--help', $process->output());
        self::assertSame('', $process->errors());
    }

    /** @dataProvider scripts */
    public function test_each_refuses_what_it_does_not_know(string $script): void
    {
        foreach ([['--nonsense'], ['--port'], ['--port', 'http'], ['--port=9501x'], ['nonsense', 'more']] as $arguments) {
            $process = $this->example($script, ...$arguments);
            self::assertSame(2, $process->exitCode(), implode(' ', $arguments));
            self::assertStringContainsString('Usage: php', $process->errors());
        }
    }

    public static function scripts(): array
    {
        return ['server' => ['server'], 'client' => ['client'], 'fleet' => ['fleet']];
    }

    public function test_without_the_extension_each_says_how_to_load_it(): void
    {
        foreach (['server', 'client', 'fleet'] as $script) {
            exec(escapeshellarg(PHP_BINARY) . ' ' . escapeshellarg(self::FOLDER . "/$script.php") . ' 2>&1', $output, $code);
            self::assertSame(1, $code);
            self::assertStringContainsString('make build', implode("\n", $output));
        }
    }

    public function test_the_server_serves_shows_its_status_in_plain_lines_and_stops_with_zero(): void
    {
        [$server, $port] = $this->startServer();
        self::assertStringContainsString("port $port", $server->output());
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
        [$server, $port] = $this->startServer('--quiet', '--echo', '--workers', '1', '--timeout', '1');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'hello');
        self::assertSame('hello', $peer->expect(Frame::DATA)->payload);
        $peer->expectClosed(5);
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

    public function test_the_fleet_does_its_rounds_and_says_that_all_went_well(): void
    {
        [$server, $port] = $this->startServer('--echo');
        $fleet = $this->example('fleet', '50', '--port', (string) $port, '--seconds', '2.5', '--interval', '1', '--echo');
        self::assertSame(0, $fleet->exitCode(20), $fleet->transcript());
        self::assertMatchesRegularExpression('/^50 clients: 50 registered, (100|50) heartbeats answered, (150|100) messages sent, (150|100) received, /m', $fleet->output());
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
        $unanswered = $this->example('fleet', '3', '--port', (string) $port, '--seconds', '0.5', '--echo');
        self::assertSame(1, $unanswered->exitCode(20));
        self::assertStringContainsString('WRONG: 3 messages never came back', $unanswered->output());
    }

    public function test_the_demo_ends_by_itself_and_tells_both_sides(): void
    {
        $demo = PhpProcess::run('passthru($argv[1] . " 2>&1", $code); exit($code);', [dirname(self::FOLDER) . '/scripts/demo'],
            ['env' => ['CLIENTS' => '20', 'DEMO_SECONDS' => '2', 'PORT' => (string) Port::free()]]);
        self::assertSame(0, $demo->exitCode(30), $demo->transcript());
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
        $this->until(fn () => ($probe = @stream_socket_client("tcp://127.0.0.1:$port")) && fclose($probe), 'the server listens');
        return [$server, $port];
    }
}
