--TEST--
A wrong configuration is refused with the texts of the PHP library
--EXTENSIONS--
heartbus
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

function refusal(mixed ...$arguments): void
{
    try {
        new HeartbeatServer(...$arguments);
        echo "accepted\n";
    } catch (Throwable $exception) {
        $previous = $exception->getPrevious();
        echo get_class($exception), ': ', $exception->getMessage(), $previous ? ' <- ' . get_class($previous) : '', "\n";
    }
}

refusal('127.0.0.1', 9501, ['heartbeat_timeout' => '2.5', 'an unknown key' => true]);
refusal('127.0.0.1', 9501, ['worker_count' => 0]);
refusal('127.0.0.1', 9501, ['worker_count' => 4.0]);
refusal('127.0.0.1', 9501, ['heartbeat_timeout' => 5, 'heartbeat_check_interval' => 5]);
refusal('127.0.0.1', 9501, ['max_connections' => null]);
refusal('not a host');
refusal('::1', 65536);
refusal('127.0.0.1', 9501, ['loop' => 'whatever']);
?>
--EXPECTF--
accepted
RuntimeException: Configuration validation failed: worker_count must be >= 1 <- InvalidArgumentException
RuntimeException: Configuration validation failed: Config key 'worker_count' must be of type int, double given <- InvalidArgumentException
RuntimeException: Configuration validation failed: heartbeat_check_interval should be less than heartbeat_timeout <- InvalidArgumentException
TypeError: PfinalClub\AsyncioHeartbeat\Server\ConnectionPool::__construct(): Argument #1 ($maxConnections) must be of type int, null given
RuntimeException: Configuration validation failed: Invalid host: not a host <- InvalidArgumentException
RuntimeException: Configuration validation failed: Invalid port: 65536 <- InvalidArgumentException
RuntimeException: Configuration validation failed: loop must be one of 'auto', %s <- InvalidArgumentException
