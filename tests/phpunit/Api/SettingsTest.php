<?php

namespace Heartbus\Tests\Api;

use Heartbus\Tests\{FakeServer, Frame, Port, TestCase};
use InvalidArgumentException;
use PfinalClub\AsyncioHeartbeat\Channel\Channel;
use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
use PfinalClub\AsyncioHeartbeat\Node\{HeartbeatMonitor, Node, NodeManager};
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;
use PfinalClub\AsyncioHeartbeat\Utils\RateLimiter;

/** What people write by mistake, or in another form: names that there are not, numbers beyond all measure, switches as texts. */
final class SettingsTest extends TestCase
{
    // ---- names ----

    public function test_an_unknown_key_has_no_effect_and_the_log_names_it_and_what_was_meant(): void
    {
        $server = $this->server(['heartbeat_timout' => 5, 'maxConnections' => 3, 'auto_reconnect' => true, "x\e[2J\n[ERROR] y" => 1, 7 => 1]);
        $server->node('a');
        self::assertSame(1, $server->stats()['nodes']['online']);
        $server->stop();
        $told = self::lines($server->process->errors(), 'WARNING');
        self::assertSame([
            "The configuration key 'heartbeat_timout' is unknown and has no effect; did you mean 'heartbeat_timeout'?",
            "The configuration key 'maxConnections' is unknown and has no effect; did you mean 'max_connections'?",
            "The configuration key 'auto_reconnect' is a client's and has no effect here",
            "The configuration key 'x\\u001b[2J\\n[ERROR] y' is unknown and has no effect",
            "The configuration key '7' is unknown and has no effect",
        ], $told);
    }

