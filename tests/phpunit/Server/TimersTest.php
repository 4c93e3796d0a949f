<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\TestCase;

/** every() and cancel(): timers on the server's own loop. */
final class TimersTest extends TestCase
{
    public function test_a_timer_fires_again_and_again_at_its_interval(): void
    {
        $server = $this->server([], '$server->every(0.1, fn () => say("tick", microtime(true)));');
        $server->next('tick');
        $this->until(fn () => count($server->process->said('tick')) >= 10, 'ten ticks');
        $ticks = array_column($server->process->said('tick'), 0);
        // Ten ticks take 0.9 s. Where the first is told late the second may follow at once, and the third soon; from there on
        // each has its interval, which makes 0.7 s. The rest is room between the timers' clock and ours.
        self::assertGreaterThan(0.65, $ticks[9] - $ticks[0]);
    }

    public function test_cancel_ends_a_timer_and_only_that_one(): void
    {
        $server = $this->server([], '
            $first = $server->every(0.01, fn () => say("first"));
            $second = $server->every(0.01, fn () => say("second"));
            say("ids", $first, $second);
            $cancel = $server->every(0.01, function () use ($server, $first, &$cancel) { $server->cancel($first); $server->cancel($cancel); say("cancelled"); });');
        [$first, $second] = $server->next('ids');
        self::assertNotSame($first, $second);
        $server->next('cancelled');
        $ticks = count($server->process->said('first'));
        $seen = count($server->process->said('second'));
        $this->until(fn () => count($server->process->said('second')) > $seen + 10, 'the second timer goes on');
        self::assertLessThanOrEqual($ticks + 1, count($server->process->said('first')));
        self::assertCount(1, $server->process->said('cancelled'));
    }

    public function test_a_timer_may_cancel_itself_and_set_others(): void
    {
        $server = $this->server([], '
            $id = $server->every(0.01, function () use ($server, &$id) { $server->cancel($id); say("once"); $server->every(0.01, fn () => say("child")); });');
        $server->next('once');
        $server->next('child');
        $server->next('child');
        self::assertCount(1, $server->process->said('once'));
    }

    public function test_cancelling_what_does_not_exist_does_nothing(): void
    {
        $server = $this->server([], '$server->cancel(0); $server->cancel(-1); $server->cancel(4711);');
        self::assertNull($server->ask('$server->cancel(123456);'));
    }

    public function test_forty_thousand_timers_of_a_running_server_are_as_cheap_as_the_first_ones(): void
    {
        $server = $this->server();
        self::assertTakesLessThan(1.0, fn (): float => $server->ask('
            $cpu = fn () => ($used = getrusage())["ru_utime.tv_sec"] + $used["ru_stime.tv_sec"] + ($used["ru_utime.tv_usec"] + $used["ru_stime.tv_usec"]) / 1e6;
            $before = $cpu();
            for ($i = 0; $i < 40000; $i++) { $ids[] = $server->every(1000, fn () => null); }
            array_map($server->cancel(...), $ids);
            return $cpu() - $before;', 60));
    }

    public function test_timers_set_before_the_start_and_after_it_run_and_those_of_a_stopped_server_rest(): void
    {
        $process = $this->script(sprintf('
            $server = new HeartbeatServer("127.0.0.1", %d, ["loop" => "manual", "bus" => false]);
            $cancelled = $server->every(0.01, fn () => say("cancelled"));
            $server->every(0.01, fn () => say("before"));
            $server->cancel($cancelled);
            for ($round = 0; $round < 2; $round++) {
                $server->start();
                $server->every(0.01, fn () => say("round $round"));
                for ($told = 0; $told < 20; $told += $server->poll(1.0));
                $server->stop();
                say("stopped");
                $server->poll(0.1);
            }', \Heartbus\Tests\Port::free()));
        self::assertSame(0, $process->exitCode(20), $process->transcript());
        $said = array_column($process->history(), 0);
        $rounds = array_chunk($said, (int) array_search('stopped', $said) + 1);
        self::assertSame(['before', 'round 0', 'stopped'], array_values(array_unique($rounds[0])));
        $second = array_slice($said, count($rounds[0]));
        self::assertEqualsCanonicalizing(['before', 'round 0', 'round 1', 'stopped'], array_values(array_unique($second)));
        self::assertSame('stopped', end($said), 'nothing fires once it has stopped');
    }

    public function test_an_interval_must_be_positive(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", 9501);
            foreach ([0.0, -1.0, NAN, INF] as $seconds) {
                try { $server->every($seconds, fn () => null); say("accepted", (string) $seconds); } catch (InvalidArgumentException $e) { say("refused", $e->getMessage()); }
            }');
        self::assertSame(0, $process->exitCode());
        self::assertSame([], $process->said('accepted'));
    }
}
