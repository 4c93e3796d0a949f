<?php

namespace Heartbus\Tests\Classes;

use Error;
use Heartbus\Tests\{Prometheus, TestCase};
use PfinalClub\AsyncioHeartbeat\Utils\Metrics;

final class MetricsTest extends TestCase
{
    private const NO_LABELS = 'd751713988987e9331980363e24189ce';

    protected function setUp(): void
    {
        Metrics::getInstance()->reset();
    }

    public function test_there_is_one_and_no_other(): void
    {
        self::assertSame(Metrics::getInstance(), Metrics::getInstance());
        $this->expectException(Error::class);
        new Metrics();
    }

    public function test_counters_add_and_gauges_replace(): void
    {
        $metrics = Metrics::getInstance();
        $metrics->incCounter('c');
        hb_metric_inc('c', 4);
        $metrics->incCounter('c', 2, ['b' => 1, 'a' => 2]);
        $metrics->incCounter('c', 2, ['a' => 2, 'b' => 1]);
        hb_metric_set('g', 1);
        $metrics->setGauge('g', 2.5);
        $key = 'c_' . md5('{"a":2,"b":1}');
        self::assertSame([
            'counters' => ['c' => ['c_' . self::NO_LABELS => ['value' => 5, 'labels' => []], $key => ['value' => 4, 'labels' => ['b' => 1, 'a' => 2]]]],
            'gauges' => ['g' => ['g_' . self::NO_LABELS => ['value' => 2.5, 'labels' => []]]],
            'histograms' => [],
        ], $metrics->getAll());
    }

    public function test_a_counter_beyond_an_integer_becomes_a_float(): void
    {
        hb_metric_inc('c', PHP_INT_MAX);
        hb_metric_inc('c', 1);
        self::assertSame((float) PHP_INT_MAX + 1, Metrics::getInstance()->getAll()['counters']['c']['c_' . self::NO_LABELS]['value']);
    }

    public function test_a_histogram_counts_and_keeps_no_observation(): void
    {
        foreach ([0.00005, 0.3, 0.5, 7, 100] as $seconds) {
            hb_metric_observe('h', $seconds);
        }
        $entry = Metrics::getInstance()->getAll()['histograms']['h']['h_' . self::NO_LABELS];
        self::assertSame(['values', 'sum', 'count', 'labels', 'buckets'], array_keys($entry));
        self::assertSame([[], 5, []], [$entry['values'], $entry['count'], $entry['labels']]);
        self::assertEqualsWithDelta(107.80005, $entry['sum'], 1e-9);
        self::assertSame([1, 1, 3, 3, 4, 5], [$entry['buckets']['0.0001'], $entry['buckets']['0.25'], $entry['buckets']['0.5'], $entry['buckets']['5'], $entry['buckets']['10'], $entry['buckets']['+Inf']]);
        $before = memory_get_usage();
        for ($i = 0; $i < 100_000; $i++) {
            hb_metric_observe('h', $i / 1000);
        }
        self::assertLessThan(1000, memory_get_usage() - $before);
    }

    public function test_series_are_bounded_and_those_beyond_are_counted(): void
    {
        for ($i = 0; $i < 10_050; $i++) {
            hb_metric_inc('c', 1, ['id' => $i]);
        }
        hb_metric_inc('c', 1, ['id' => 3]);
        hb_metric_set('g', 1);
        $metrics = Metrics::getInstance();
        self::assertSame([10_000, []], [count($metrics->getAll()['counters']['c']), $metrics->getAll()['gauges']]);
        self::assertStringContainsString("\nheartbeat_metric_series_dropped_total 51\n", $metrics->export());
        self::assertStringContainsString("\nc{id=\"3\"} 2\n", $metrics->export());
    }

    public function test_the_text_has_uptime_counters_gauges_and_histograms_in_order(): void
    {
        hb_metric_observe('h', 0.2, ['a' => 'x']);
        hb_metric_set('g', -INF);
        hb_metric_inc('c', 3, ['b' => 'y', 'a' => 'x']);
        $text = Metrics::getInstance()->export();
        self::assertMatchesRegularExpression('/^# HELP heartbeat_uptime_seconds Server uptime in seconds\n# TYPE heartbeat_uptime_seconds gauge\nheartbeat_uptime_seconds \S+\n\n/', $text);
        self::assertStringContainsString("\n\n# HELP c Counter metric\n# TYPE c counter\nc{b=\"y\",a=\"x\"} 3\n\n# HELP g Gauge metric\n# TYPE g gauge\ng -Inf\n\n# HELP h Histogram metric\n# TYPE h histogram\nh_bucket{a=\"x\",le=\"0.0001\"} 0\n", $text);
        self::assertStringEndsWith("h_bucket{a=\"x\",le=\"+Inf\"} 1\nh_sum{a=\"x\"} 0.2\nh_count{a=\"x\"} 1\n", $text);
    }

