<?php

namespace Heartbus\Tests\Views;

use Heartbus\Bus;
use Heartbus\Tests\{PhpProcess, TestCase};

/** The engine's numbers have one name each, in PHP, over the bus socket and in C. The table in docs/C-API.md is that of all three. */
final class NumbersTest extends TestCase
{
    public function test_the_engine_s_numbers_have_the_names_that_c_knows(): void
    {
        $table = explode("\n| `heartbus_server_stats` |", file_get_contents(__DIR__ . '/../../../docs/C-API.md'))[1];
        preg_match_all('/^\| `(\w+)` \|/m', strstr($table, "\n\n", true), $names);
        // What waits in PHP's channels is no business of the engine's.
        $expected = [...$names[1], 'channel_dropped'];

        $socket = PhpProcess::folder() . '/numbers.sock';
        $server = $this->server(['bus' => $socket]);
        self::assertSame($expected, array_keys($server->stats()['engine']));
        self::assertSame($expected, array_keys(Bus::connect($socket, 10.0)->stats()['engine']));
    }

    public function test_the_uptime_grows_and_comes_first_among_the_metrics(): void
    {
        $socket = PhpProcess::folder() . '/uptime.sock';
        $server = $this->server(['bus' => $socket]);
        self::assertLessThan(600, $server->counter('uptime_seconds'));
        $this->until(fn () => $server->counter('uptime_seconds') >= 1, 'a second is over');
        self::assertMatchesRegularExpression('/\A# TYPE heartbeat_uptime_seconds gauge\nheartbeat_uptime_seconds [1-9]\d*\n/', Bus::connect($socket, 10.0)->metrics());
    }
}
