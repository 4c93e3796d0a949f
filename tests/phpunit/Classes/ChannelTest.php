<?php

namespace Heartbus\Tests\Classes;

use Error;
use Fiber;
use Heartbus\Future;
use Heartbus\Tests\TestCase;
use PfinalClub\AsyncioHeartbeat\Channel\Channel;
use RuntimeException;
use TypeError;

final class ChannelTest extends TestCase
{
    private function full(): Channel
    {
        $channel = new Channel(7, 'n', 2);
        foreach (['a', 'b'] as $item) {
            $channel->send($item);
            $channel->putRecv($item);
        }
        return $channel;
    }

    public function test_an_open_channel_takes_in_both_directions(): void
    {
        $channel = new Channel(7, 'n');
        self::assertSame([true, true, true, true], [$channel->send('a'), $channel->trySend('b'), $channel->putRecv('c'), $channel->tryPutRecv('d')]);
        self::assertSame([2, 2], [$channel->getSendQueueSize(), $channel->getRecvQueueSize()]);
        self::assertSame(['a', 'b'], $channel->getSendQueue());
        self::assertSame([], $channel->getSendQueue());
        self::assertSame(['c', 'd'], [$channel->recv(), $channel->recv()]);
    }

    public function test_each_queue_has_the_limit_for_itself(): void
    {
        $channel = $this->full();
        self::assertSame([false, false, false, false], [$channel->send('c'), $channel->trySend('c'), $channel->putRecv('c'), $channel->tryPutRecv('c')]);
        self::assertSame(['a', 'b'], $channel->getSendQueue());
        self::assertTrue($channel->send('c'));
        self::assertFalse($channel->putRecv('c'));
        $default = new Channel(1, 'n');
        for ($i = 0; $i < 1000; $i++) {
            self::assertTrue($default->send('x'));
        }
        self::assertFalse($default->send('x'));
    }

    public function test_drop_oldest_makes_room_and_is_not_counted(): void
    {
        $channel = $this->full();
        self::assertTrue($channel->trySend('c', true));
        self::assertTrue($channel->tryPutRecv('c', true));
        self::assertSame([3, 0], [$channel->getStats()['send_count'], $channel->getStats()['recv_count']]);
        self::assertSame(['b', 'c'], $channel->getSendQueue());
        self::assertSame(['b', 'c'], [$channel->recv(), $channel->recv()]);
    }

    public function test_a_closed_channel_refuses_each_in_its_way(): void
    {
        $channel = $this->full();
        $channel->close();
        $channel->close();
        self::assertTrue($channel->isClosed());
        self::assertSame([0, 0], [$channel->getSendQueueSize(), $channel->getRecvQueueSize()]);
        self::assertSame([false, false, false, null], [$channel->trySend('x', true), $channel->putRecv('x'), $channel->tryPutRecv('x', true), $channel->recv()]);
        self::assertTrue($channel->recvAsync()->isDone());
        self::assertNull($channel->recvAsync()->getResult());
        $this->expectException(RuntimeException::class);
        $this->expectExceptionMessage('Channel 7 is closed');
        $channel->send('x');
    }

    public function test_recv_without_a_loop_blocks_for_the_timeout(): void
    {
        $channel = new Channel(1, 'n');
        $start = microtime(true);
        self::assertNull($channel->recv(0.15));
        self::assertGreaterThan(0.149, microtime(true) - $start);
        $channel->putRecv('x');
        self::assertSame('x', $channel->recv());
        self::assertSame(['waits' => 0, 'count' => 1], ['waits' => $channel->getStats()['waiting_futures'], 'count' => $channel->getStats()['recv_count']]);
    }

    public function test_blocking_lets_signal_handlers_run(): void
    {
        $channel = new Channel(1, 'n');
        pcntl_async_signals(true);
        pcntl_signal(SIGALRM, fn () => $channel->putRecv('from the handler'));
        pcntl_alarm(1);
        try {
            self::assertSame('from the handler', $channel->recv());
        } finally {
            pcntl_signal(SIGALRM, SIG_DFL);
        }
    }

    public function test_recv_suspends_a_fiber_until_a_message_comes(): void
    {
        $channel = new Channel(1, 'n');
        $fiber = new Fiber(fn () => [$channel->recv(), $channel->recv(), $channel->recv()]);
        $fiber->start();
        self::assertSame(1, $channel->getStats()['waiting_futures']);
        $channel->putRecv('a');
        self::assertTrue($fiber->isSuspended());
        $channel->tryPutRecv('b');
        $channel->close();
        self::assertSame(['a', 'b', null], $fiber->getReturn());
        self::assertSame(0, $channel->getStats()['waiting_futures']);
    }

