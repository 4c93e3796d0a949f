<?php
// Heartbus on the event loop of Workerman 4 and 5. Control plane only: it says when to start, to look and to stop; events
// and callbacks stay in the extension. Loaded by the extension when Workerman is there.

use Workerman\Events\EventInterface;
use Workerman\Timer;
use Workerman\Worker;

return [
    // A loop exists in worker processes only.
    'running' => static fn (): bool => Worker::$globalEvent !== null,

    // One process for all of it: the engine has its own threads.
    'worker' => static function (string $name, \Closure $start, ?\Closure $stop): void {
        $worker = new Worker();
        $worker->name = $name;
        $worker->count = 1;
        $worker->onWorkerStart = static function () use ($start): void {
            $start();
        };
        if ($stop !== null) {
            $worker->onWorkerStop = static function () use ($stop): void {
                $stop();
            };
        }
        // Telling every client takes up to 1.5 s, and Workerman kills a worker 2 s after Ctrl-C, of which it waits one.
        Worker::$stopTimeout = max(Worker::$stopTimeout, 4);
    },

    'run' => static function (): void {
        Worker::runAll();
    },

    // Stops all of Workerman: a worker that only ends itself is started again.
    'stop' => static function (): void {
        posix_kill(posix_getppid(), SIGINT);
    },

    'watch' => static function ($stream, \Closure $ready): void {
        $callback = static function () use ($ready): void {
            $ready();
        };
        $loop = Worker::getEventLoop();
        if (method_exists($loop, 'onReadable')) {
            $loop->onReadable($stream, $callback);
        } else {
            $loop->add($stream, EventInterface::EV_READ, $callback);
        }
    },

    'every' => static function (float $seconds, callable $callback): int {
        return Timer::add($seconds, static function () use ($callback): void {
            $callback();
        });
    },

    'cancel' => static function (int $timer): void {
        Timer::del($timer);
    },
];
