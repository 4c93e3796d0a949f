<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Peer, TestCase, TestServer};

/** Takeover of an id, and many nodes on one connection. */
final class ManyNodesTest extends TestCase
{
    public function test_the_newest_connection_takes_an_id_over_and_the_older_is_told_and_closed(): void
    {
        $server = $this->server([], 'say_events($server, "register", "replaced", "disconnected", "unregister", "timeout");');
        $older = $server->node('a');
        $newer = $server->node('a');
        $older->expectError(409, 'Replaced by a newer connection');
        $older->expectClosed();
        $newer->beat();
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 1, 'the older connection is gone');
        self::assertSame(1, $server->stats()['nodes']['online']);
        self::assertSame([['register', 'a'], ['replaced', 'a'], ['register', 'a']], $this->told($server));
    }

    public function test_the_late_close_of_the_older_connection_harms_nobody(): void
    {
        $server = $this->server([], 'say_events($server, "register", "replaced", "disconnected", "data");');
        $older = $server->node('a');
        $newer = $server->node('a');
        $older->send(Frame::UNREGISTER);
        $older->close();
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 1, 'the older connection is gone');
        $newer->beat();
        $newer->send(Frame::DATA, 'still here');
        self::assertSame('still here', $server->next('data')[1]);
        self::assertTrue($server->ask('return $server->sendTo("a", "hello");'));
        self::assertSame('hello', $newer->expect(Frame::DATA)->payload);
        self::assertSame([], $server->process->said('disconnected'));
    }

    public function test_an_id_that_is_fought_over_has_one_owner_in_the_end(): void
    {
        $server = $this->server([], 'say_events($server, "register", "replaced", "disconnected");');
        $peers = [];
        for ($i = 0; $i < 50; $i++) {
            $peers[] = $server->connect();
        }
        foreach ($peers as $peer) {
            $peer->bytes(Frame::registration('contested'));
        }
        $this->until(fn () => [count($server->process->said('register')), count($server->process->said('replaced')),
            $server->stats()['connections']['active_connections']] === [50, 49, 1], 'each had it, and one connection is left', 20);
        self::assertSame(1, $server->stats()['nodes']['online']);
        $alive = array_values(array_filter($peers, fn (Peer $peer) => !$peer->hasEnded()));
        self::assertCount(1, $alive);
        $alive[0]->expect(Frame::REGISTER);
        $alive[0]->beat();
    }

    public function test_registering_another_id_adds_a_node_with_its_own_channel(): void
    {
        $server = $this->server([], 'say_events($server, "register", "data");');
        $peer = $server->connect();
        $a = $peer->register('a')['channel_id'];
        $b = $peer->register('b')['channel_id'];
        self::assertNotSame($a, $b);
        self::assertSame(2, $server->stats()['nodes']['online']);
        self::assertSame(1, $server->stats()['connections']['active_connections']);
        $peer->send(Frame::DATA, 'first', 0)->send(Frame::DATA, 'to a', $a)->send(Frame::DATA, 'to b', $b);
        self::assertSame(['a', 'first', $a], $server->next('data'));
        self::assertSame(['a', 'to a', $a], $server->next('data'));
        self::assertSame(['b', 'to b', $b], $server->next('data'));
    }

    public function test_a_heartbeat_reply_repeats_the_channel_of_its_request(): void
    {
        $server = $this->server([], 'say_events($server, "heartbeat");');
        $peer = $server->connect();
        $peer->register('a');
        $b = $peer->register('b')['channel_id'];
        self::assertSame($b, $peer->beat($b)->channel);
        self::assertSame(['b'], $server->next('heartbeat'));
        self::assertSame(0, $peer->beat(0)->channel);
        $this->until(fn () => count($server->process->said('heartbeat')) === 3, 'a heartbeat for channel 0 is one for all nodes');
        self::assertEqualsCanonicalizing([['b'], ['a'], ['b']], $server->process->said('heartbeat'));
    }

    public function test_a_heartbeat_for_a_foreign_channel_is_silent_and_counted(): void
    {
        $server = $this->server();
        $foreign = $server->connect();
        $channel = $foreign->register('foreign')['channel_id'];
        $peer = $server->node('a');
        foreach ([$channel, 4711, -1, PHP_INT_MAX] as $wrong) {
            $peer->bytes(Frame::heartbeat($wrong));
        }
        $peer->expectSilence();
        self::assertSame(4, $server->counter('heartbeats_ignored'));
    }

    public function test_unregister_takes_one_node_with_a_channel_and_all_without(): void
    {
        $server = $this->server([], 'say_events($server, "unregister");');
        $peer = $server->connect();
        foreach (['a', 'b', 'c'] as $id) {
            $channels[$id] = $peer->register($id)['channel_id'];
        }
        $peer->send(Frame::UNREGISTER, '', $channels['b']);
        self::assertSame(['b'], $server->next('unregister'));
        $peer->beat($channels['a']);
        $peer->send(Frame::UNREGISTER, '', 4711);
        $peer->expectSilence();
        self::assertSame(2, $server->stats()['nodes']['online']);
        $peer->send(Frame::UNREGISTER);
        $peer->expectSilence();
        self::assertSame(0, $server->stats()['nodes']['online']);
        $this->until(fn () => count($server->process->said('unregister')) === 3, 'all are told');
        self::assertEqualsCanonicalizing([['a'], ['b'], ['c']], $server->process->said('unregister'));
    }

    public function test_one_node_of_several_that_times_out_is_named_and_the_connection_lives(): void
    {
        $server = $this->server(['heartbeat_timeout' => 4], 'say_events($server, "timeout");');
        $peer = $server->connect();
        $peer->register('quiet');
        $channel = $peer->register('lively')['channel_id'];
        $this->until(function () use ($peer, $channel, $server): bool {
            $peer->bytes(Frame::heartbeat($channel));
            return $server->process->said('timeout') === [['quiet']];
        }, 'the quiet node times out', 15);
        do {
            $frame = $peer->receive();
        } while ($frame->type === Frame::HEARTBEAT_RES);
        self::assertSame(Frame::ERROR, $frame->type);
        self::assertSame(408, $frame->json()['code']);
        self::assertStringContainsString('quiet', $frame->json()['message']);
        // Nobody beats any more: the last node takes the connection with it.
        $this->until(fn () => $peer->hasEnded(), 'the connection is closed with its last node', 15);
        self::assertSame(['quiet'], $server->next('timeout'));
        self::assertSame(['lively'], $server->next('timeout'));
    }

    public function test_one_of_several_nodes_that_is_taken_over_leaves_the_others_alone(): void
    {
        $server = $this->server([], 'say_events($server, "replaced");');
        $gateway = $server->connect();
        $a = $gateway->register('a')['channel_id'];
        $b = $gateway->register('b')['channel_id'];
        $newer = $server->node('a');
        $error = $gateway->expect(Frame::ERROR);
        self::assertSame(['message' => 'Replaced by a newer connection', 'code' => 409], $error->json());
        self::assertSame($a, $error->channel);
        $gateway->beat($b);
        $newer->beat();
        self::assertSame(2, $server->stats()['nodes']['online']);
    }

    public function test_disconnecting_one_of_several_nodes_leaves_the_connection_open(): void
    {
        $server = $this->server([], 'say_events($server, "disconnected");');
        $gateway = $server->connect();
        $gateway->register('a');
        $b = $gateway->register('b')['channel_id'];
        self::assertTrue($server->ask('return $server->disconnect("a");'));
        self::assertSame(['a'], $server->next('disconnected'));
        self::assertSame(Frame::ERROR, $gateway->receive()->type);
        $gateway->beat($b);
        self::assertTrue($server->ask('return $server->disconnect("b");'));
        $gateway->expectClosed();
    }

    public function test_when_the_last_node_has_left_the_register_timeout_starts_anew(): void
    {
        $server = $this->server(['register_timeout' => 3], 'say_events($server, "close");');
        $peer = $server->node('a');
        $peer->send(Frame::UNREGISTER);
        $peer->expectClosed(15);
        self::assertSame('register timeout', $server->next('close')[1]);
    }

    public function test_ten_thousand_nodes_share_one_connection_and_one_heartbeat(): void
    {
        $server = $this->server([], 'say_events($server, "timeout");');
        $peer = $server->connect();
        $bytes = '';
        for ($i = 0; $i < 10_000; $i++) {
            $bytes .= Frame::registration("n$i");
        }
        // Written in parts: the replies must be read in between, or both sides wait for each other.
        foreach (str_split($bytes, 60_000) as $part) {
            $peer->bytes($part);
            $peer->peek();
        }
        for ($i = 0; $i < 10_000; $i++) {
            self::assertSame("n$i", $peer->expect(Frame::REGISTER)->json()['node_id']);
        }
        $peer->bytes(Frame::registration('one too many'));
        self::assertSame(403, $peer->expect(Frame::ERROR)->json()['code']);
        $peer->beat();
        self::assertSame(10_000, $server->stats()['nodes']['online']);
        $peer->close();
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'all nodes leave with their connection');
    }

    /** @return list<array> what was told, in order, without the harness's own words */
    private function told(TestServer $server): array
    {
        return array_values(array_filter($server->process->history(), fn (array $said) => preg_match('/^(register|replaced|disconnected|unregister|timeout)$/', $said[0])));
    }
}