    public function test_a_fiber_that_ended_while_it_waited_takes_no_message(): void
    {
        $channel = new Channel(1, 'n');
        $fiber = new Fiber(fn () => $channel->recv());
        $fiber->start();
        try {
            $fiber->throw(new RuntimeException('cancelled'));
            self::fail('the exception was lost');
        } catch (RuntimeException $exception) {
            self::assertSame('cancelled', $exception->getMessage());
        }
        self::assertSame(0, $channel->getStats()['waiting_futures']);
        $channel->putRecv('kept');
        self::assertSame('kept', $channel->recv());
    }

    public function test_others_may_resume_a_waiting_fiber(): void
    {
        $channel = new Channel(1, 'n');
        $fiber = new Fiber(fn () => $channel->recv());
        $fiber->start();
        $fiber->resume('not a message');
        self::assertTrue($fiber->isSuspended());
        $channel->putRecv('x');
        self::assertSame('x', $fiber->getReturn());
    }

    public function test_the_oldest_waiter_is_served_first(): void
    {
        $channel = new Channel(1, 'n');
        [$first, $second] = [$channel->recvAsync(), $channel->recvAsync()];
        self::assertSame(2, $channel->getStats()['waiting_futures']);
        $channel->putRecv('a');
        self::assertSame([true, false], [$first->isDone(), $second->isDone()]);
        $channel->putRecv('b');
        self::assertSame(['a', 'b', 2, 0], [$first->getResult(), $second->getResult(), $channel->getStats()['recv_count'], $channel->getRecvQueueSize()]);
        $channel->putRecv('c');
        self::assertSame('c', $channel->recvAsync()->getResult());
    }

    public function test_a_future_that_was_given_a_result_elsewhere_swallows_no_message(): void
    {
        $channel = new Channel(1, 'n');
        $channel->recvAsync()->setResult('timed out');
        $waits = $channel->recvAsync();
        $channel->putRecv('a');
        self::assertSame('a', $waits->getResult());
        self::assertTrue($channel->putRecv('b'));
        self::assertSame('b', $channel->recv());
    }

    public function test_close_resolves_the_waiters_with_null(): void
    {
        $channel = new Channel(1, 'n');
        $future = $channel->recvAsync();
        $seen = [];
        $future->addDoneCallback(function ($future) use (&$seen, $channel): void {
            $seen[] = [$future->getResult(), $channel->isClosed(), $channel->putRecv('late')];
            $channel->close();
        });
        $channel->close();
        self::assertSame([[null, true, false]], $seen);
    }

    public function test_a_callback_may_use_the_channel_again(): void
    {
        $channel = new Channel(1, 'n', 1);
        $got = [];
        $again = function ($future) use (&$again, &$got, $channel): void {
            $got[] = $future->getResult();
            $channel->recvAsync()->addDoneCallback($again);
        };
        $channel->recvAsync()->addDoneCallback($again);
        foreach (['a', 'b', 'c'] as $item) {
            self::assertTrue($channel->putRecv($item));
        }
        self::assertSame(['a', 'b', 'c'], $got);
    }

    public function test_stats(): void
    {
        $since = microtime(true);
        $channel = $this->full();
        $channel->recv();
        $stats = $channel->getStats();
        self::assertSame(['id' => 7, 'node_id' => 'n', 'closed' => false, 'send_queue_size' => 2, 'recv_queue_size' => 1, 'waiting_futures' => 0,
            'send_count' => 2, 'recv_count' => 1], array_slice($stats, 0, 8));
        self::assertSame(['created_at', 'lifetime'], array_keys(array_slice($stats, 8)));
        self::assertSince($since, $stats['created_at']);
        self::assertGreaterThan(0, $stats['lifetime']);
    }

    public function test_identity_is_readonly_and_typed(): void
    {
        $channel = new Channel('7', 5);
        self::assertSame([7, '5'], [$channel->id, $channel->nodeId]);
        foreach (['id', 'nodeId'] as $property) {
            try {
                $channel->$property = 1;
                self::fail("$property was changed");
            } catch (Error $error) {
                self::assertSame('Cannot modify readonly property ' . Channel::class . "::\$$property", $error->getMessage());
            }
        }
        try {
            $channel->__construct(1, 'x');
            self::fail('constructed twice');
        } catch (Error) {
        }
        $this->expectException(TypeError::class);
        new Channel('x', 'n');
    }

