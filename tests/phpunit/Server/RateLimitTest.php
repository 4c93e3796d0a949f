<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Peer, TestCase};

/** Token buckets: off unless asked for, per connection unless told otherwise, counted per frame. */
final class RateLimitTest extends TestCase
{
    public function test_is_off_unless_one_of_its_keys_is_set(): void
    {
        $peer = $this->server()->connect();
        self::assertSame([2000, 0], $this->pings($peer, 2000));
    }

    public function test_enabling_alone_means_a_hundred_and_ten_per_second(): void
    {
        $server = $this->server(['enable_rate_limit' => true]);
        $since = microtime(true);
        [$answered, $refused] = $this->pings($server->connect(), 300);
        self::assertGreaterThanOrEqual(100, $answered);
        self::assertLessThanOrEqual(100 + ceil(10 * (microtime(true) - $since)), $answered);
        self::assertSame($refused, $server->counter('rate_limited'));
    }

    public function test_disabling_wins_over_the_other_keys(): void
    {
        $server = $this->server(['enable_rate_limit' => false, 'rate_limit_capacity' => 1, 'rate_limit_refill_rate' => 1.0]);
        self::assertSame([100, 0], $this->pings($server->connect(), 100));
    }

    public function test_each_connection_has_its_own_bucket(): void
    {
        $server = $this->server(['rate_limit_capacity' => 5, 'rate_limit_refill_rate' => 0.001]);
        self::assertSame([5, 3], $this->pings($server->connect(), 8));
        self::assertSame([5, 3], $this->pings($server->connect(), 8));
    }

    public function test_by_ip_all_connections_of_an_address_share_one(): void
    {
        $server = $this->server(['rate_limit_capacity' => 5, 'rate_limit_refill_rate' => 0.001, 'rate_limit_by' => 'ip']);
        self::assertSame([3, 0], $this->pings($server->connect(), 3));
        self::assertSame([2, 4], $this->pings($server->connect(), 6));
    }

    public function test_all_connections_together_have_so_many_requests_per_second(): void
    {
        $server = $this->server(['max_requests_per_second' => 10]);
        $since = microtime(true);
        [$first, $second] = [$this->pings($server->connect(), 100), $this->pings($server->connect(), 100)];
        $answered = $first[0] + $second[0];
        self::assertGreaterThanOrEqual(10, $answered);
        // However long it took, by our clock it took at least as long as by the server's.
        self::assertLessThanOrEqual(10 + ceil(10 * (microtime(true) - $since)), $answered);
        self::assertSame(200 - $answered, $server->counter('rate_limited'));
    }

    public function test_the_limit_of_all_and_that_of_each_hold_together_and_zero_is_none(): void
    {
        $server = $this->server(['max_requests_per_second' => 1000, 'rate_limit_capacity' => 5, 'rate_limit_refill_rate' => 0.001]);
        self::assertSame([5, 3], $this->pings($server->connect(), 8));
        self::assertSame([5, 3], $this->pings($server->connect(), 8));
        self::assertSame([1000, 0], $this->pings($this->server(['max_requests_per_second' => 0])->connect(), 1000));
    }

    public function test_a_refused_frame_is_skipped_and_the_stream_stays_in_step(): void
    {
        $server = $this->server(['rate_limit_capacity' => 2, 'rate_limit_refill_rate' => 2.0], 'say_events($server, "data");');
        $peer = $server->connect();
        $peer->bytes(Frame::registration('a') . Frame::bytes(Frame::DATA, 'taken') . Frame::bytes(Frame::DATA, 'refused') . Frame::heartbeat());
        $peer->expect(Frame::REGISTER);
        $peer->expectError(429, 'Rate limit exceeded');
        $peer->expectError(429, 'Rate limit exceeded');
        self::assertSame('taken', $server->next('data')[1]);
        // Two tokens a second: soon there is one again, and the connection is still good.
        $this->until(function () use ($peer): bool {
            $peer->send(Frame::PING);
            return $peer->receive()->type === Frame::PONG;
        }, 'tokens come back');
        self::assertCount(1, $server->process->said('data'));
    }

    /** @return array{0: int, 1: int} how many pings were answered, how many refused */
    private function pings(Peer $peer, int $count): array
    {
        $peer->bytes(str_repeat(Frame::bytes(Frame::PING), $count));
        $types = [Frame::PONG => 0, Frame::ERROR => 0];
        for ($i = 0; $i < $count; $i++) {
            $frame = $peer->receive();
            $types[$frame->type]++;
            if ($frame->type === Frame::ERROR) {
                self::assertSame(['message' => 'Rate limit exceeded', 'code' => 429], $frame->json());
            }
        }
        return [$types[Frame::PONG], $types[Frame::ERROR]];
    }
}
