<?php

namespace Heartbus\Tests;

/** What the tests share: processes end with the test that started them, and say what they saw when it failed. */
abstract class TestCase extends \PHPUnit\Framework\TestCase
{
    protected function tearDown(): void
    {
        if ($this->hasFailed() && PhpProcess::all() !== []) {
            fwrite(STDERR, "\n*** {$this->getName()}: processes that still ran\n");
            foreach (PhpProcess::all() as $process) {
                fwrite(STDERR, $process->transcript() . "\n");
            }
        }
        PhpProcess::killAll();
    }

    protected function server(array $config = [], string $script = '', array $options = []): TestServer
    {
        return TestServer::start($config, $script, $options);
    }

    protected function script(string $code, array $arguments = [], array $options = []): PhpProcess
    {
        return PhpProcess::run($code, $arguments, $options);
    }

    protected function until(callable $condition, string $what, float $seconds = 10): void
    {
        Wait::until($condition, $what, $seconds, fn () => implode("\n", array_map(fn (PhpProcess $process) => $process->transcript(), PhpProcess::all())));
    }
}
