<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{FakeServer, Frame, Peer, PhpProcess, Port, TestCase};

/** Signals on the extension's own loop: the script's handlers run, and who asks twice is obeyed by the system. */
final class SignalsTest extends TestCase
{
    private const HANDLER = 'pcntl_async_signals(false); pcntl_signal(SIGTERM, function () { say("handler"); %s });';

    /** The loop sleeps, with nothing that would wake it. */
    private function asleep(string $script): PhpProcess
    {
        $process = $this->script($script);
        $process->next('started');
        $state = fn (): string => (string) preg_replace('/^\d+ \(.*\) (.).*/s', '$1', (string) @file_get_contents("/proc/{$process->pid()}/stat"));
        $this->until(fn () => $state() === 'S', 'it sleeps');
        return $process;
    }

    public function test_a_handler_without_async_signals_runs_while_the_server_waits(): void
    {
        $port = Port::free();
        $process = $this->asleep(sprintf(self::HANDLER, '$GLOBALS["server"]->stop();') . "
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'bus' => false, 'worker_count' => 1]);
            \$server->on('start', fn () => say('started'));
            \$server->start();
            say('returned');");
        $process->signal(SIGTERM);
        self::assertSame(0, $process->exitCode());
        $process->next('handler');
        $process->next('returned');
    }

    public function test_one_that_came_before_the_loop_slept_runs_as_well(): void
    {
        $port = Port::free();
        $process = $this->script(sprintf(self::HANDLER, '$GLOBALS["server"]->stop();') . "
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'bus' => false, 'worker_count' => 1]);
            \$server->on('start', function () { say('started'); posix_kill(posix_getpid(), SIGTERM); });
            \$server->start();");
        self::assertSame(0, $process->exitCode());
        self::assertSame(['started', 'handler'], array_column($process->history(), 0));
    }

    public function test_a_handler_runs_while_clients_run(): void
    {
        $server = FakeServer::listen();
        $process = $this->script(sprintf(self::HANDLER, '$GLOBALS["client"]->disconnect();') . "
            \$client = new HeartbeatClient('127.0.0.1', $server->port, ['loop' => 'native']);
            \$client->on('connect', fn () => say('started'));
            \$client->connect();
            HeartbeatClient::run();
            say('returned');");
        $process->next('started');
        $process->signal(SIGTERM);
        $process->next('handler');
        $process->next('returned');
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_busy_loop_runs_handlers_between_callbacks(): void
    {
        $server = $this->server(['worker_count' => 1], 'pcntl_signal(SIGUSR1, fn () => say("usr1")); $server->on("data", function () { usleep(2000); say("data"); });');
        $server->node('a')->bytes(str_repeat(Frame::bytes(Frame::DATA, 'x'), 5000));
        $this->until(fn () => $server->process->said('data') !== [], 'the first is told');
        $server->process->signal(SIGUSR1);
        $server->next('usr1');
        self::assertLessThan(5000, count($server->process->said('data')));
    }

    public function test_a_handler_runs_while_a_callback_waits_in_a_fiber_s_place(): void
    {
        $server = $this->server(['worker_count' => 1], '
            pcntl_signal(SIGUSR1, fn () => say("usr1"));
            $server->on("register", function (Node $node) use ($server) {
                say("waits");
                $server->getChannelScheduler()->getNodeChannels($node->id);
                foreach ($server->getChannelScheduler()->getNodeChannels($node->id) as $channel) { say("received", $channel->recv(20.0)); }
            });');
        $peer = $server->node('a');
        $server->next('waits');
        $server->process->signal(SIGUSR1);
        $server->next('usr1');
        $peer->send(Frame::DATA, 'x');
        self::assertSame(['x'], $server->next('received'));
    }

    public function test_a_handler_that_throws_ends_start_like_a_callback(): void
    {
        $port = Port::free();
        $process = $this->asleep("
            pcntl_signal(SIGTERM, fn () => throw new DomainException('enough'));
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'bus' => false, 'worker_count' => 1]);
            \$server->on('start', fn () => say('started'));
            try { \$server->start(); } catch (DomainException \$e) { say('thrown', \$e->getMessage()); }
            say('mask', pcntl_sigprocmask(SIG_BLOCK, [], \$blocked), \$blocked);");
        $process->signal(SIGTERM);
        self::assertSame(['enough'], $process->next('thrown'));
        self::assertSame([true, []], $process->next('mask'), 'no signal stays held back');
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider stopSignals */
    public function test_a_callback_that_never_returns_ends_with_the_second_signal(int $signal): void
    {
        $port = Port::free();
        $process = $this->script("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'bus' => false, 'worker_count' => 1]);
            \$server->every(0.01, function () { say('stuck'); while (true) { sleep(1); say('still'); } });
            \$server->start();");
        $process->next('stuck');
        $process->signal($signal);
        // It ends a sleep, and nothing more.
        $process->next('still');
        self::assertTrue($process->isRunning());
        $process->signal($signal);
        self::assertSame(128 + $signal, $process->exitCode());
    }

    public static function stopSignals(): array
    {
        return ['SIGTERM' => [SIGTERM], 'SIGINT' => [SIGINT]];
    }

    public function test_a_hang_up_beside_a_stop_signal_does_not_insist(): void
    {
        $server = $this->server(['worker_count' => 1], '$server->on("data", function () { say("busy"); for ($until = microtime(true) + 1; microtime(true) < $until;); });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x');
        $server->next('busy');
        $server->process->signal(SIGTERM);
        $server->process->signal(SIGHUP);
        $peer->expectError(503, 'Server is shutting down');
        self::assertSame(0, $server->process->exitCode(20));
    }

    /** Seconds of CPU of a process's first thread, which runs PHP. */
    private static function cpuOfPhp(PhpProcess $process): float
    {
        $stat = file_get_contents("/proc/{$process->pid()}/task/{$process->pid()}/stat");
        $fields = explode(' ', substr($stat, strrpos($stat, ')') + 2));
        return ($fields[11] + $fields[12]) / 100;
    }

    public function test_a_time_limit_is_spent_by_php_code_and_not_by_the_engine_s_threads(): void
    {
        $port = Port::free();
        $process = $this->script("
            set_time_limit(1);
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'bus' => false, 'worker_count' => 1]);
            \$server->on('start', fn () => say('started'));
            \$server->on('data', function (Node \$node, string \$payload) {
                if (\$payload === 'no limit') { set_time_limit(0); }
                if (\$payload === 'two seconds') { set_time_limit(2); }
                say('set', ini_get('max_execution_time'));
                if (\$payload === 'work') { for (\$until = hrtime(true) + 120e9; hrtime(true) < \$until;); }
            });
            \$server->start();");
        $process->next('started');
        $this->script('require ' . var_export(dirname(__DIR__) . '/support/Frame.php', true) . ";
            stream_set_blocking(\$stream = stream_socket_client('tcp://127.0.0.1:$port'), false);
            fwrite(\$stream, Heartbus\Tests\Frame::registration('chatty'));
            \$beats = str_repeat(Heartbus\Tests\Frame::heartbeat(), 1000);
            for (\$rest = ''; ; \$rest = substr(\$rest === '' ? \$beats : \$rest, (int) @fwrite(\$stream, \$rest === '' ? \$beats : \$rest))) {
                while (!in_array(@fread(\$stream, 1 << 20), ['', false], true));
            }");
        $this->until(fn () => $process->cpuSeconds() > 3, 'the engine has used three times what the script may', 120);
        self::assertTrue($process->isRunning(), $process->transcript());
        self::assertLessThan(1, self::cpuOfPhp($process), 'what the script itself has used');
        $peer = Peer::connect($port);
        $peer->register('a');
        foreach (['what is the limit?' => '1', 'no limit' => '0', 'two seconds' => '2'] as $payload => $limit) {
            $peer->send(Frame::DATA, $payload);
            self::assertSame([$limit], $process->next('set', 20));
        }
        $peer->send(Frame::DATA, 'work');
        self::assertSame(255, $process->exitCode(60));
        self::assertStringContainsString('Maximum execution time of 2 seconds exceeded', $process->errors());
    }
}
