<?php

namespace Heartbus\Tests\Classes;

use DivisionByZeroError;
use Exception;
use Heartbus\Tests\TestCase;
use InvalidArgumentException;
use PfinalClub\AsyncioHeartbeat\Utils\{ConfigValidator, RateLimiter};
use TypeError;

/** What the recorded tables cannot hold: time, the machine, chance, misuse. */
final class UtilsTest extends TestCase
{
    /** @dataProvider faults */
    public function test_a_wrong_server_setting_is_named(array $change, string $text): void
    {
        $config = [...['worker_count' => 4, 'heartbeat_timeout' => 30, 'heartbeat_check_interval' => 10], ...$change];
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage($text);
        ConfigValidator::validateServerConfig($config);
    }

    public static function faults(): array
    {
        return [
            [['worker_count' => null], 'Missing required config key: worker_count'],
            [['heartbeat_timeout' => null], 'Missing required config key: heartbeat_timeout'],
            [['worker_count' => 1.5], "Config key 'worker_count' must be of type int, double given"],
            [['worker_count' => '4'], "Config key 'worker_count' must be of type int, string given"],
            [['heartbeat_timeout' => 'x'], "Config key 'heartbeat_timeout' must be of type numeric, string given"],
            [['worker_count' => 0], 'worker_count must be >= 1'],
            [['worker_count' => 129], 'worker_count should not exceed 128'],
            [['heartbeat_timeout' => '0.5'], 'heartbeat_timeout must be >= 1 second'],
            [['heartbeat_check_interval' => 0.5], 'heartbeat_check_interval must be >= 1 second'],
            [['heartbeat_check_interval' => 30], 'heartbeat_check_interval should be less than heartbeat_timeout'],
            [['max_connections' => '5'], 'max_connections must be a positive integer'],
            [['channel_max_queue_size' => 0], 'channel_max_queue_size must be a positive integer'],
        ];
    }

    public function test_a_wrong_client_setting_is_named(): void
    {
        ConfigValidator::validateClientConfig([]);
        ConfigValidator::validateClientConfig(['heartbeat_interval' => '1', 'reconnect_interval' => 1.5, 'max_reconnect_attempts' => 0, 'auto_reconnect' => false]);
        foreach ([['heartbeat_interval', 0.5, 'heartbeat_interval must be >= 1 second'], ['reconnect_interval', 'x', 'reconnect_interval must be >= 1 second'],
            ['max_reconnect_attempts', '3', 'max_reconnect_attempts must be >= 0'], ['auto_reconnect', 1, 'auto_reconnect must be a boolean']] as [$key, $value, $text]) {
            try {
                ConfigValidator::validateClientConfig([$key => $value]);
                self::fail("$key passed");
            } catch (InvalidArgumentException $exception) {
                self::assertSame($text, $exception->getMessage());
            }
        }
    }

    public function test_the_recommended_configuration_is_valid_here(): void
    {
        $config = ConfigValidator::getRecommendedServerConfig();
        self::assertSame((int) shell_exec('getconf _NPROCESSORS_ONLN'), $config['worker_count']);
        self::assertSame(['heartbeat_timeout' => 60, 'heartbeat_check_interval' => 20, 'max_connections' => 1000000, 'channel_max_queue_size' => 1000], array_slice($config, 1));
        ConfigValidator::validateServerConfig($config);
        $this->expectException(TypeError::class);
        ConfigValidator::validateServerConfig('no array');
    }

    public function test_a_bucket_fills_again_up_to_its_capacity(): void
    {
        $limiter = new RateLimiter(2, 1.0);
        self::assertSame([true, true, false], [$limiter->allow('k'), $limiter->allow('k'), $limiter->allow('k')]);
        $this->until(fn () => $limiter->allow('k'), 'a token is back');
        self::assertFalse($limiter->allow('k', 2));
        $this->until(fn () => $limiter->getTokens('k') === 2.0, 'it is full');
        self::assertSame([2.0, 2.0], [$limiter->getTokens('k'), $limiter->getTokens('unknown')]);
        self::assertFalse($limiter->allow('k', 3));
        self::assertTrue($limiter->allow('k', 2));
    }

