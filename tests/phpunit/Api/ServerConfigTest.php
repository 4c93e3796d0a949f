<?php

namespace Heartbus\Tests\Api;

use ArgumentCountError;
use Heartbus\Tests\TestCase;
use InvalidArgumentException;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;
use RuntimeException;
use TypeError;

/** What the server's constructor accepts and refuses, with the texts of the PHP library. No server is started here. */
final class ServerConfigTest extends TestCase
{
    /** @dataProvider refused */
    public function test_refuses_with_the_text_of_the_php_library(string $text, array $config, string $host = '0.0.0.0', int $port = 9501): void
    {
        try {
            new HeartbeatServer($host, $port, $config);
            self::fail("accepted; '$text' was expected");
        } catch (RuntimeException $exception) {
            self::assertSame("Configuration validation failed: $text", $exception->getMessage());
            self::assertSame(0, $exception->getCode());
            self::assertInstanceOf(InvalidArgumentException::class, $exception->getPrevious());
            self::assertSame($text, $exception->getPrevious()->getMessage());
            if (!getenv('HEARTBUS_REFERENCE')) {
                self::assertSame(__FILE__, $exception->getFile());
            }
        }
    }

    public static function refused(): array
    {
        $type = fn (string $key, string $expected, string $given): string => "Config key '$key' must be of type $expected, $given given";
        return [
            'no worker_count' => ['Missing required config key: worker_count', ['worker_count' => null]],
            'no timeout' => ['Missing required config key: heartbeat_timeout', ['heartbeat_timeout' => null]],
            'no check interval' => ['Missing required config key: heartbeat_check_interval', ['heartbeat_check_interval' => null]],
            'worker_count a string' => [$type('worker_count', 'int', 'string'), ['worker_count' => '4']],
            'worker_count a float' => [$type('worker_count', 'int', 'double'), ['worker_count' => 4.0]],
            'worker_count a bool' => [$type('worker_count', 'int', 'boolean'), ['worker_count' => true]],
            'worker_count an array' => [$type('worker_count', 'int', 'array'), ['worker_count' => [4]]],
            'timeout a word' => [$type('heartbeat_timeout', 'numeric', 'string'), ['heartbeat_timeout' => 'soon']],
            'timeout an array' => [$type('heartbeat_timeout', 'numeric', 'array'), ['heartbeat_timeout' => []]],
            'timeout an object' => [$type('heartbeat_timeout', 'numeric', 'object'), ['heartbeat_timeout' => (object) []]],
            'check interval a bool' => [$type('heartbeat_check_interval', 'numeric', 'boolean'), ['heartbeat_check_interval' => true]],
            'zero workers' => ['worker_count must be >= 1', ['worker_count' => 0]],
            'minus one worker' => ['worker_count must be >= 1', ['worker_count' => -1]],
            'too many workers' => ['worker_count should not exceed 128', ['worker_count' => 129]],
            'timeout below a second' => ['heartbeat_timeout must be >= 1 second', ['heartbeat_timeout' => 0.99]],
            'timeout zero' => ['heartbeat_timeout must be >= 1 second', ['heartbeat_timeout' => '0']],
            'check interval below a second' => ['heartbeat_check_interval must be >= 1 second', ['heartbeat_check_interval' => 0.5]],
            'check interval as long as the timeout' => ['heartbeat_check_interval should be less than heartbeat_timeout',
                ['heartbeat_timeout' => 20, 'heartbeat_check_interval' => 20]],
            'check interval longer than the timeout' => ['heartbeat_check_interval should be less than heartbeat_timeout',
                ['heartbeat_timeout' => '20', 'heartbeat_check_interval' => 20.5]],
            'max_connections zero' => ['max_connections must be a positive integer', ['max_connections' => 0]],
            'max_connections a string' => ['max_connections must be a positive integer', ['max_connections' => '10']],
            'queue size zero' => ['channel_max_queue_size must be a positive integer', ['channel_max_queue_size' => 0]],
            'queue size a float' => ['channel_max_queue_size must be a positive integer', ['channel_max_queue_size' => 10.0]],
            'host empty' => ['Invalid host: ', [], ''],
            'host a star' => ['Invalid host: *', [], '*'],
            'host with an underscore' => ['Invalid host: my_host', [], 'my_host'],
            'host with a leading dash' => ['Invalid host: -host', [], '-host'],
            'host in brackets' => ['Invalid host: [::1]', [], '[::1]'],
            'port zero' => ['Invalid port: 0', [], '127.0.0.1', 0],
            'port negative' => ['Invalid port: -1', [], '127.0.0.1', -1],
            'port too high' => ['Invalid port: 65536', [], '127.0.0.1', 65536],
            'the first fault wins' => ['worker_count must be >= 1', ['worker_count' => 0, 'heartbeat_timeout' => 0], '*', 0],
            'types come key by key' => [$type('worker_count', 'int', 'string'), ['worker_count' => 'x', 'heartbeat_timeout' => null]],
            'config before host' => ['max_connections must be a positive integer', ['max_connections' => -1], '*'],
        ];
    }

