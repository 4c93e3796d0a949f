<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * Many connected nodes in one process, each of which talks: numbered DATA in every round, a heartbeat in every fifth. Raw
 * sockets that speak v1 by hand and never reconnect: what is lost on the way shows in the totals.
 */
final class Crowd
{
    private function __construct(private readonly PhpProcess $process)
    {
    }

    /** Connects and registers so many nodes, `n0` and on, and lets them talk until finish(). */
    public static function join(int $port, int $size, float $secondsPerRound = 0.2): self
    {
        $crowd = new self(PhpProcess::file(__DIR__ . '/talkers.php', [(string) $port, (string) $size, (string) $secondsPerRound]));
        $crowd->process->next('joined', 60);
        return $crowd;
    }

    /** Waits until all have spoken so many times more. */
    public function talk(int $rounds): void
    {
        $until = $this->totals()['rounds'] + $rounds;
        Wait::until(fn () => $this->totals()['rounds'] >= $until, "the crowd talks for $rounds rounds", 60, fn () => $this->process->transcript());
    }

    /** @return array{rounds: int, beats: int, answers: int, closed: int, errors: int} */
    public function totals(): array
    {
        return $this->process->ask('return $crowd->totals();', 60);
    }

    /** Ends the talk and leaves them connected. Nobody may have been closed, no heartbeat unanswered. Returns how often each has spoken. */
    public function finish(): int
    {
        $this->process->ask('$crowd->isTalking = false;', 60);
        Wait::until(fn () => $this->totals()['answers'] >= $this->totals()['beats'], 'every heartbeat is answered', 30, fn () => $this->process->transcript());
        $totals = $this->totals();
        Assert::assertSame(['closed' => 0, 'errors' => 0], array_intersect_key($totals, ['closed' => 1, 'errors' => 1]));
        Assert::assertSame($totals['beats'], $totals['answers'], 'no heartbeat is answered twice');
        Assert::assertGreaterThan(0, $totals['beats']);
        return $totals['rounds'];
    }
}
