<?php

namespace Heartbus\Tests\Views;

use Heartbus\Tests\{Frame, Prometheus, TestCase};

/** Utils\Metrics in the process of a running server: what the engine counted, under the promised names. */
final class MetricsTest extends TestCase
{
    private const EXPORT = 'return PfinalClub\AsyncioHeartbeat\Utils\Metrics::getInstance()->export();';

    /** The reference's table, and the names that its documentation promised. */
    private const PROMISED = [
        'heartbeat_uptime_seconds' => 'gauge', 'heartbeat_connections_total' => 'counter', 'heartbeat_connections_active' => 'gauge',
        'heartbeat_connection_rejected_total' => 'counter', 'heartbeat_rate_limited_total' => 'counter', 'heartbeat_messages_total' => 'counter',
        'heartbeat_message_duration_seconds' => 'histogram', 'heartbeat_errors_total' => 'counter', 'heartbeat_nodes_registered_total' => 'counter',
        'heartbeat_nodes_unregistered_total' => 'counter', 'heartbeat_nodes_timeout_total' => 'counter', 'heartbeat_nodes_online' => 'gauge',
        'heartbeat_nodes_total' => 'gauge', 'heartbeat_channels_active' => 'gauge', 'heartbeat_received_total' => 'counter',
        'heartbeat_data_messages_total' => 'counter', 'heartbeat_latency_seconds' => 'histogram', 'heartbeat_channels_total' => 'counter',
        'heartbeat_nodes_offline' => 'gauge', 'heartbeat_channel_queue_size' => 'gauge',
    ];

    public function test_every_promised_name_is_there_with_its_kind(): void
    {
        $server = $this->server();
        preg_match_all('/^# TYPE (\w+) (\w+)$/m', $server->ask(self::EXPORT), $found);
        $kinds = array_combine($found[1], $found[2]);
        self::assertSame(count($found[1]), count($kinds), 'no family twice');
        foreach (self::PROMISED as $name => $kind) {
            self::assertSame($kind, $kinds[$name] ?? null, $name);
        }
    }

    public function test_the_numbers_are_the_engine_s_and_the_application_s_own_stand_beside_them(): void
    {
        $server = $this->server();
        [$a, $b] = [$server->node('a'), $server->node('b')];
        for ($i = 0; $i < 3; $i++) {
            $a->beat();
        }
        $a->send(Frame::DATA, 'x');
        $a->bytes(Frame::body(Frame::DATA, 'no json'));
        $a->expect(Frame::ERROR);
        $b->send(Frame::UNREGISTER);
        $b->expectSilence();
        $channel = '$channel = $server->getChannelScheduler()->getNodeMainChannel("a");';
        $server->ask("$channel \$GLOBALS['c'] = \$channel; \$channel->putRecv('queued');");
        $server->ask('hb_metric_inc("my_total", 2, ["k" => "v"]); hb_metric_inc("heartbeat_received_total", 10); hb_metric_inc("heartbeat_messages_total", 5, ["type" => "OWN"]);');
        // Durations are counted after the replies are written.
        $this->until(function () use ($server, &$samples): bool {
            $samples = $this->samples($server->ask(self::EXPORT));
            return $samples['heartbeat_message_duration_seconds_count'] >= 9;
        }, 'all nine messages are measured');
        $expected = [
            'heartbeat_connections_total' => 2, 'heartbeat_connections_active' => 2, 'heartbeat_nodes_online' => 1, 'heartbeat_nodes_total' => 1,
            'heartbeat_nodes_offline' => 0, 'heartbeat_nodes_registered_total' => 2, 'heartbeat_nodes_unregistered_total' => 1,
            'heartbeat_messages_total{type="HEARTBEAT_REQ"}' => 3, 'heartbeat_messages_total{type="REGISTER"}' => 2, 'heartbeat_messages_total{type="OWN"}' => 5,
            'heartbeat_messages_total{type="UNREGISTER"}' => 1, 'heartbeat_messages_total{type="PING"}' => 1, 'heartbeat_received_total' => 13,
            'heartbeat_data_messages_total' => 1, 'heartbeat_errors_total' => 1, 'heartbeat_channels_total' => 2, 'heartbeat_channels_active' => 1,
            'heartbeat_channel_queue_size' => 1, 'my_total{k="v"}' => 2,
            'heartbeat_latency_seconds_count' => 3, 'heartbeat_latency_seconds_bucket{le="+Inf"}' => 3, 'heartbeat_latency_seconds_bucket{le="10"}' => 3,
        ];
        self::assertEquals($expected, array_intersect_key($samples, $expected));
        self::assertGreaterThan(0, $samples['heartbeat_message_duration_seconds_sum']);
        // Looking changes nothing.
        self::assertEquals($expected, array_intersect_key($this->samples($server->ask(self::EXPORT)), $expected));
        $json = json_decode($server->ask('return PfinalClub\AsyncioHeartbeat\Utils\Metrics::getInstance()->exportJson();'), true);
        self::assertSame(3, array_values($json['histograms']['heartbeat_latency_seconds'])[0]['count']);
        self::assertSame(1, (int) array_values($json['gauges']['heartbeat_nodes_online'])[0]['value']);
        $server->ask('PfinalClub\AsyncioHeartbeat\Utils\Metrics::getInstance()->reset();');
        self::assertArrayNotHasKey('my_total{k="v"}', $this->samples($server->ask(self::EXPORT)));
    }