    /** @dataProvider refusedOwnKeys */
    public function test_refuses_wrong_values_of_keys_that_the_php_library_has_not(string $text, array $config): void
    {
        if (getenv('HEARTBUS_REFERENCE')) {
            self::markTestSkipped('the PHP library accepts unknown keys with any value');
        }
        $this->test_refuses_with_the_text_of_the_php_library($text, $config);
    }

    public static function refusedOwnKeys(): array
    {
        $seconds = 'must be a number of seconds greater than 0';
        $history = "must be an array of filters and what is kept of their topics, such as ['chat/#' => ['count' => 100]]";
        return [
            'whitelist a string' => ['whitelist must be an array', ['whitelist' => '10.0.0.1']],
            'whitelist with a name' => ['whitelist: localhost is not an IP address or network', ['whitelist' => ['10.0.0.1', 'localhost']]],
            'whitelist with a number' => ['whitelist: 5 is not an IP address or network', ['whitelist' => [5]]],
            'blacklist false' => ['blacklist must be an array', ['blacklist' => false]],
            'blacklist with too long a prefix' => ['blacklist: 10.0.0.0/33 is not an IP address or network', ['blacklist' => ['10.0.0.0/33']]],
            'blacklist with half an address' => ['blacklist: 10.0.0 is not an IP address or network', ['blacklist' => ['10.0.0']]],
            'blacklist with an empty text' => ['blacklist:  is not an IP address or network', ['blacklist' => ['']]],
            'max_connections_per_ip negative' => ['max_connections_per_ip must be an integer >= 0', ['max_connections_per_ip' => -1]],
            'max_connections_per_ip a string' => ['max_connections_per_ip must be an integer >= 0', ['max_connections_per_ip' => '5']],
            'max_requests_per_second negative' => ['max_requests_per_second must be an integer >= 0', ['max_requests_per_second' => -1]],
            'max_requests_per_second a float' => ['max_requests_per_second must be an integer >= 0', ['max_requests_per_second' => 1.5]],
            'max_requests_per_second a word' => ['max_requests_per_second must be an integer >= 0', ['max_requests_per_second' => 'many']],
            'rate_limit_capacity 0' => ['rate_limit_capacity must be an integer >= 1', ['rate_limit_capacity' => 0]],
            'rate_limit_refill_rate negative' => ['rate_limit_refill_rate must be a number >= 0', ['rate_limit_refill_rate' => -1]],
            'rate_limit_by unknown' => ["rate_limit_by must be one of 'connection', 'ip'", ['rate_limit_by' => 'node']],
            'register_timeout 0' => ["register_timeout $seconds", ['register_timeout' => 0]],
            'slow_consumer_timeout -1' => ["slow_consumer_timeout $seconds", ['slow_consumer_timeout' => -1]],
            'stats_interval 0' => ["stats_interval $seconds", ['stats_interval' => 0]],
            'stats_interval infinite' => ['stats_interval must be a number of seconds from 0.001 to 1000000000', ['stats_interval' => INF]],
            'register_timeout beyond all measure' => ['register_timeout must be a number of seconds from 0.001 to 1000000000', ['register_timeout' => '1e300']],
            'register_timeout too short to be measured' => ['register_timeout must be a number of seconds from 0.001 to 1000000000', ['register_timeout' => 1e-6]],
            'heartbeat_timeout infinite' => ['heartbeat_timeout must be <= 1000000000 seconds', ['heartbeat_timeout' => INF]],
            'heartbeat_timeout beyond all measure' => ['heartbeat_timeout must be <= 1000000000 seconds', ['heartbeat_timeout' => 1e300]],
            'heartbeat_check_interval infinite' => ['heartbeat_check_interval should be less than heartbeat_timeout', ['heartbeat_check_interval' => INF]],
            'rate_limit_refill_rate beyond all measure' => ['rate_limit_refill_rate must be a number <= 9007199254740992', ['rate_limit_refill_rate' => 1e300]],
            'rate_limit_capacity beyond all measure' => ['rate_limit_capacity must be an integer <= 4294967295', ['rate_limit_capacity' => PHP_INT_MAX]],
            'max_frame_bytes beyond all measure' => ['max_frame_bytes must be an integer <= 4294967295', ['max_frame_bytes' => 1 << 40]],
            'max_nodes beyond all measure' => ['max_nodes must be an integer <= 9007199254740992', ['max_nodes' => PHP_INT_MAX]],
            'max_frame_bytes beyond what a bus carries' => ['max_frame_bytes must be at most 1073741824 where there is a bus', ['max_frame_bytes' => (1 << 30) + 1]],
            'allow a string' => ['allow must be an array', ['allow' => '10.0.0.1']],
            'deny with a name' => ['deny: localhost is not an IP address or network', ['deny' => ['localhost']]],
            'both names of a list' => ['whitelist and allow are the same key: one is enough', ['whitelist' => [], 'allow' => ['::1']]],
            'user true' => ['user must be of type string, bool given', ['user' => true]],
            'group true' => ['group must be of type string, bool given', ['group' => true]],
            'bus_group true' => ['bus_group must be of type string, bool given', ['bus_group' => true]],
            'log_file true' => ['log_file must be of type string, bool given', ['log_file' => true]],
            'user a float' => ['user must be of type string, float given', ['user' => 1.0]],
            'inbox_events not a number' => ['inbox_events must be an integer >= 1', ['inbox_events' => NAN]],
            'history a number' => ["history $history", ['history' => 5]],
            'history with a number for a rule' => ["history $history", ['history' => ['chat/#' => 5]]],
            'history of no filter' => ['history: "a/#/b" is no filter. In a filter # stands for the rest, so it is the last level', ['history' => ['a/#/b' => []]]],
            'history of an empty filter' => ['history: "" is no filter. A topic has at least one byte', ['history' => ['' => []]]],
            'history of bytes' => ['history: a filter must be valid UTF-8', ['history' => ["\xff" => []]]],
            'history with a slip of the pen' => ["history['a']['cuont'] has no meaning (there are: count, bytes, ttl)", ['history' => ['a' => ['cuont' => 1]]]],
            'history with a count below zero' => ["history['a']['count'] must be an integer >= 0", ['history' => ['a' => ['count' => -1]]]],
            'history with a size in words' => ["history['a']['bytes'] must be an integer >= 0", ['history' => ['a' => ['bytes' => '1M']]]],
            'history for no time' => ["history['a']['ttl'] $seconds", ['history' => ['a' => ['ttl' => 0]]]],
            'stats_interval a word' => ["stats_interval $seconds", ['stats_interval' => 'hourly']],
        ];
    }

