<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{Frame, TestCase};

/** Callbacks that take long, and more to tell than they can take: signals, timers and the other clients do not wait. */
final class BusyCallbackTest extends TestCase
{
    private const SCRIPT = '
        $server->on("data", function () { usleep(10000); });
        $server->every(0.1, fn () => say("timer"));
        $server->on("stop", fn () => say("stop"));';

    public function test_timers_run_between_slow_callbacks(): void
    {
        $server = $this->server([], self::SCRIPT);
        $server->node('chatty')->bytes(str_repeat(Frame::bytes(Frame::DATA, 'x'), 3000));
        $this->until(fn () => $server->counter('data_in') === 3000, 'all have arrived');
        $seen = count($server->process->said('timer'));
        $this->until(fn () => count($server->process->said('timer')) >= $seen + 5, 'the timer goes on');
        self::assertGreaterThan(1000, $server->counter('inbox_queued_events'), 'most of it still waits');
        $server->stop();
    }

    /** @dataProvider signals */
    public function test_a_stop_does_not_wait_for_thirty_seconds_of_callbacks(int $signals): void
    {
        self::assertTakesLessThan($signals === 2 ? 3.0 : 5.0, function () use ($signals): float {
            $server = $this->server([], self::SCRIPT);
            $other = $server->node('other');
            $server->node('chatty')->bytes(str_repeat(Frame::bytes(Frame::DATA, 'x'), 3000));
            $this->until(fn () => $server->counter('data_in') === 3000, 'all have arrived');
            $since = microtime(true);
            $server->process->signal(SIGTERM);
            $other->expectError(503, 'Server is shutting down');
            if ($signals === 2) {
                $server->process->signal(SIGTERM);
            }
            $other->expectClosed();
            self::assertSame(0, $server->process->exitCode(20));
            $seconds = microtime(true) - $since;
            self::assertCount(1, $server->process->said('stop'));
            self::assertStringContainsString('not all events were told', $server->process->errors());
            return $seconds;
        });
    }

    public static function signals(): array
    {
        return ['one signal' => [1], 'an impatient second one' => [2]];
    }
}
