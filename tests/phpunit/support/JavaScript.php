<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * A script of tests/javascript in a process of its own: what it says, what it is told, and its end. It ends with the run, and all that it
 * started with it.
 */
final class JavaScript
{
    private const FOLDER = __DIR__ . '/../../javascript';

    /** @var list<self> those that a test has started */
    private static array $started = [];

    /** @var resource */
    private $process;
    /** @var resource */
    private $stdin;
    private string $output;

    private function __construct(string $script, array $arguments)
    {
        $this->output = tempnam(PhpProcess::folder(), 'node');
        $this->process = proc_open(['setpriv', '--pdeathsig', 'KILL', 'node', self::FOLDER . "/$script", ...array_map('strval', $arguments)],
            [['pipe', 'r'], ['file', $this->output, 'a'], ['file', $this->output, 'a']], $pipes);
        $this->stdin = $pipes[0];
        self::$started[] = $this;
    }

    /** Skips where there is no Node, or no browser, and says so; under CI that is a failure. */
    public static function start(string $script, string|int ...$arguments): self
    {
        self::need('node', 'Node.js (Debian: nodejs, npm)');
        // What the compiler has made is there; this gets the WebSocket that Node 18 and 20 lack.
        exec(escapeshellarg(dirname(__DIR__, 3) . '/scripts/test-js') . ' --install 2>&1', $said, $code);
        $code === 0 || self::skip(implode("\n", $said));
        return new self($script, $arguments);
    }

    public static function needBrowser(): void
    {
        self::need('chromium', 'a browser (Debian: chromium)');
    }

    /** Where a browser keeps what it remembers. */
    public static function browserFolder(): string
    {
        return PhpProcess::folder() . '/browser-' . bin2hex(random_bytes(4));
    }

    public function tell(string $line): void
    {
        fwrite($this->stdin, "$line\n");
    }

    public function untilItSays(string $line, float $seconds = 90): void
    {
        Wait::until(fn () => in_array($line, explode("\n", $this->said()), true), "the script says '$line'", $seconds, $this->said(...), fn () => !$this->runs());
    }

    /** The last line of one that ended well. */
    public function result(float $seconds = 120): string
    {
        Wait::until(fn () => !$this->runs(), 'the script ends', $seconds, $this->said(...));
        $lines = explode("\n", trim($this->said()));
        Assert::assertStringStartsWith('OK', end($lines), $this->said());
        return end($lines);
    }

    public function said(): string
    {
        return file_get_contents($this->output);
    }

    public static function killAll(): void
    {
        foreach (self::$started as $script) {
            proc_terminate($script->process, SIGKILL);
            proc_close($script->process);
        }
        self::$started = [];
    }

    private function runs(): bool
    {
        return proc_get_status($this->process)['running'];
    }

    private static function need(string $command, string $what): void
    {
        exec("command -v $command", $found, $code);
        $code === 0 || self::skip("$what is not here");
    }

    private static function skip(string $why): never
    {
        getenv('CI') ? Assert::fail("cannot be skipped where CI is set: $why") : Assert::markTestSkipped($why);
    }
}