    /** @dataProvider accepted */
    public function test_accepts(array $config, string $host = '0.0.0.0', int $port = 9501): void
    {
        self::assertInstanceOf(HeartbeatServer::class, new HeartbeatServer($host, $port, $config));
    }

    public static function accepted(): array
    {
        return [
            'nothing' => [[]],
            'limits, low' => [['worker_count' => 1, 'heartbeat_timeout' => 1.5, 'heartbeat_check_interval' => 1, 'max_connections' => 1]],
            'limits, high' => [['worker_count' => 128, 'heartbeat_timeout' => 1e9], '255.255.255.255', 65535],
            'numeric strings' => [['heartbeat_timeout' => '30.5', 'heartbeat_check_interval' => ' 10']],
            'unknown keys' => [['whatever' => 1, 5 => 'x']],
            'histories' => [['history' => ['chat/#' => ['count' => 100, 'bytes' => 1 << 20, 'ttl' => 3600], '+' => [], 7 => ['ttl' => 0.5, 'count' => null], 'a' => ['count' => 0]]]],
            'queue size' => [['channel_max_queue_size' => 1]],
            'host name' => [[], 'localhost'],
            'host name with digits, not an address' => [[], '256.1.1.1'],
            'IPv6' => [[], '::1'],
            'IPv6 any' => [[], '::'],
            'smallest port' => [[], '127.0.0.1', 1],
            'addresses and networks' => [['whitelist' => ['::1', 'fe80::/10'], 'blacklist' => ['10.0.0.0/8', '192.168.0.1'], 'max_connections_per_ip' => 0]],
            'keys of its own that are null' => [['whitelist' => null, 'max_requests_per_second' => null, 'stats_interval' => null]],
            'the lists by the names of the C library' => [['allow' => ['::1'], 'deny' => ['10.0.0.0/8']]],
            'frames as long as a bus carries' => [['max_frame_bytes' => 1 << 30]],
            'longer frames without a bus' => [['max_frame_bytes' => (1 << 30) + 1, 'bus' => false]],
            'rate limit keys' => [['enable_rate_limit' => false, 'rate_limit_capacity' => 10, 'rate_limit_refill_rate' => 2]],
        ];
    }

