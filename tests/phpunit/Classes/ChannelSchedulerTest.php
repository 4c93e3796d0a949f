<?php

namespace Heartbus\Tests\Classes;

use Error;
use Exception;
use Heartbus\Tests\TestCase;
use PfinalClub\AsyncioHeartbeat\Channel\{Channel, ChannelScheduler, MessageRouter};
use PfinalClub\AsyncioHeartbeat\Client\TcpMultiplexClient;
use PfinalClub\AsyncioHeartbeat\Protocol\Message;
use TypeError;

final class ChannelSchedulerTest extends TestCase
{
    public function test_channels_by_id_and_by_node(): void
    {
        $scheduler = new ChannelScheduler();
        $a = $scheduler->createChannel('a');
        $b = $scheduler->createChannel('b', 1);
        $second = $scheduler->createChannel('a');
        self::assertSame([1, 2, 3], [$a->id, $b->id, $second->id]);
        self::assertSame($a, $scheduler->getChannel(1));
        self::assertNull($scheduler->getChannel(4));
        self::assertSame([1 => $a, 3 => $second], $scheduler->getNodeChannels('a'));
        self::assertSame([[], null, false], [$scheduler->getNodeChannels('x'), $scheduler->getNodeMainChannel('x'), $scheduler->hasNodeChannels('x')]);
        self::assertSame([$a, true], [$scheduler->getNodeMainChannel('a'), $scheduler->hasNodeChannels('a')]);
        self::assertSame([3, 2], [$scheduler->getActiveChannelCount(), $scheduler->getActiveNodeCount()]);
        self::assertTrue($b->send('x') && !$b->send('y'));
    }

    public function test_closing_forgets_and_counts(): void
    {
        $scheduler = new ChannelScheduler();
        [$a, $b, $c] = [$scheduler->createChannel('n'), $scheduler->createChannel('n'), $scheduler->createChannel('m')];
        $scheduler->closeChannel(1);
        $scheduler->closeChannel(1);
        $scheduler->closeChannel(99);
        self::assertTrue($a->isClosed());
        self::assertSame($b, $scheduler->getNodeMainChannel('n'));
        $scheduler->closeNodeChannels('n');
        $scheduler->closeNodeChannels('nobody');
        self::assertSame([3 => $c], $scheduler->getAllChannels());
        self::assertSame([1, 1, 3, 2], array_values(array_slice($scheduler->getStats(), 0, 4)));
        self::assertSame(4, $scheduler->createChannel('n')->id);
    }

    public function test_cleanup_removes_what_was_closed_directly(): void
    {
        $scheduler = new ChannelScheduler();
        $scheduler->createChannel('n')->close();
        self::assertTrue($scheduler->hasNodeChannels('n'));
        self::assertSame([1, 0], [$scheduler->cleanup(), $scheduler->cleanup()]);
        self::assertSame([false, 0, 0], [$scheduler->hasNodeChannels('n'), $scheduler->getActiveNodeCount(), $scheduler->getStats()['total_closed']]);
    }

    public function test_stats(): void
    {
        $scheduler = new ChannelScheduler();
        $channel = $scheduler->createChannel('n');
        $channel->send('a');
        $channel->putRecv('b');
        $channel->putRecv('c');
        $channel->recv();
        self::assertSame(['active_channels' => 1, 'active_nodes' => 1, 'total_send_queue' => 1, 'total_recv_queue' => 1, 'total_send_count' => 1,
            'total_recv_count' => 1], $scheduler->getStatsSummary());
        self::assertSame(['active_channels', 'active_nodes', 'total_created', 'total_closed', 'channels'], array_keys($scheduler->getStats()));
        self::assertSame(array_keys($channel->getStats()), array_keys($scheduler->getStats()['channels'][0]));
    }

    public function test_a_waiter_that_closes_the_channel_again_counts_once(): void
    {
        $scheduler = new ChannelScheduler();
        $scheduler->createChannel('n')->recvAsync()->addDoneCallback(fn () => $scheduler->closeNodeChannels('n'));
        $scheduler->closeChannel(1);
        self::assertSame([0, 1], [$scheduler->getActiveChannelCount(), $scheduler->getStats()['total_closed']]);
    }

    public function test_clones_and_serializes_with_its_channels(): void
    {
        $scheduler = new ChannelScheduler();
        $scheduler->createChannel('12')->putRecv('x');
        $restored = unserialize(serialize($scheduler));
        self::assertEquals($scheduler, $restored);
        self::assertSame($restored->getChannel(1), $restored->getNodeMainChannel('12'));
        self::assertSame([1, 2], [$scheduler->getChannel(1)->getRecvQueueSize(), (clone $scheduler)->createChannel('a')->id]);
        self::assertNull($scheduler->getChannel(2));
    }

