<?php
// Heartbus on the event loop of ReactPHP. Control plane only: it says when to look. Loaded by the extension when ReactPHP
// is there.

use React\EventLoop\Loop;
use React\EventLoop\LoopInterface;

// The loop that Loop::get() would return, without making one.
$instance = \Closure::bind(static fn (): ?LoopInterface => Loop::$instance, null, Loop::class);
$watched = null;

return [
    // ReactPHP does not say whether its loop runs. Its run() is on the stack, except where a Fiber hides it; there the
    // loop's own flag has to do, which stays set when a loop ran out of work.
    'running' => static function () use ($instance): bool {
        $loop = $instance();
        if ($loop === null) {
            return false;
        }
        if (\Fiber::getCurrent() !== null) {
            $property = \property_exists($loop, 'running') ? new \ReflectionProperty($loop, 'running') : null;
            return $property !== null && $property->getValue($loop) === true;
        }
        foreach (\debug_backtrace(\DEBUG_BACKTRACE_PROVIDE_OBJECT | \DEBUG_BACKTRACE_IGNORE_ARGS) as $frame) {
            if (($frame['object'] ?? null) === $loop && $frame['function'] === 'run') {
                return true;
            }
        }
        return false;
    },

    // Whoever made the loop will run it, or ReactPHP does at the end of the script.
    'used' => static fn (): bool => $instance() !== null,

    'watch' => static function ($stream, \Closure $ready) use (&$watched): void {
        Loop::addReadStream($stream, $ready);
        $watched = $stream;
    },

    'unwatch' => static function () use (&$watched): void {
        if ($watched !== null) {
            Loop::removeReadStream($watched);
            $watched = null;
        }
    },
];
