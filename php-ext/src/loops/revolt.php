<?php
// Heartbus on the event loop of Revolt. Control plane only: it says when to look. Loaded by the extension when Revolt is
// there.

use Revolt\EventLoop;

$watcher = null;

return [
    'running' => static fn (): bool => EventLoop::getDriver()->isRunning(),

    // Somebody loaded it, and nothing runs it by itself: watching costs nothing should it never turn.
    'used' => static fn (): bool => true,

    'watch' => static function ($stream, \Closure $ready) use (&$watcher): void {
        $watcher = EventLoop::onReadable($stream, $ready);
    },

    'unwatch' => static function () use (&$watcher): void {
        if ($watcher !== null) {
            EventLoop::cancel($watcher);
            $watcher = null;
        }
    },
];