    public function test_any_bytes_pass(): void
    {
        $channel = new Channel(1, 'n');
        $bytes = random_bytes(100_000) . "\0\xff";
        $channel->putRecv($bytes);
        $channel->send($bytes);
        self::assertSame([$bytes, [$bytes]], [$channel->recv(), $channel->getSendQueue()]);
    }

    public function test_a_queue_that_never_runs_empty_does_not_grow(): void
    {
        $channel = new Channel(1, 'n', 3);
        $before = memory_get_usage();
        for ($i = 0; $i < 200_000; $i++) {
            $channel->tryPutRecv("$i", true);
        }
        self::assertLessThan(20_000, memory_get_usage() - $before);
        self::assertSame(['199997', '199998', '199999'], [$channel->recv(), $channel->recv(), $channel->recv()]);
    }

    public function test_clones_serializes_and_extends_as_a_class_of_php_code(): void
    {
        $channel = $this->full();
        $copy = clone $channel;
        $restored = unserialize(serialize($channel));
        self::assertEquals($channel, $restored);
        $channel->recv();
        foreach ([$copy, $restored] as $other) {
            self::assertSame(['a', 'b', ['a', 'b'], 7], [$other->recv(), $other->recv(), $other->getSendQueue(), $other->id]);
        }
        $own = new class (1, 'n') extends Channel {
            public array $log = [];
            private array $sendQueue = ['my own'];

            public function send(string $data): bool
            {
                $this->log[] = $data;
                return parent::send(strtoupper($data));
            }

            public function mine(): array
            {
                return $this->sendQueue;
            }
        };
        $own->send('a');
        self::assertSame([['a'], ['A'], ['my own']], [$own->log, (clone $own)->getSendQueue(), $own->mine()]);
    }

    public function test_cycles_are_collected(): void
    {
        gc_collect_cycles();
        for ($i = 0; $i < 3; $i++) {
            $channel = new Channel(1, 'n');
            $channel->recvAsync()->addDoneCallback(fn () => $channel);
            unset($channel);
        }
        self::assertGreaterThanOrEqual(9, gc_collect_cycles());
    }

    public function test_the_future_has_the_methods_of_pfinals(): void
    {
        $future = (new Channel(1, 'n'))->recvAsync();
        self::assertInstanceOf(Future::class, $future);
        self::assertSame([false, false, null], [$future->isDone(), $future->hasException(), $future->getException()]);
        $called = [];
        $future->addDoneCallback(function ($done) use (&$called, $future): void {
            $called[] = $done === $future;
        });
        try {
            $future->getResult();
            self::fail('there is no result');
        } catch (RuntimeException $exception) {
            self::assertSame('Future not done yet', $exception->getMessage());
        }
        $future->setResult([1]);
        $future->addDoneCallback(function () use (&$called): void {
            $called[] = 'at once';
        });
        self::assertSame([[true, 'at once'], [1], true], [$called, $future->getResult(), $future->isDone()]);
        foreach ([fn () => $future->setResult(2), fn () => $future->setException(new Error('x'))] as $again) {
            try {
                $again();
                self::fail('done twice');
            } catch (RuntimeException $exception) {
                self::assertSame('Future already done', $exception->getMessage());
            }
        }
        $failed = new Future();
        $failed->setException($error = new RuntimeException('why'));
        self::assertSame([true, $error], [$failed->hasException(), $failed->getException()]);
        $this->expectExceptionObject($error);
        $failed->getResult();
    }

    public function test_a_failing_callback_of_a_future_stops_no_other(): void
    {
        $log = tempnam(sys_get_temp_dir(), 'log');
        $before = ini_set('error_log', $log);
        $future = new Future();
        $future->addDoneCallback(fn () => throw new Error('broken'));
        $future->addDoneCallback(function () use (&$called): void {
            $called = true;
        });
        $future->setResult(1);
        ini_set('error_log', $before);
        self::assertTrue($called);
        self::assertStringContainsString('Callback error in Future: broken', file_get_contents($log));
        unlink($log);
        $this->expectException(TypeError::class);
        $future->addDoneCallback('no such function');
    }
}