    private function router(?ChannelScheduler &$scheduler = null): MessageRouter
    {
        return new MessageRouter($scheduler = new ChannelScheduler());
    }

    public function test_the_router_prefers_the_channel_then_the_handler(): void
    {
        $router = $this->router($scheduler);
        $channel = $scheduler->createChannel('n', 1);
        $handled = [];
        $router->registerHandler(Message::TYPE_DATA, function (Message $message) use (&$handled): void {
            $handled[] = $message->payload;
        });
        self::assertTrue($router->route(Message::createData('a', 1)));
        self::assertTrue($router->route(Message::createData('b', 1)));
        self::assertSame('b', $channel->recv());
        $channel->close();
        self::assertTrue($router->route(Message::createData('c', 1)));
        self::assertTrue($router->route(Message::createData('d')));
        self::assertTrue($router->route(Message::createData('e', 99)));
        $router->unregisterHandler(Message::TYPE_DATA);
        self::assertFalse($router->route(Message::createData('f', 1)));
        self::assertSame(['c', 'd', 'e'], $handled);
        self::assertSame(['total_routed' => 5, 'total_failed' => 1, 'handlers_count' => 0, 'routes_count' => 0], $router->getStats());
    }

    public function test_an_exception_of_a_handler_is_a_failure_and_an_error_is_not_caught(): void
    {
        $router = $this->router();
        $router->registerHandler(3, fn () => throw new Exception('no'));
        self::assertFalse($router->route(Message::createData('x')));
        self::assertSame(1, $router->getStats()['total_failed']);
        $router->registerHandler(3, fn () => throw new Error('really not'));
        $this->expectExceptionMessage('really not');
        $router->route(Message::createData('x'));
    }

    public function test_broadcasts_count_those_that_took_it(): void
    {
        $router = $this->router($scheduler);
        $channels = [$scheduler->createChannel('a', 1), $scheduler->createChannel('a', 1), $scheduler->createChannel('b')];
        self::assertSame([2, 0, 3], [$router->broadcast('a', Message::createData('1')), $router->broadcast('x', Message::createData('1')), $router->broadcastAll(Message::createData('2'))]);
        $channels[0]->close();
        self::assertSame([1, 2, 8], [$router->broadcast('a', Message::createData('3')), $router->broadcastAll(Message::createData('4')), $router->getStats()['total_routed']]);
        self::assertSame('4', $channels[1]->recv());
    }

    public function test_routes_match_as_fnmatch_in_the_order_they_were_added(): void
    {
        $router = $this->router();
        $router->addRoute('room.[a-c]?', 1);
        $router->addRoute('room.*', 2);
        $router->addRoute('*', 3);
        $router->addRoute('room.*', 4);
        foreach (['room.a1' => 1, 'room.d1' => 4, 'room./x' => 4, '.hidden' => 3, 'ROOM.a1' => 3, '' => 3] as $key => $channel) {
            self::assertSame($channel, $router->matchRoute((string) $key), $key);
        }
        self::assertSame(3, $router->getStats()['routes_count']);
        $router->removeRoute('*');
        self::assertNull($router->matchRoute('hall'));
    }

    public function test_the_router_asks_a_scheduler_of_the_applications_own(): void
    {
        $scheduler = new class extends ChannelScheduler {
            public function getChannel(int $channelId): ?Channel
            {
                return parent::getChannel(1);
            }
        };
        $channel = $scheduler->createChannel('n');
        self::assertTrue((new MessageRouter($scheduler))->route(Message::createData('x', 500)));
        self::assertSame('x', $channel->recv());
        $this->expectException(TypeError::class);
        (new MessageRouter($scheduler))->registerHandler(1, 'no such function');
    }

    public function test_channels_of_a_client(): void
    {
        $client = new TcpMultiplexClient();
        $channel = $client->createChannel(5, 'n');
        $other = $client->createChannel(-1, 'm');
        self::assertSame([5, 'n', $channel, null, 2], [$channel->id, $channel->nodeId, $client->getChannel(5), $client->getChannel(6), $client->getChannelCount()]);
        self::assertSame([5 => $channel, -1 => $other], $client->getAllChannels());
        $client->closeChannel(5);
        $client->closeChannel(5);
        self::assertSame([true, 1], [$channel->isClosed(), $client->getChannelCount()]);
        $client->closeAll();
        self::assertSame([true, []], [$other->isClosed(), $client->getAllChannels()]);
    }
}
