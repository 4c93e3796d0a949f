<?php

namespace Heartbus\Tests\Client;

use Heartbus\Tests\{JavaScript, PhpProcess, Port, TestCase, TestServer};

/** The JavaScript client against the real server, in Node and in a browser. Its parts by themselves are tested beside it, with Node's own runner. */
final class JavaScriptTest extends TestCase
{
    private const HISTORY = ['kept/#' => ['count' => 100_000, 'bytes' => 16 << 20]];

    public function test_in_node_it_does_what_its_page_says_and_misses_nothing_when_the_wire_is_cut(): void
    {
        $port = Port::free();
        $server = TestServer::start(['websocket' => "127.0.0.1:$port", 'heartbeat_timeout' => 2, 'outbox_bytes' => 4 << 20, 'history' => self::HISTORY], '
            say_events($server, "unregister");
            $server->on("data", fn (Node $node, string $payload) => str_starts_with($payload, "leave ")
                ? $server->disconnect(substr($payload, 6)) : $server->sendTo($node->id, $payload));');
        $script = JavaScript::start('node.mjs', "ws://127.0.0.1:$port/");
        self::assertSame('OK', $script->result());
        // All have said goodbye.
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'nobody is there');
        $left = array_column($server->process->said('unregister'), 0);
        self::assertSame([], array_diff(['data', 'ada', 'bob', 'carl', 'dora'], $left));
        self::assertSame(0, $server->stop());
    }

    public function test_a_browser_that_is_killed_under_load_misses_nothing_and_gets_nothing_twice(): void
    {
        JavaScript::needBrowser();
        [$port, $web] = [Port::free(), Port::free()];
        $server = TestServer::start(['websocket' => "127.0.0.1:$port", 'history' => self::HISTORY], '
            $GLOBALS["count"] = 0;
            $GLOBALS["enough"] = false;
            $server->every(0.002, fn () => $GLOBALS["enough"] || $server->publish("kept/load", (string) ++$GLOBALS["count"]));');
        PhpProcess::run(sprintf('require %s; serve_page(%s, "127.0.0.1:%d", ["port" => %d, "topic" => "kept/load"]); say("ready"); fgets(STDIN);',
            var_export(realpath(__DIR__ . '/../../../php-examples/page.php'), true), var_export(realpath(__DIR__ . '/../../javascript/recovery'), true), $web, $port))
            ->next('ready');
        $script = JavaScript::start('recovery.mjs', "http://127.0.0.1:$web/", JavaScript::browserFolder(), 3);
        $script->untilItSays('enough');
        $total = $server->ask('$GLOBALS["enough"] = true; return $GLOBALS["count"];');
        $script->tell((string) $total);
        self::assertSame("OK $total messages, killed 3 times, 0 missed, 0 twice", $script->result());
        self::assertSame(4, $server->stats()['nodes']['total_registered']);
        self::assertGreaterThan(600, $total);
    }
}
