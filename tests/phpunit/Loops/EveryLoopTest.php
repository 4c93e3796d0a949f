<?php

namespace Heartbus\Tests\Loops;

use Heartbus\Tests\{EventLoop, FakeServer, Frame, Peer, PhpProcess, Port, TestCase, Wait};

/** Every loop that can drive a server or a client: 10,000 events, in order, none lost; and callbacks that take their time. */
final class EveryLoopTest extends TestCase
{
    private const NODES = 10;
    private const EVENTS = 1000;

    /** Counts what each node sends and says so once there are 10,000. */
    private const COUNT = '
        $next = $wrong = [];
        $total = 0;
        $server->on("data", function (Node $node, string $payload) use ($server, &$next, &$wrong, &$total) {
            $next[$node->id] ??= 0;
            if ((int) $payload !== $next[$node->id]++) { $wrong[] = [$node->id, $payload]; }
            if (++$total === 10000) { ksort($next); say("counted", $next, $wrong); $server->stop(); }
        });
        $server->on("start", fn () => say("ready"));
        $server->on("stop", fn () => say("stopped"));';

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_a_server_started_inside_a_loop_of_others_tells_ten_thousand_events_in_order(string $name): void
    {
        $loop = EventLoop::named($name);
        $port = Port::free();
        $process = $loop->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . self::COUNT . '
            $server->start();
            say("start returned");
        });
        say("the loop ended");');
        $this->assertTenThousandArrive($process, $port);
        $process->next('start returned');
        $process->next('stopped');
        if (!$loop->isWorkerman()) {
            // Nothing is left to wait for, so the loop ends by itself.
            $process->next('the loop ended');
            self::assertSame(0, $process->exitCode());
        }
    }

    /** @dataProvider ownLoops */
    public function test_ten_thousand_events_arrive_in_order_without_a_loop_of_others(string $loop, string $drive): void
    {
        $port = Port::free();
        $process = $this->script("\$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2, 'loop' => '$loop']);" . self::COUNT . '
            $stopped = false;
            $server->on("stop", function () use (&$stopped) { $stopped = true; say("stopped"); });
            $server->start();
            ' . $drive);
        $this->assertTenThousandArrive($process, $port);
        $process->next('stopped');
        self::assertSame(0, $process->exitCode());
    }

    public static function ownLoops(): array
    {
        return [
            'native' => ['native', ''],
            'poll' => ['manual', 'while (!$stopped) { $server->poll(1.0); }'],
            'stream_select, with a timer' => ['manual', '$server->every(0.001, fn () => null); $stream = $server->getEventStream();
                while (!$stopped) {
                    $read = [$stream]; $write = $except = null;
                    if (stream_select($read, $write, $except, 1)) { $server->poll(); }
                }'],
        ];
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_a_client_gets_ten_thousand_messages_in_order(string $name): void
    {
        $loop = EventLoop::named($name);
        $server = FakeServer::listen();
        $process = $loop->run("inside(function () {
            \$client = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => 'a']);" . '
            $next = 0;
            $wrong = [];
            $client->on("data", function (string $payload) use ($client, &$next, &$wrong) {
                if ((int) $payload !== $next++) { $wrong[] = $payload; }
                if ($next === 10000) { say("counted", $wrong); $client->disconnect(); }
            });
            $client->on("close", fn () => say("close"));
            $client->connect();
        });
        say("the loop ended");');
        [$peer] = $server->register(7);
        $frames = '';
        for ($i = 0; $i < 10000; $i++) {
            $frames .= Frame::bytes(Frame::DATA, (string) $i, 7);
        }
        self::assertSame(strlen($frames), $peer->bytes($frames));
        self::assertSame([[]], $process->next('counted', 20));
        while ($peer->receive()->type !== Frame::UNREGISTER) {
        }
        $peer->close();
        if (!$loop->isWorkerman()) {
            $process->next('the loop ended');
            self::assertSame(0, $process->exitCode());
        }
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_the_stack_of_a_servers_callback_names_no_client(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 1]);" . '
            $server->on("data", function () { say("stack", array_map(fn (array $frame) => ($frame["class"] ?? "") . "::" . $frame["function"], debug_backtrace(0))); });
            $server->on("start", fn () => say("ready"));
            $server->start();
        });');
        $process->next('ready');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'x');
        [$stack] = $process->next('stack');
        self::assertStringContainsString('{closure}', $stack[0]);
        self::assertSame([], preg_grep('/Client/', $stack), implode("\n", $stack));
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_a_callback_that_suspends_its_fiber_keeps_nobody_waiting_and_the_order_stays(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . '
            $sleeping = [];
            $server->on("data", function (Node $node, string $payload) use ($server, &$sleeping) {
                say("begin", $payload);
                if ($payload[0] === "s") { $sleeping[] = Fiber::getCurrent(); Fiber::suspend(); }
                $server->sendTo($node->id, "done $payload");
                if ($payload === "q") { soon(fn () => array_map(fn (Fiber $fiber) => $fiber->resume(), $sleeping)); }
            });
            $server->on("start", fn () => say("ready"));
            $server->start();
        });');
        $process->next('ready');
        $slow = Peer::connect($port);
        $slow->register('slow');
        $quick = Peer::connect($port);
        $quick->register('quick');
        // One write: the events wait together behind the one that suspends.
        $slow->bytes(implode('', array_map(fn (string $payload) => Frame::bytes(Frame::DATA, $payload), ['s1', 'a', 's2', 'b'])));
        self::assertSame('done a', $slow->expect(Frame::DATA)->payload);
        self::assertSame('done b', $slow->expect(Frame::DATA)->payload);
        $quick->send(Frame::DATA, 'q');
        self::assertSame('done q', $quick->expect(Frame::DATA)->payload);
        self::assertSame('done s1', $slow->expect(Frame::DATA)->payload);
        self::assertSame('done s2', $slow->expect(Frame::DATA)->payload);
        self::assertSame(['s1', 'a', 's2', 'b', 'q'], array_merge(...$process->said('begin')));
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_ten_thousand_events_of_which_many_suspend_are_all_told(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . '
            $next = $wrong = [];
            $done = 0;
            $server->on("data", function (Node $node, string $payload) use ($server, &$next, &$wrong, &$done) {
                $next[$node->id] ??= 0;
                if ((int) $payload !== $next[$node->id]++) { $wrong[] = [$node->id, $payload]; }
                if ((int) $payload % 100 === 0) { nap(0.01); }
                if (++$done === 10000) { ksort($next); say("counted", $next, $wrong); }
            });
            $server->on("start", fn () => say("ready"));
            $server->start();
        });');
        $this->assertTenThousandArrive($process, $port);
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_ten_thousand_messages_that_are_told_many_at_once_arrive_though_the_callbacks_suspend(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . '
            $next = $wrong = [];
            $done = 0;
            $server->on("data.batch", function (array $nodes, array $payloads) use ($server, &$next, &$wrong, &$done) {
                foreach ($payloads as $i => $payload) {
                    $id = $nodes[$i]->id;
                    $next[$id] ??= 0;
                    if ((int) $payload !== $next[$id]++) { $wrong[] = [$id, $payload]; }
                }
                nap(0.01);
                // As they were, whatever was told meanwhile.
                if (count($payloads) !== count($nodes)) { $wrong[] = count($nodes); }
                if (($done += count($payloads)) === 10000) { ksort($next); say("counted", $next, $wrong); }
            });
            $server->on("start", fn () => say("ready"));
            $server->start();
        });');
        $this->assertTenThousandArrive($process, $port);
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_whoever_resumes_a_callback_waits_for_its_end_and_not_for_the_events_behind_it(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . '
            $server->on("data", function (Node $node, string $payload) {
                say("begin", $payload);
                if ($payload[0] === "s") {
                    $fiber = Fiber::getCurrent();
                    soon(function () use ($fiber) { $fiber->resume(); say("resumed"); });
                    Fiber::suspend();
                    say("end");
                }
            });
            $server->on("start", fn () => say("ready"));
            $server->start();
        });');
        $process->next('ready');
        $peer = Peer::connect($port);
        $peer->register('a');
        $payloads = array_merge(...array_map(fn (int $i) => ["s$i", "q$i"], range(1, 100)));
        $peer->bytes(implode('', array_map(fn (string $payload) => Frame::bytes(Frame::DATA, $payload), $payloads)));
        $this->until(fn () => count($process->said('resumed')) === 100 && count($process->said('begin')) === 200, 'all is told');
        self::assertSame($payloads, array_merge(...$process->said('begin')));
        $history = array_column($process->history(), 0);
        foreach (array_keys($history, 'end') as $position) {
            self::assertSame('resumed', $history[$position + 1]);
        }
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_timers_fire_until_they_are_cancelled_and_may_suspend_as_well(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . '
            $server->every(0.02, function () { say("sleepy"); nap(0.3); });
            $ticks = 0;
            $server->start();
            $timer = $server->every(0.02, function () use (&$timer, &$ticks, $server) {
                say("tick", ++$ticks);
                if ($ticks === 5) { say("cancelled", $server->cancel($timer), $server->cancel($timer)); }
            });
        });');
        self::assertSame([true, false], $process->next('cancelled'));
        self::assertSame([[1], [2], [3], [4], [5]], $process->said('tick'));
        $process->next('sleepy');
        $process->next('sleepy');
        Wait::pass(0.1);
        self::assertCount(5, $process->said('tick'));
    }

    public function test_the_event_stream_is_readable_when_a_timer_is_due(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", ' . Port::free() . ', ["loop" => "manual"]);
            $server->start();
            $idle = $server->every(3600, fn () => null);
            $stream = $server->getEventStream();
            $wait = function (int $microseconds) use ($stream): int {
                $read = [$stream]; $write = $except = null;
                return stream_select($read, $write, $except, 0, $microseconds);
            };
            $server->poll();
            say("quiet", $wait(0));
            $server->cancel($idle);
            $timer = $server->every(0.05, function () use (&$ticks) { say("tick", ++$ticks); });
            for ($i = 0; $i < 3; $i++) { say("readable", $wait(5_000_000)); $server->poll(); }
            $server->cancel($timer);
            $server->poll();
            say("cancelled", $wait(200_000));');
        self::assertSame(0, $process->exitCode(), $process->transcript());
        self::assertSame([[0]], $process->said('quiet'));
        self::assertSame([[1], [1], [1]], $process->said('readable'));
        self::assertSame([[1], [2], [3]], $process->said('tick'));
        self::assertSame([[0]], $process->said('cancelled'));
    }

    private function assertTenThousandArrive(PhpProcess $process, int $port): void
    {
        $process->next('ready');
        $peers = [];
        for ($n = 0; $n < self::NODES; $n++) {
            $peers[$n] = Peer::connect($port);
            $peers[$n]->register("node$n");
        }
        foreach ($peers as $peer) {
            $frames = '';
            for ($i = 0; $i < self::EVENTS; $i++) {
                $frames .= Frame::bytes(Frame::DATA, (string) $i);
            }
            self::assertSame(strlen($frames), $peer->bytes($frames));
        }
        $expected = array_fill_keys(array_map(fn (int $n) => "node$n", range(0, self::NODES - 1)), self::EVENTS);
        self::assertSame([$expected, []], $process->next('counted', 20));
    }
}
