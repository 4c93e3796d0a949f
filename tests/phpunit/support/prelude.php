<?php

/** Loaded before the scripts that tests run in processes of their own: how such a script talks to its test. */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

/** Names that the code of PhpProcess::ask() may use: eval() does not inherit those of this file. */
const IMPORTS = 'use PfinalClub\AsyncioHeartbeat\{Client\HeartbeatClient, Node\Node, Protocol\Message, Server\HeartbeatServer};';

/** One line for PhpProcess::next(). Bytes that are no UTF-8 arrive as "hex:…". */
function say(string $topic, mixed ...$arguments): void
{
    array_walk_recursive($arguments, function (mixed &$value): void {
        if (is_string($value) && preg_match('//u', $value) !== 1) {
            $value = 'hex:' . bin2hex($value);
        } elseif ($value instanceof Node) {
            $value = $value->id;
        } elseif (is_object($value)) {
            $value = $value::class;
        }
    });
    // One write, so that lines of forked processes do not mix.
    fwrite(STDOUT, '@' . json_encode([$topic, ...array_values($arguments)], JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION) . "\n");
}

/** Says everything that happens on a server or a client: say_events($server, 'register', 'data'). */
function say_events(HeartbeatServer|HeartbeatClient $subject, string ...$events): void
{
    foreach ($events as $event) {
        $subject->on($event, fn (mixed ...$arguments) => say($event, ...$arguments));
    }
}

/** Starts the server, says 'ready' once its loop turns, and answers PhpProcess::ask(). */
function serve(HeartbeatServer $server): void
{
    stream_set_blocking(STDIN, false);
    $ready = false;
    $server->every(0.01, function () use ($server, &$ready): void {
        if (!$ready) {
            $ready = true;
            say('ready');
        }
        answer(['server' => $server]);
    });
    $server->start();
    say('returned');
}

/** Answers the questions that wait on stdin. @param array<string, mixed> $scope the variables they may use */
function answer(array $scope): void
{
    static $rest = '';
    while (($read = fread(STDIN, 65536)) !== false && $read !== '') {
        $rest .= $read;
    }
    while (($end = strpos($rest, "\n")) !== false) {
        [$number, $code] = json_decode(substr($rest, 0, $end), true);
        $rest = substr($rest, $end + 1);
        try {
            $value = (function () use ($scope, $code): mixed {
                extract($scope);
                return eval(IMPORTS . $code);
            })();
            say("answer$number", true, $value, null);
        } catch (Throwable $error) {
            say("answer$number", false, null, $error::class . ': ' . $error->getMessage());
        }
    }
}

/** Runs the clients of this process until the condition holds; says 'gave up' and ends with 3 when it never does. */
function drive(callable $done, float $seconds = 10): void
{
    $deadline = microtime(true) + $seconds;
    while (!$done()) {
        if (microtime(true) > $deadline) {
            say('gave up');
            exit(3);
        }
        HeartbeatClient::poll(0.02);
    }
}

/** Runs the clients of this process for ever and answers PhpProcess::ask(). @param array<string, mixed> $scope */
function attend(array $scope): never
{
    stream_set_blocking(STDIN, false);
    while (true) {
        // Without clients poll() has nothing to wait for.
        HeartbeatClient::poll(0.01) > 0 || usleep(1000);
        answer($scope);
    }
}