    public function test_a_key_that_is_no_utf_8_is_unknown_like_any_other(): void
    {
        $server = $this->server(["time\xff" => 5]);
        $server->stop();
        self::assertSame(["The configuration key 'time\u{fffd}' is unknown and has no effect"], self::lines($server->process->errors(), 'WARNING'));
        $process = $this->script('
            $client = new HeartbeatClient("127.0.0.1", 1, ["loop" => "manual", "auto_reconnect" => false, "time\xff" => 5]);
            $client->connect();
            say("done");');
        $process->next('done');
        self::assertSame(0, $process->exitCode());
        self::assertSame(["The configuration key 'time\u{fffd}' is unknown and has no effect"], self::lines($process->errors(), 'WARNING'));
    }

    public function test_of_many_clients_with_the_same_slip_the_log_says_it_once(): void
    {
        $process = $this->script('
            for ($i = 0; $i < 3; $i++) {
                $client = new HeartbeatClient("127.0.0.1", 1, ["loop" => "manual", "auto_reconnect" => false, "heartbeat_intervall" => 1, "bus" => false]);
                $client->on("conect", fn () => 1);
                $client->on("data", fn () => 1);
                $client->connect();
            }
            say("done");');
        $process->next('done');
        self::assertSame(0, $process->exitCode());
        self::assertSame([
            "A client has no event 'conect': its callback is never called; did you mean 'connect'?",
            "The configuration key 'heartbeat_intervall' is unknown and has no effect; did you mean 'heartbeat_interval'?",
            "The configuration key 'bus' is a server's and has no effect here",
        ], self::lines($process->errors(), 'WARNING'));
    }

    public function test_an_unknown_event_of_a_server_is_refused_with_the_nearest_one(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage("Unknown event: data-batch (did you mean 'data.batch'? there are: connect, ");
        (new HeartbeatServer())->on('data-batch', fn () => 1);
    }

    // ---- numbers ----

    /** @dataProvider calls */
    public function test_a_call_refuses_numbers_beyond_all_measure_with_the_name_of_its_argument(string $name, callable $call, float ...$numbers): void
    {
        foreach ($numbers as $number) {
            try {
                $call($number);
                self::fail("$name took $number");
            } catch (InvalidArgumentException $refusal) {
                self::assertStringContainsString($name, $refusal->getMessage());
                self::assertStringEndsWith(', ' . (is_finite($number) ? json_encode($number) : $number) . ' given', $refusal->getMessage());
            }
        }
    }

    public static function calls(): array
    {
        $server = fn () => new HeartbeatServer('127.0.0.1', Port::free(), ['loop' => 'manual', 'bus' => false]);
        return [
            'every' => ['every(): seconds', fn (float $n) => $server()->every($n, fn () => 1), NAN, INF, -INF, -1, 0, 1e300, 1e-9],
            'poll' => ['poll(): timeout', fn (float $n) => HeartbeatClient::poll($n), NAN, INF, -1, 1e300],
            'recv' => ['recv(): timeout', fn (float $n) => (new Channel(1, 'a'))->recv($n), NAN, INF, -1, 1e300],
            'NodeManager' => ['NodeManager: heartbeatTimeout', fn (float $n) => new NodeManager($n), NAN, INF, -1, 1e300],
            'setHeartbeatTimeout' => ['setHeartbeatTimeout(): timeout', fn (float $n) => (new NodeManager())->setHeartbeatTimeout($n), NAN, INF, -1, 1e300],
            'HeartbeatMonitor' => ['HeartbeatMonitor: checkInterval', fn (float $n) => new HeartbeatMonitor(new NodeManager(), $n), NAN, INF, -1, 0, 1e300],
            'setCheckInterval' => ['setCheckInterval(): interval', fn (float $n) => (new HeartbeatMonitor(new NodeManager()))->setCheckInterval($n), NAN, INF, -1, 0],
            // The PHP library takes negative ones for these, and defined what they mean.
            'isTimeout' => ['isTimeout(): timeoutSeconds', fn (float $n) => (new Node('a', '::1', 1, 1))->isTimeout($n), NAN, INF, -INF],
            'RateLimiter' => ['RateLimiter: refillRate', fn (float $n) => new RateLimiter(1, $n), NAN, INF],
            'cleanup' => ['cleanup(): ttl', fn (float $n) => (new RateLimiter())->cleanup($n), NAN, INF],
        ];
    }

    public function test_a_running_server_refuses_such_a_timeout_and_keeps_the_one_it_has(): void
    {
        $server = $this->server(['heartbeat_timeout' => 7]);
        foreach (['NAN', 'INF', '-1.0', '0.0', '1e300'] as $number) {
            $said = $server->ask("try { \$server->getNodeManager()->setHeartbeatTimeout($number); } catch (\\InvalidArgumentException \$e) { return \$e->getMessage(); }");
            self::assertMatchesRegularExpression('/^setHeartbeatTimeout\(\): timeout must be a number of seconds from 0(\.001)? to 1000000000, /', $said);
            self::assertEquals(7, $server->ask('return $server->getNodeManager()->getHeartbeatTimeout();'));
        }
    }

    public function test_a_time_that_means_never_is_taken(): void
    {
        $server = $this->server(['heartbeat_timeout' => 1e9, 'stats_interval' => 1e9, 'max_connections' => PHP_INT_MAX], '$server->every(1e9, fn () => 1);');
        $server->node('a');
        self::assertSame(1, $server->stats()['nodes']['online']);
        self::assertSame(0, $server->stop());
    }

    /** @dataProvider refusedByClients */
    public function test_connect_refuses_with_the_class_that_the_pages_name(string $class, string $text, array $config, int $port = 1): void
    {
        $client = new HeartbeatClient('127.0.0.1', $port, $config + ['loop' => 'manual']);
        $this->expectException($class);
        $this->expectExceptionMessage($text);
        $client->connect();
    }

    public static function refusedByClients(): array
    {
        $config = \Heartbus\Exception\ConfigException::class;
        return [
            'an empty id' => [$config, 'node_id must have 1 to 255 bytes', ['node_id' => '']],
            'a long id' => [$config, 'node_id must have 1 to 255 bytes', ['node_id' => str_repeat('x', 256)]],
            'an id that is true' => [InvalidArgumentException::class, 'node_id must be of type string, bool given', ['node_id' => true]],
            'an id that has lost its end' => [InvalidArgumentException::class, 'node_id must be of type string, float given', ['node_id' => 1e30]],
            'another protocol' => [$config, 'protocol must be 1 or 2', ['protocol' => 3]],
            'no port' => [$config, 'port must be between 1 and 65535', [], 0],
            'no port that there is' => [InvalidArgumentException::class, 'Invalid port: 70000', [], 70000],
            'long metadata' => [$config, 'metadata must have at most 65536 bytes', ['metadata' => ['a' => str_repeat('x', 65536)]]],
            'metadata as text' => [InvalidArgumentException::class, 'metadata must be of type array', ['metadata' => 'x']],
            'a log that cannot be opened' => [$config, 'Cannot open log_file', ['log_file' => '/nonexistent/log']],
            'no interval' => [InvalidArgumentException::class, 'heartbeat_interval must be a number of seconds greater than 0', ['heartbeat_interval' => 0]],
            'no outbox' => [InvalidArgumentException::class, 'outbox_bytes must be an integer >= 1', ['outbox_bytes' => 0]],
        ];
    }

    // ---- forms ----

    /** @dataProvider switches */
    public function test_a_switch_that_is_off_is_off_however_it_is_written(mixed $off, mixed $on): void
    {
        foreach ([[$off, 1], [$on, 2]] as [$value, $connections]) {
            $server = FakeServer::listen();
            $client = $this->client($server->port, ['auto_reconnect' => $value, 'reconnect_interval' => 0.1]);
            [$peer] = $server->register();
            $client->next('register');
            $peer->close();
            $client->next('close');
            if ($connections === 2) {
                $server->register();
            } else {
                // Its next attempt would come within a tenth of a second.
                self::assertFalse($server->isCalled(1.0), var_export($value, true));
            }
            $server->close();
        }
    }

    public static function switches(): array
    {
        $pairs = [[false, true], [0, 1], ['0', '1'], ['off', 'on'], ['Off', 'ON'], ['false', 'true'], ['no', ' yes '], ['', 'anything else']];
        return array_combine(array_map(fn (array $pair) => var_export($pair[0], true), $pairs), $pairs);
    }

    /**
     * @testWith [""]
     *           [false]
     */
    public function test_what_names_nothing_is_as_if_it_were_left_out(mixed $nothing): void
    {
        $server = $this->server(array_fill_keys(['log_file', 'user', 'group', 'bus_group'], $nothing) + ['heartbeat_timout' => 1]);
        $server->node('a');
        self::assertSame(0, $server->stop());
        self::assertCount(1, self::lines($server->process->errors(), 'WARNING'), 'the log is where it is without a file');
    }

    public function test_the_bus_and_the_rate_limit_are_switched_by_texts_as_well(): void
    {
        $server = $this->server(['bus' => 'off', 'enable_rate_limit' => 'no', 'rate_limit_capacity' => 1]);
        $peer = $server->node('a');
        for ($i = 0; $i < 5; $i++) {
            $peer->send(Frame::PING);
            self::assertSame(Frame::PONG, $peer->receive()->type);
        }
        self::assertSame([], glob(\Heartbus\Tests\PhpProcess::folder() . "/$server->port.sock"));
    }

    public function test_the_page_on_the_extension_lists_every_setting_with_its_default(): void
    {
        ob_start();
        phpinfo(INFO_MODULES);
        $page = ob_get_clean();
        foreach (['Server' => 'Client', 'Client' => 'Directive'] as $whose => $next) {
            [, $list] = explode("\n$whose setting => Default\n", $page, 2);
            $listed = array_map(fn (string $line) => explode(' => ', $line), explode("\n", trim(explode("\n$next", $list, 2)[0])));
            [, $table] = explode("\n$whose:\n", file_get_contents(dirname(__DIR__, 3) . '/README.md'), 2);
            preg_match_all('/^\| (`[^|]+`) \| ([^|]+) \|/m', explode("\n\n", trim($table), 2)[0], $rows, PREG_SET_ORDER);
            self::assertGreaterThan(10, count($rows));
            self::assertSame(str_replace('`', '', array_column($rows, 1)), array_column($listed, 0));
            foreach ($rows as $i => [, $name, $default]) {
                // The unit stands behind it.
                self::assertStringStartsWith(str_replace('`', '', $default), $listed[$i][1], $name);
            }
        }
    }

    public function test_the_lists_of_addresses_close_the_server_by_either_of_their_names(): void
    {
        foreach ([['deny' => ['127.0.0.0/8']], ['allow' => ['10.0.0.0/8']], ['blacklist' => ['127.0.0.0/8']]] as $list) {
            $server = $this->server($list);
            $server->connect()->expectClosed();
            self::assertSame(0, $server->stop());
            self::assertSame([], self::lines($server->process->errors(), 'WARNING'));
        }
    }

    /** @dataProvider settingsOfPhpIni */
    public function test_php_ini_has_its_effect_in_the_forms_that_it_knows(string $setting, array $levels): void
    {
        $script = '$client = new HeartbeatClient("127.0.0.1", 1, ["loop" => "native", "auto_reconnect" => false]); $client->connect(); HeartbeatClient::run(); say("done");';
        $process = $this->script($script, [], ['ini' => [$setting]]);
        $process->next('done');
        self::assertSame(0, $process->exitCode());
        preg_match_all('/\] \[([A-Z]+)\] /', $process->errors(), $found);
        self::assertSame($levels, array_values(array_unique($found[1])), $process->errors());
    }

    public static function settingsOfPhpIni(): array
    {
        return [
            'nothing' => ['heartbus.loop=auto', ['ERROR']],
            'off, which PHP hands on as nothing' => ['heartbus.log_level=off', []],
            'off in quotes' => ['heartbus.log_level="off"', []],
            'none' => ['heartbus.log_level=none', []],
            'capitals' => ['heartbus.log_level=INFO', ['ERROR', 'INFO']],
            'the log itself off' => ['heartbus.log=Off', []],
        ];
    }

    public function test_a_whole_number_may_be_a_float(): void
    {
        $server = $this->server(['max_nodes' => 1.0, 'max_requests_per_second' => 1e6, 'outbox_bytes' => 1e6]);
        $server->node('a');
        $second = $server->connect();
        $second->send(Frame::REGISTER, '{"node_id":"b"}');
        self::assertSame(403, $second->expect(Frame::ERROR)->json()['code']);
    }

    /** @return list<string> the messages of that level */
    private static function lines(string $log, string $level): array
    {
        preg_match_all("/^\\[[^]]+\\] \\[$level\\] (.*)$/m", $log, $found);
        return $found[1];
    }
}