    /** Names, label names and values, families and samples that would break the format. */
    public function test_the_text_is_valid_whatever_was_put_in(): void
    {
        hb_metric_inc('my-metric.é', 1, ['la bel' => "a\"b\\c\nd", '__own' => "\xff", '7' => true, '' => null]);
        hb_metric_inc('same', 1, ['x' => 1]);
        hb_metric_inc('same', 1, ['x' => '1']);
        hb_metric_set('same', NAN);
        hb_metric_observe('same', 1.0, ['le' => 'mine', 'le_' => 'too']);
        hb_metric_set('same_count', 1e300, ['a-b' => 1, 'a.b' => 2]);
        hb_metric_inc('', -5);
        hb_metric_inc('heartbeat_uptime_seconds');
        hb_metric_set('tiny', 1.5e-300);
        hb_metric_observe('odd', NAN);
        hb_metric_observe('odd', INF);
        $text = Metrics::getInstance()->export();
        self::assertPrometheus($text);
        self::assertStringContainsString("\nsame{x=\"1\"} 2\n", $text);
        self::assertStringContainsString('la_bel="a\"b\\\\c\nd"', $text);
        self::assertGreaterThan(5, count(Prometheus::parse($text)));
    }

    private static function assertPrometheus(string $text): void
    {
        self::assertStringEndsWith("\n", $text);
        $types = $samples = [];
        $family = null;
        foreach (explode("\n", rtrim($text, "\n")) as $line) {
            if (preg_match('/^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/', $line, $found)) {
                $family = $found[2];
                self::assertArrayNotHasKey("$found[1] $family", $types, "$family has two");
                $types["$found[1] $family"] = $found[3];
            } elseif ($line !== '') {
                self::assertMatchesRegularExpression('/^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\\\n]|\\\\["\\\\n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\\\n]|\\\\["\\\\n])*")*\})? (-?\d+(\.\d+)?(e-?\d+)?|[+-]Inf|NaN)$/', $line);
                $series = substr($line, 0, strrpos($line, ' '));
                self::assertNotContains($series, $samples, 'a sample twice');
                self::assertStringStartsWith($family, $series);
                $samples[] = $series;
            }
        }
        self::assertSame(1, preg_match('//u', $text));
    }

    public function test_json_is_json_with_infinities_too(): void
    {
        hb_metric_set('g', INF, ['bytes' => "\xff"]);
        hb_metric_set('n', 1.0);
        hb_metric_observe('h', INF);
        $since = microtime(true);
        $json = Metrics::getInstance()->exportJson();
        $data = json_decode($json, true, flags: JSON_THROW_ON_ERROR);
        self::assertSame(['uptime', 'counters', 'gauges', 'histograms', 'timestamp'], array_keys($data));
        self::assertSame(['+Inf', '+Inf'], [current($data['gauges']['g'])['value'], current($data['histograms']['h'])['sum']]);
        self::assertStringContainsString("{\n    \"uptime\"", $json);
        self::assertSame(INF, current(Metrics::getInstance()->getAll()['gauges']['g'])['value']);
        self::assertSince($since, $data['timestamp']);
    }

    public function test_reset_forgets_and_restarts_the_uptime(): void
    {
        hb_metric_inc('c');
        usleep(30_000);
        $since = microtime(true);
        Metrics::getInstance()->reset();
        self::assertSame(['counters' => [], 'gauges' => [], 'histograms' => []], Metrics::getInstance()->getAll());
        $uptime = json_decode(Metrics::getInstance()->exportJson())->uptime;
        self::assertLessThan(microtime(true) - $since + 0.001, $uptime);
    }

    public function test_names_that_are_no_utf_8_are_cleaned_like_others(): void
    {
        $metrics = Metrics::getInstance();
        $metrics->incCounter("a\xffb", 2, ["l\xff" => "v\xff"]);
        $metrics->observeHistogram("h\xff", 1.0);
        self::assertStringContainsString("\na_b{l_=\"v\u{fffd}\"} 2\n", $metrics->export());
        self::assertStringContainsString("\nh__count 1\n", $metrics->export());
        self::assertCount(1, $metrics->getAll()['counters']["a\xffb"]);
        self::assertIsArray(json_decode($metrics->exportJson(), true));
    }

    public function test_a_label_that_is_no_text_throws_at_its_call_and_at_no_export(): void
    {
        $metrics = Metrics::getInstance();
        $metrics->incCounter('good', 1, ['l' => new class {
            public function __toString(): string
            {
                return 'text';
            }
        }]);
        try {
            $metrics->incCounter('bad', 1, ['l' => new \stdClass()]);
            self::fail('nothing was thrown');
        } catch (Error $error) {
            self::assertSame('Object of class stdClass could not be converted to string', $error->getMessage());
        }
        self::assertStringContainsString("\ngood{l=\"text\"} 1\n", $metrics->export());
        self::assertSame(['good'], array_keys($metrics->getAll()['counters']));
    }

    public function test_a_label_that_throws_leaves_everything_as_it_was(): void
    {
        $label = new class implements \JsonSerializable {
            public function jsonSerialize(): mixed
            {
                throw new \RuntimeException('no label');
            }
        };
        try {
            hb_metric_inc('c', 1, ['l' => $label]);
            self::fail('nothing was thrown');
        } catch (\RuntimeException $exception) {
            self::assertSame('no label', $exception->getMessage());
        }
        self::assertSame([], Metrics::getInstance()->getAll()['counters']);
    }
}
