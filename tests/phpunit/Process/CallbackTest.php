<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{Frame, TestCase};

/** How a server's callback may end: exit(), exceptions, fatal errors, Fibers. Nothing hangs, nothing crashes. */
final class CallbackTest extends TestCase
{
    public function test_exit_in_a_callback_ends_the_process_with_its_code(): void
    {
        $server = $this->server([], '
            register_shutdown_function(fn () => say("shutdown function"));
            $server->on("data", function () { exit(7); });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x');
        self::assertSame(7, $server->process->exitCode(20));
        $server->next('shutdown function');
        self::assertSame([], $server->process->said('returned'));
        $this->until(fn () => $peer->hasEnded(), 'the connection is closed');
    }

    public function test_exit_in_a_timer_works_as_well(): void
    {
        $process = $this->server([], '$server->on("data", fn () => $server->every(0.01, fn () => exit(3)));');
        $process->node('a')->send(Frame::DATA, 'x');
        self::assertSame(3, $process->process->exitCode(20));
    }

    public function test_an_uncaught_exception_ends_the_process_as_in_any_php_program(): void
    {
        $server = $this->server([], '$server->on("data", fn () => throw new DomainException("from the callback"));');
        $server->node('a')->send(Frame::DATA, 'x');
        self::assertSame(255, $server->process->exitCode(20));
        self::assertStringContainsString('Uncaught DomainException: from the callback', $server->process->errors());
        self::assertSame([], $server->process->said('returned'));
    }

    public function test_an_exception_comes_out_of_start_and_the_script_may_go_on(): void
    {
        $port = \Heartbus\Tests\Port::free();
        $process = $this->script("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);
            \$server->on('data', fn () => throw new DomainException('from the callback'));
            \$server->on('start', fn () => say('ready'));
            try { \$server->start(); } catch (DomainException \$e) { say('caught', \$e->getMessage()); }
            say('stats', \$server->getStats()['nodes']['online']);");
        $process->next('ready');
        $peer = \Heartbus\Tests\Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'x');
        self::assertSame(['from the callback'], $process->next('caught'));
        self::assertSame(0, $process->exitCode(20));
        $this->until(fn () => $peer->hasEnded(), 'nobody is left hanging');
    }

    /** @dataProvider fatalErrors */
    public function test_a_fatal_error_in_a_callback_ends_the_process_and_does_not_crash_it(string $code, string $message): void
    {
        $server = $this->server([], "\$server->on('data', function () { $code });", ['ini' => ['memory_limit=64M', 'max_execution_time=0']]);
        $server->node('a')->send(Frame::DATA, 'x');
        self::assertSame(255, $server->process->exitCode(10));
        self::assertStringContainsString($message, $server->process->errors());
    }

    public static function fatalErrors(): array
    {
        return [
            'E_USER_ERROR' => ['trigger_error("my own", E_USER_ERROR);', 'my own'],
            'out of memory' => ['str_repeat("x", 1 << 30);', 'Allowed memory size'],
            'no such function' => ['no_such_function();', 'Call to undefined function'],
            'a class that cannot be' => ['eval("class A extends PfinalClub\AsyncioHeartbeat\Node\Node { public string \$id; }");', 'Cannot redeclare readonly'],
        ];
    }

    public function test_a_callback_with_wrong_parameters_is_a_type_error_like_any_other(): void
    {
        $server = $this->server([], '$server->on("data", fn (int $node) => null);');
        $server->node('a')->send(Frame::DATA, 'x');
        self::assertSame(255, $server->process->exitCode(20));
        self::assertStringContainsString('must be of type int', $server->process->errors());
    }

    public function test_a_callback_may_suspend_a_fiber_and_go_on_later(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                $fiber = new Fiber(function () use ($node, $payload, $server) {
                    Fiber::suspend();
                    $server->sendTo($node->id, "resumed: $payload");
                });
                $fiber->start();
                $GLOBALS["fibers"][] = $fiber;
            });
            $server->every(0.05, function () { foreach ($GLOBALS["fibers"] ?? [] as $fiber) { $fiber->resume(); } $GLOBALS["fibers"] = []; });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'one')->send(Frame::DATA, 'two');
        self::assertSame('resumed: one', $peer->expect(Frame::DATA)->payload);
        self::assertSame('resumed: two', $peer->expect(Frame::DATA)->payload);
    }

    public function test_a_server_in_a_fiber_can_be_suspended_by_its_own_callback(): void
    {
        $port = \Heartbus\Tests\Port::free();
        $process = $this->script("
            \$fiber = new Fiber(function () {
                \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);
                \$server->on('start', fn () => say('ready'));
                \$server->on('data', function (Node \$node, string \$payload) use (\$server) {
                    if (\$payload === 'stop') { \$server->stop(); return; }
                    say('before', \$payload); Fiber::suspend(\$payload); say('after', \$payload);
                });
                \$server->start();
            });
            \$value = \$fiber->start();
            while (!\$fiber->isTerminated()) { say('suspended', \$value); \$value = \$fiber->resume(); }
            say('end');");
        $process->next('ready');
        $peer = \Heartbus\Tests\Peer::connect($port);
        $peer->register('a');
        foreach (['one', 'two'] as $payload) {
            $peer->send(Frame::DATA, $payload);
            self::assertSame([$payload], $process->next('before'));
            self::assertSame([$payload], $process->next('suspended'));
            self::assertSame([$payload], $process->next('after'));
        }
        $peer->send(Frame::DATA, 'stop');
        $process->next('end');
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_callback_may_destroy_the_server_s_last_reference(): void
    {
        $port = \Heartbus\Tests\Port::free();
        $process = $this->script("
            function serve_and_forget(): void {
                \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);
                \$server->on('start', fn () => say('ready'));
                \$server->on('data', function () use (&\$server) { \$running = \$server; \$server = null; gc_collect_cycles(); \$running->stop(); });
                \$server->start();
            }
            serve_and_forget();
            say('end');");
        $process->next('ready');
        $peer = \Heartbus\Tests\Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'x');
        $process->next('end');
        self::assertSame(0, $process->exitCode());
    }

    public function test_replacing_a_callback_from_within_itself_is_fine(): void
    {
        $server = $this->server([], '
            $server->on("data", function () use ($server) { say("first"); $server->on("data", fn () => say("second")); gc_collect_cycles(); });');
        $server->node('a')->send(Frame::DATA, 'x')->send(Frame::DATA, 'y');
        $server->next('first');
        $server->next('second');
        self::assertCount(1, $server->process->said('first'));
    }
}
