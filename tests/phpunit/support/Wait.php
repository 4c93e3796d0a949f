<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/** Waiting for conditions with a deadline. The only place of the suite that sleeps. */
final class Wait
{
    /**
     * @param string $what completes "... did not happen within"
     * @param ?callable(): string $details what to show when it did not happen
     * @param ?callable(): bool $hopeless whether waiting longer makes no sense; the condition is tried once more then
     */
    public static function until(callable $condition, string $what, float $seconds = 10, ?callable $details = null, ?callable $hopeless = null): void
    {
        $deadline = microtime(true) + $seconds;
        do {
            $last = $hopeless !== null && $hopeless();
            if ($condition()) {
                Assert::assertTrue(true);
                return;
            }
            usleep(2000);
        } while (!$last && microtime(true) < $deadline);
        Assert::fail("$what: did not happen within $seconds s" . ($details === null ? '' : "\n" . $details()));
    }

    /** Lets time pass, where passing time is what the test is about; does something every 50 ms meanwhile. */
    public static function pass(float $seconds, ?callable $meanwhile = null): void
    {
        for ($end = microtime(true) + $seconds; microtime(true) < $end; usleep(50_000)) {
            $meanwhile === null || $meanwhile();
        }
    }
}