    /** @dataProvider typeErrors */
    public function test_some_wrong_values_are_type_errors(array $config): void
    {
        $this->expectException(TypeError::class);
        new HeartbeatServer('0.0.0.0', 9501, $config);
    }

    public static function typeErrors(): array
    {
        return [
            'max_connections null' => [['max_connections' => null]],
            'rate_limit_capacity a word' => [['rate_limit_capacity' => 'many']],
            'rate_limit_capacity an array' => [['rate_limit_capacity' => []]],
            'rate_limit_refill_rate a word' => [['rate_limit_refill_rate' => 'fast']],
            'rate_limit_refill_rate null' => [['rate_limit_refill_rate' => null]],
        ];
    }

    public function test_arguments_are_typed(): void
    {
        $this->expectException(TypeError::class);
        new HeartbeatServer('0.0.0.0', 'http');
    }

    public function test_any_timeout_from_one_second_up_is_fine_when_no_check_interval_is_given(): void
    {
        if (getenv('HEARTBUS_REFERENCE')) {
            self::markTestSkipped('the PHP library compares the timeout with its default check interval of 10 s');
        }
        foreach ([1, '1', 1.0, 5, 10] as $timeout) {
            self::assertInstanceOf(HeartbeatServer::class, new HeartbeatServer('0.0.0.0', 9501, ['heartbeat_timeout' => $timeout]));
        }
    }

    public function test_the_protocol_is_shown_and_anything_will_do(): void
    {
        foreach (['tcp', 'text', 'Heartbeat', 5] as $protocol) {
            self::assertSame($protocol, (new HeartbeatServer('127.0.0.1', 9600, ['protocol' => $protocol]))->getStats()['server']['protocol']);
        }
    }

    public function test_stats_of_a_server_that_was_not_started(): void
    {
        $stats = (new HeartbeatServer('127.0.0.1', 9600, ['worker_count' => 3]))->getStats();
        self::assertSame(['host' => '127.0.0.1', 'port' => 9600, 'workers' => 3, 'protocol' => 'tcp'], $stats['server']);
        self::assertEqualsCanonicalizing(['total', 'online', 'offline', 'total_registered', 'total_unregistered', 'total_timeout', 'total_heartbeats', 'total_messages'],
            array_keys($stats['nodes']));
        self::assertSame([0], array_values(array_unique($stats['nodes'])));
        self::assertEqualsCanonicalizing(['active_channels', 'active_nodes', 'total_send_queue', 'total_recv_queue', 'total_send_count', 'total_recv_count'],
            array_keys($stats['channels']));
        self::assertEqualsCanonicalizing(['active_connections', 'max_connections', 'total_connections', 'total_closed', 'usage_percent'], array_keys($stats['connections']));
        self::assertSame(1000000, $stats['connections']['max_connections']);
        self::assertEqualsCanonicalizing(['total_routed', 'total_failed', 'handlers_count', 'routes_count'], array_keys($stats['router']));
        self::assertEqualsCanonicalizing(['running', 'check_interval', 'check_count', 'timeout_callbacks'], array_keys($stats['monitor']));
    }
}
