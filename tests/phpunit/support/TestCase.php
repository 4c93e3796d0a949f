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
        Peer::closeAll();
        JavaScript::killAll();
        PhpProcess::killAll();
    }

    protected function server(array $config = [], string $script = '', array $options = []): TestServer
    {
        return TestServer::start($config, $script, $options);
    }

    /**
     * A client in a process of its own, connecting to the port. It tells its events, and answers ask() with `$client` in scope.
     *
     * @param array<string, mixed> $config
     * @param string $script PHP that runs before connect()
     */
    protected function client(int $port, array $config = [], string $script = '', array $options = []): PhpProcess
    {
        return PhpProcess::run(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, %s);
            say_events($client, "connect", "register", "heartbeat", "data", "pong", "server_error", "error", "close");
            %s
            $client->connect();
            attend(["client" => $client]);', $port, var_export($config, true), $script), [], $options);
    }

    protected function script(string $code, array $arguments = [], array $options = []): PhpProcess
    {
        return PhpProcess::run($code, $arguments, $options);
    }

    /**
     * A busy machine delays some tries; what takes long by itself does so each time.
     *
     * @param callable(): float $try does it, and returns how many seconds it took
     */
    protected static function assertTakesLessThan(float $limit, callable $try): void
    {
        for ($tries = 1; ($seconds = $try()) >= $limit && $tries < 4; $tries++);
        self::assertLessThan($limit, $seconds);
    }

    /** A moment between $since and now, as whatever clock of the machine reads it, to the hundredth. */
    protected static function assertSince(float $since, float $moment): void
    {
        self::assertGreaterThan($since - 0.01, $moment);
        self::assertLessThan(microtime(true) + 0.01, $moment);
    }

    protected function until(callable $condition, string $what, float $seconds = 10): void
    {
        Wait::until($condition, $what, $seconds, fn () => implode("\n", array_map(fn (PhpProcess $process) => $process->transcript(), PhpProcess::all())));
    }
}
