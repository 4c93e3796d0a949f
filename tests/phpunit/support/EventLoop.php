<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * An event loop that a script may run on: what loads it, what runs a closure inside of it, how it sleeps.
 *
 * `inside()` of a script runs its argument once the loop turns and returns when the loop has ended; `soon()` runs it a
 * little later; `nap()` suspends the current Fiber for a while.
 */
final class EventLoop
{
    private function __construct(
        /** The script's opening: defines inside(), soon() and nap(). */
        private readonly string $head,
        private readonly ?string $workerman = null,
    ) {
    }

    /** @return array<string, array{0: string}> data sets: loops of others */
    public static function foreign(): array
    {
        $names = ['Revolt', 'ReactPHP'];
        foreach (WorkermanApp::installations() as $version => [$folder]) {
            $names[] = $folder === '' ? 'Workerman' : "$version, select";
            if (str_starts_with($version, 'Workerman 5')) {
                $names[] = "$version, Fiber";
            }
        }
        return array_combine($names, array_map(fn (string $name) => [$name], $names));
    }

    public static function named(string $name): self
    {
        $own = 'function fiber_nap(callable $after): void { $fiber = Fiber::getCurrent(); $after(fn () => $fiber->resume()); Fiber::suspend(); }';
        if ($name === 'Revolt') {
            return new self(Library::autoload('Revolt') . 'use Revolt\EventLoop;
                function inside(callable $work): void { EventLoop::queue($work(...)); EventLoop::run(); }
                function soon(callable $work): void { EventLoop::defer($work(...)); }
                function nap(float $seconds): void { $suspension = EventLoop::getSuspension(); EventLoop::delay($seconds, fn () => $suspension->resume()); $suspension->suspend(); }');
        }
        if ($name === 'ReactPHP') {
            return new self(Library::autoload('ReactPHP') . 'use React\EventLoop\Loop;' . $own . '
                function inside(callable $work): void { Loop::futureTick($work); Loop::run(); }
                function soon(callable $work): void { Loop::futureTick($work); }
                function nap(float $seconds): void { fiber_nap(fn (callable $resume) => Loop::addTimer($seconds, $resume)); }');
        }
        [$version, $loop] = explode(', ', "$name, ");
        $class = $loop === 'Fiber' ? Library::autoload('Revolt') . 'Worker::$eventLoopClass = Workerman\Events\Fiber::class;'
            : (str_starts_with($version, 'Workerman 5') ? 'Worker::$eventLoopClass = Workerman\Events\Select::class;' : '');
        return new self("$class $own" . '
            function inside(callable $work): void { $worker = new Worker(); $worker->onWorkerStart = $work; Worker::runAll(); }
            function soon(callable $work): void { Workerman\Timer::add(0.0001, $work, [], false); }
            function nap(float $seconds): void { fiber_nap(fn (callable $resume) => Workerman\Timer::add($seconds, $resume, [], false)); }',
            WorkermanApp::installations()[$version][0] ?? '');
    }

    public function isWorkerman(): bool
    {
        return $this->workerman !== null;
    }

    public function run(string $code): PhpProcess
    {
        if ($this->workerman === null) {
            return PhpProcess::run("$this->head\n$code");
        }
        $app = WorkermanApp::make($this->workerman);
        $app->write('app.php', "$this->head\n$code");
        return $app->php('app.php', 'start');
    }
}
