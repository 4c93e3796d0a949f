<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, TestCase, Wait};

/** Who is alive: only heartbeats and registrations count, silence is noticed within a tenth of a second. */
final class TimeoutTest extends TestCase
{
    private const SAY_HOW_LATE = '$server->on("timeout", fn (Node $node) => say("timeout", $node->id, $node->getSecondsSinceLastHeartbeat(), $node->isOnline()));';

    public function test_a_silent_node_is_down_soon_after_the_timeout_and_its_connection_is_closed_without_a_word(): void
    {
        $server = $this->server(['heartbeat_timeout' => 3], self::SAY_HOW_LATE . 'say_events($server, "disconnected", "close");');
        $tries = 0;
        // The engine's part is a tenth of a second; a busy machine may take the rest, though not every time.
        do {
            $tries++;
            $peer = $server->node('a');
            $peer->beat();
            $peer->expectClosed(15);
            [$id, $silence, $online] = $server->next('timeout');
            self::assertSame(['a', false], [$id, $online]);
            self::assertGreaterThan(3.0, $silence);
            self::assertSame('heartbeat timeout', $server->next('close')[1]);
        } while ($silence >= 4.0 && $tries < 5);
        self::assertLessThan(4.0, $silence);
        $stats = $server->stats();
        self::assertSame([0, $tries], [$stats['nodes']['online'], $stats['nodes']['total_timeout']]);
        self::assertSame([], $server->process->said('disconnected'));
    }

    public function test_the_check_interval_does_not_delay_detection(): void
    {
        $server = $this->server(['heartbeat_timeout' => 2, 'heartbeat_check_interval' => 1.9], self::SAY_HOW_LATE);
        $tries = 0;
        do {
            $server->node('a')->expectClosed(15);
            $silence = $server->next('timeout')[1];
        } while ($silence >= 3.0 && ++$tries < 5);
        self::assertLessThan(3.0, $silence);
    }

    public function test_heartbeats_keep_a_node_alive_and_data_does_not(): void
    {
        $server = $this->server(['heartbeat_timeout' => 5], self::SAY_HOW_LATE);
        $alive = $server->node('alive');
        $talkative = $server->node('talkative');
        $this->until(function () use ($server, $alive, $talkative): bool {
            $alive->bytes(Frame::heartbeat());
            $talkative->bytes(Frame::bytes(Frame::DATA, 'I talk, but I do not beat'));
            return $server->process->said('timeout') !== [];
        }, 'one of them times out', 20);
        self::assertSame(['talkative'], array_column($server->process->said('timeout'), 0));
        self::assertSame(1, $server->stats()['nodes']['online']);
    }

    public function test_registering_again_counts_as_life(): void
    {
        $server = $this->server(['heartbeat_timeout' => 5], self::SAY_HOW_LATE);
        $peer = $server->node('a');
        Wait::pass(6.5, fn () => $peer->bytes(Frame::registration('a')));
        self::assertSame([], $server->process->said('timeout'));
    }

    public function test_a_lost_connection_is_told_at_once_and_not_at_the_timeout(): void
    {
        $server = $this->server([], 'say_events($server, "disconnected", "timeout", "close");');
        $closing = $server->node('closing');
        $resetting = $server->node('resetting');
        $closing->close();
        self::assertSame(['closing'], $server->next('disconnected'));
        self::assertSame('peer closed', $server->next('close')[1]);
        $resetting->reset();
        self::assertSame(['resetting'], $server->next('disconnected'));
        self::assertSame('connection lost', $server->next('close')[1]);
        self::assertSame([], $server->process->said('timeout'));
    }

    public function test_a_thousand_silent_nodes_time_out_together(): void
    {
        $server = $this->server(['heartbeat_timeout' => 3], '$timeouts = 0; $server->on("timeout", function () use (&$timeouts) { $timeouts++; });
            $server->every(0.05, function () use (&$timeouts) { if ($timeouts === 1000) { $timeouts = -1; say("all"); } });');
        $peer = $server->connect();
        $peer->bytes(implode('', array_map(fn (int $i) => Frame::registration("n$i"), range(1, 1000))));
        $server->next('all', 20);
        $this->until(fn () => $server->stats()['nodes']['online'] === 0, 'nobody is online');
    }

    public function test_a_stopped_and_continued_server_declares_no_live_node_dead(): void
    {
        $server = $this->server(['heartbeat_timeout' => 4, 'register_timeout' => 4], 'say_events($server, "timeout", "close");');
        $alive = [];
        for ($i = 0; $i < 20; $i++) {
            $alive[] = $server->node("alive$i");
        }
        $server->process->freeze();
        Wait::pass(5.5, fn () => array_map(fn ($peer) => $peer->bytes(Frame::heartbeat()), $alive));
        $server->process->signal(SIGCONT);
        foreach ($alive as $peer) {
            $peer->expect(Frame::HEARTBEAT_RES);
        }
        self::assertSame(20, $server->stats()['nodes']['online']);
        self::assertSame([], $server->process->said('timeout'));
        self::assertSame([], $server->process->said('close'));
        // And the watch goes on: nobody beats any more.
        $this->until(fn () => count($server->process->said('timeout')) === 20, 'those who are silent now time out', 15);
    }

    public function test_a_connection_that_never_registers_is_closed_after_the_register_timeout(): void
    {
        $server = $this->server(['register_timeout' => 3], 'say_events($server, "close");');
        $peer = $server->connect();
        $peer->expectSilence();
        $peer->expectClosed(15);
        self::assertSame('register timeout', $server->next('close')[1]);
        self::assertSame(1, $server->counter('register_timeouts'));
    }
}
