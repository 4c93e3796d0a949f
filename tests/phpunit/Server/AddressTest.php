<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Peer, TestCase, TestServer};

/** Who may come in, by address: the keys that the PHP library has in its files only, and never reads. */
final class AddressTest extends TestCase
{
    public function test_a_listed_address_is_refused_without_a_word_and_others_are_not(): void
    {
        $server = $this->server(['blacklist' => ['127.0.0.1', '10.0.0.0/8']]);
        $this->from($server, '127.0.0.1')->expectClosed();
        $this->from($server, '127.0.0.2')->expectSilence();
        self::assertSame([1, 0, 1], [$server->counter('connections_denied'), $server->counter('connections_rejected'),
            $server->stats()['connections']['total_connections']]);
    }

    public function test_with_a_whitelist_only_those_on_it_come_in(): void
    {
        $server = $this->server(['whitelist' => ['127.0.0.4/30', '127.0.0.9']]);
        foreach (['127.0.0.4', '127.0.0.7', '127.0.0.9'] as $address) {
            $this->from($server, $address)->expectSilence();
        }
        foreach (['127.0.0.1', '127.0.0.3', '127.0.0.8', '127.0.0.10'] as $address) {
            $this->from($server, $address)->expectClosed();
        }
        self::assertSame(4, $server->counter('connections_denied'));
    }

    public function test_the_blacklist_wins_and_empty_lists_are_none(): void
    {
        $server = $this->server(['whitelist' => ['127.0.0.0/24'], 'blacklist' => ['127.0.0.2']]);
        $this->from($server, '127.0.0.1')->expectSilence();
        $this->from($server, '127.0.0.2')->expectClosed();
        $this->from($this->server(['whitelist' => [], 'blacklist' => []]), '127.0.0.3')->expectSilence();
    }

    public function test_an_address_has_so_many_connections_at_once(): void
    {
        $server = $this->server(['max_connections_per_ip' => 2]);
        $first = $this->from($server, '127.0.0.1');
        $first->register('a');
        $this->from($server, '127.0.0.1')->expectSilence();
        $third = $this->from($server, '127.0.0.1');
        $third->expectError(503, 'Server is full or connection limit reached');
        $third->expectClosed();
        $this->from($server, '127.0.0.2')->expectSilence();
        self::assertSame(1, $server->counter('connections_rejected'));

        $first->close();
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 2, 'the first one is gone');
        $this->from($server, '127.0.0.1')->expectSilence();
    }

    public function test_zero_is_no_limit(): void
    {
        $server = $this->server(['max_connections_per_ip' => 0]);
        for ($i = 0; $i < 20; $i++) {
            $this->from($server, '127.0.0.1')->send(Frame::PING)->expect(Frame::PONG);
        }
        self::assertSame(0, $server->counter('connections_rejected'));
    }

    private function from(TestServer $server, string $address): Peer
    {
        return Peer::connect($server->port, '127.0.0.1', $address);
    }
}
