<?php

namespace Heartbus\Tests\Classes;

use Exception;
use Heartbus\Tests\TestCase;
use PfinalClub\AsyncioHeartbeat\Protocol\Message;
use PfinalClub\AsyncioHeartbeat\Server\{ConnectionPool, TcpMultiplexServer};
use RuntimeException;
use TypeError;
use Workerman\Connection\TcpConnection;

final class ConnectionPoolTest extends TestCase
{
    public static function setUpBeforeClass(): void
    {
        // As much of Workerman's class as the pool touches.
        class_exists(TcpConnection::class) || eval('namespace Workerman\Connection; class TcpConnection {
            public $id = 0; public array $log = []; public ?\Throwable $fails = null;
            public function send($data) { $this->log[] = $data; if ($this->fails) { throw $this->fails; } }
            public function close() { $this->log[] = "closed"; if ($this->fails) { throw $this->fails; } }
        }');
    }

    public function test_connections_get_the_next_id(): void
    {
        $pool = new ConnectionPool(2);
        [$a, $b] = [new TcpConnection(), new TcpConnection()];
        self::assertSame([1, 2, 1, 2], [$pool->add($a), $pool->add($b), $a->id, $b->id]);
        self::assertSame([$b, null, true, false, 2], [$pool->get(2), $pool->get(3), $pool->has(1), $pool->has(3), $pool->count()]);
        self::assertSame([1 => $a, 2 => $b], $pool->getAll());
        self::assertSame([$a, null], [$pool->remove(1), $pool->remove(1)]);
        self::assertSame(3, $pool->add($a));
        self::assertSame(['active_connections' => 2, 'max_connections' => 2, 'total_connections' => 3, 'total_closed' => 1, 'usage_percent' => 100], $pool->getStats());
        $this->expectExceptionObject(new RuntimeException('Connection pool is full'));
        $pool->add(new TcpConnection());
    }

    public function test_usage_divides_as_php_does(): void
    {
        $pool = new ConnectionPool(3);
        self::assertSame(0, $pool->getStats()['usage_percent']);
        $pool->add(new TcpConnection());
        self::assertSame(1 / 3 * 100, $pool->getStats()['usage_percent']);
        self::assertSame([1000000, 100], [(new ConnectionPool())->getStats()['max_connections'], (new ConnectionPool(0))->getStats()['usage_percent']]);
    }

    public function test_clear_closes_all_even_those_that_fail(): void
    {
        $pool = new ConnectionPool();
        $connections = [new TcpConnection(), new TcpConnection()];
        $connections[0]->fails = new Exception('x');
        array_map($pool->add(...), $connections);
        $pool->clear();
        self::assertSame([['closed'], ['closed'], 0, 0], [$connections[0]->log, $connections[1]->log, $pool->count(), $pool->getStats()['total_closed']]);
    }

    public function test_what_is_no_connection_is_refused(): void
    {
        $this->expectException(TypeError::class);
        $this->expectExceptionMessage('must be of type Workerman\Connection\TcpConnection, stdClass given');
        (new ConnectionPool())->add(new \stdClass());
    }

    public function test_channels_of_connections(): void
    {
        $server = new TcpMultiplexServer();
        $connection = new TcpConnection();
        $connection->id = 7;
        self::assertSame([1, 2], [$server->createChannel($connection, 'n'), $server->createChannel($connection, 'n')]);
        self::assertSame($server->getScheduler(), $server->getScheduler());
        $channel = $server->getScheduler()->getChannel(2);
        self::assertSame([2, 0, 1], [$server->getConnectionChannelCount(7), $server->getConnectionChannelCount(8), $server->getStats()['connections_with_channels']]);
        $message = Message::createData('x', 1);
        self::assertTrue($server->sendToChannel(99, $message, $connection));
        self::assertSame([$message->encode()], $connection->log);
        $connection->fails = new Exception('x');
        self::assertFalse($server->sendToChannel(1, $message, $connection));
        $server->closeConnectionChannels(7);
        $server->closeConnectionChannels(7);
        self::assertSame([true, 0, 0, ['connections_with_channels', 'scheduler_stats']], [$channel->isClosed(), $server->getConnectionChannelCount(7),
            $server->getStats()['scheduler_stats']['active_channels'], array_keys($server->getStats())]);
    }
}