    public function test_refusals_and_timeouts_are_counted(): void
    {
        $server = $this->server(['max_connections' => 2, 'heartbeat_timeout' => 1, 'rate_limit_capacity' => 6, 'rate_limit_refill_rate' => 0.001]);
        [$silent, $b] = [$server->connect(), $server->connect()];
        // Their threads have them now: who comes later is the one too many.
        $silent->expectSilence();
        $b->expectSilence();
        $server->connect()->expectError(503, 'Server is full or connection limit reached');
        $silent->register('silent');
        $b->send(99)->send(Frame::PONG)->send(Frame::HEARTBEAT_RES)->send(Frame::ERROR)->send(0);
        foreach (range(1, 4) as $i) {
            $b->send(Frame::PING)->expectError(429, 'Rate limit exceeded');
        }
        $expected = ['heartbeat_connection_rejected_total' => 1, 'heartbeat_rate_limited_total' => 4, 'heartbeat_nodes_timeout_total' => 1,
            'heartbeat_messages_total{type="UNKNOWN"}' => 2, 'heartbeat_messages_total{type="PONG"}' => 1,
            'heartbeat_messages_total{type="HEARTBEAT_RES"}' => 1, 'heartbeat_messages_total{type="ERROR"}' => 1];
        $this->until(fn () => array_intersect_key($this->samples($server->ask(self::EXPORT)), $expected) == $expected, 'these are counted: ' . json_encode($expected));
    }

    public function test_prometheus_own_parser_reads_what_a_running_server_exports(): void
    {
        $server = $this->server(['enable_rate_limit' => true, 'rate_limit_capacity' => 5, 'rate_limit_refill_rate' => 0.001]);
        $node = $server->node('a "quoted" \\ id');
        for ($i = 0; $i < 10; $i++) {
            $node->send(Frame::DATA, 'x');
        }
        $node->expect(Frame::ERROR);
        $server->ask('hb_metric_observe("mine_seconds", 0.2, ["path" => "a\\"b\\\\c\\nd"]); hb_metric_set("mine", NAN);');
        $families = Prometheus::parse($server->ask(self::EXPORT));
        foreach (self::PROMISED as $name => $kind) {
            // The parser names counters without their suffix.
            $family = $families[preg_replace('/_total$/', '', $name)] ?? $families[$name] ?? null;
            self::assertSame($kind, $family[0] ?? null, $name);
        }
        self::assertSame("a\"b\\c\nd", $families['mine_seconds'][1][0][1]['path']);
        foreach ($families as $name => [$kind, $samples]) {
            if ($kind !== 'histogram') {
                continue;
            }
            $series = [];
            foreach ($samples as [$sample, $labels, $value]) {
                $bound = $labels['le'] ?? substr($sample, strlen($name));
                unset($labels['le']);
                $series[json_encode($labels)][$bound] = (float) $value;
            }
            foreach ($series as $one) {
                $buckets = array_diff_key($one, ['_sum' => 0, '_count' => 0]);
                $sorted = array_values($buckets);
                sort($sorted);
                self::assertSame($sorted, array_values($buckets), "$name: buckets add up");
                self::assertSame($one['_count'], $buckets['+Inf'], "$name: the last bucket has all");
            }
        }
        $value = fn (string $family) => (float) $families[$family][1][0][2];
        self::assertSame([1.0, 1.0, 1.0], [$value('heartbeat_nodes_online'), $value('heartbeat_connections_active'), $value('heartbeat_connections')]);
        self::assertGreaterThan(0, $value('heartbeat_rate_limited'));
    }

    public function test_without_a_running_server_only_the_application_s_own_are_there(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", 1);
            hb_metric_set("mine", 1);
            say("export", PfinalClub\AsyncioHeartbeat\Utils\Metrics::getInstance()->export());');
        [$text] = $process->next('export');
        preg_match_all('/^# TYPE (\w+)/m', $text, $found);
        self::assertSame(['heartbeat_uptime_seconds', 'mine'], $found[1]);
    }

    private function samples(string $text): array
    {
        $samples = [];
        foreach (preg_grep('/^[^#\s]/', explode("\n", $text)) as $line) {
            [$name, $value] = explode(' ', $line);
            self::assertArrayNotHasKey($name, $samples, 'no sample twice');
            $samples[$name] = (float) $value;
        }
        return $samples;
    }
}