    public function test_idle_buckets_are_cleaned_up_and_known_ones_reset(): void
    {
        $limiter = new RateLimiter(5, 0.0);
        $limiter->allow('a', 5);
        $limiter->reset('a');
        $limiter->reset('unknown');
        self::assertSame([5.0, 1], [$limiter->getTokens('a'), $limiter->getStats()['active_buckets']]);
        usleep(2000);
        self::assertSame([0, 1, 0], [$limiter->cleanup(), $limiter->cleanup(0.001), $limiter->cleanup(0.0)]);
        self::assertSame(['active_buckets' => 0, 'total_tokens' => 0, 'capacity_per_bucket' => 5, 'refill_rate' => 0.0, 'avg_tokens' => 0], $limiter->getStats());
        self::assertSame(['capacity_per_bucket' => 100, 'refill_rate' => 10.0], array_slice((new RateLimiter())->getStats(), 2, 2));
    }

    public function test_a_rate_limiter_clones_serializes_and_extends(): void
    {
        $limiter = new class (1, 0.0) extends RateLimiter {
            public array $asked = [];

            public function allow(string $key, int $tokens = 1): bool
            {
                $this->asked[] = $key;
                return parent::allow("prefix:$key", $tokens);
            }
        };
        self::assertTrue($limiter->allow('a'));
        self::assertFalse((clone $limiter)->allow('a'));
        $plain = new RateLimiter(1, 0.0);
        $plain->allow('a');
        self::assertFalse(unserialize(serialize($plain))->allow('a'));
        self::assertSame(0.0, $limiter->getTokens('prefix:a'));
    }

    public function test_durations(): void
    {
        foreach (['0.5s' => 0.5, '59.99s' => 59.99, '1m 5s' => 65.9, '59m 59s' => 3599.9, '1h 1m' => 3661.0, '1d 1h' => 90000.0] as $text => $seconds) {
            self::assertSame($text, hb_format_duration($seconds));
        }
    }

    public function test_memory_and_node_ids(): void
    {
        $usage = hb_memory_usage();
        self::assertSame(['current', 'peak', 'current_formatted', 'peak_formatted'], array_keys($usage));
        self::assertSame([memory_get_usage(true), hb_format_bytes($usage['peak'])], [$usage['current'], $usage['peak_formatted']]);
        $since = time();
        $id = hb_generate_node_id();
        self::assertMatchesRegularExpression('/^node_[0-9a-f]{13}_[0-9a-f]{8}$/', $id);
        self::assertStringStartsWith('x_', hb_generate_node_id('x'));
        self::assertSince($since, hexdec(substr($id, 5, 8)));
        self::assertCount(1000, array_unique(array_map(fn () => hb_generate_node_id(), range(1, 1000))));
    }

    public function test_benchmark(): void
    {
        $calls = 0;
        $result = hb_benchmark(function () use (&$calls): void {
            $calls++;
        }, 5);
        self::assertSame(['iterations', 'total_time', 'avg_time', 'memory_used', 'ops_per_second'], array_keys($result));
        self::assertSame([5, 5, true], [$calls, $result['iterations'], $result['total_time'] > 0]);
        self::assertEqualsWithDelta(5 / $result['total_time'], $result['ops_per_second'], 1e-3);
        foreach ([[Exception::class, fn () => hb_benchmark(fn () => throw new Exception('x'))], [DivisionByZeroError::class, fn () => hb_benchmark(fn () => 1, 0)],
            [TypeError::class, fn () => hb_benchmark('no such function')]] as [$class, $call]) {
            try {
                $call();
                self::fail("no $class");
            } catch (Exception | \Error $thrown) {
                self::assertInstanceOf($class, $thrown);
            }
        }
    }
}
