<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{Frame, Peer, ServerApp, TestCase};

/** A PHP worker that does not come back from a callback: the engine goes on without it, within bounds. */
final class HangTest extends TestCase
{
    private const HANG = ServerApp::NOTE . '
        $server->on("data", function (Node $node, string $payload) use ($server) {
            note($server, $node, $payload);
            if ($payload === "hang") {
                say("hangs");
                while (!is_file("go")) { usleep(5000); clearstatcache(); }
            }
        });';

    private const ROOM = 65536;

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_heartbeats_are_answered_while_a_worker_hangs_and_what_has_no_room_is_refused_and_counted(string $workerman): void
    {
        [$server, $peers] = $this->hang($workerman, []);
        $told = $this->flood($server, $peers, 'dispatch_refused', 6.5);
        $refused = $server->counter('dispatch_refused');
        self::assertGreaterThan(0, $refused, 'and the heartbeat timeout has passed');
        self::assertSame(0, $server->counter('dispatch_dropped'));
        touch("{$server->app->folder}/go");
        $server->untilAllIsTold();
        $this->until(fn () => count($server->notes()) === $told - $refused, 'what was taken is told');
        $numbers = array_map('intval', array_slice(array_column($server->notes(), 1), 1));
        self::assertSame(range(1, count($numbers)), $numbers, 'the newest had no room');
        // There is room again.
        $peers[1]->send(Frame::DATA, 'still there?');
        $this->until(fn () => in_array('still there?', array_column($server->notes(), 1), true), 'it is told');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_oldest_make_room_where_that_is_chosen(string $workerman): void
    {
        [$server, $peers] = $this->hang($workerman, ['inbox_policy' => 'drop_oldest']);
        $told = $this->flood($server, $peers, 'dispatch_dropped');
        $dropped = $server->counter('dispatch_dropped');
        self::assertGreaterThan(0, $dropped);
        self::assertSame(0, $server->counter('dispatch_refused'));
        touch("{$server->app->folder}/go");
        $server->untilAllIsTold();
        $this->until(fn () => count($server->notes()) === $told - $dropped, 'what was kept is told');
        $numbers = array_map('intval', array_slice(array_column($server->notes(), 1), 1));
        self::assertSame($told - 1, end($numbers), 'the newest was kept');
        $sorted = $numbers;
        sort($sorted);
        self::assertSame($sorted, $numbers, 'in their order');
        self::assertSame($numbers, array_values(array_unique($numbers)));
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_who_comes_and_goes_meanwhile_is_told_afterwards(string $workerman): void
    {
        [$server, $peers] = $this->hang($workerman, []);
        $this->flood($server, $peers, 'dispatch_refused');
        $late = $server->node('late');
        $peers[3]->send(Frame::UNREGISTER);
        $peers[4]->close();
        touch("{$server->app->folder}/go");
        self::assertSame(['n3'], $server->next('unregister'));
        self::assertSame(['n4'], $server->next('disconnected'));
        $this->until(fn () => in_array(['late'], $server->process->said('register'), true), 'it is told');
        self::assertCount(11, $server->process->said('register'));
        $late->beat();
    }

    /** @return array{0: ServerApp, 1: list<Peer>} a server whose worker hangs, and ten nodes */
    private function hang(string $workerman, array $config): array
    {
        $server = ServerApp::start($workerman, $config + ['inbox_bytes' => self::ROOM, 'heartbeat_timeout' => 6],
            self::HANG . 'say_events($server, "register", "unregister", "disconnected", "timeout");');
        for ($number = 0; $number < 10; $number++) {
            $peers[] = $server->node("n$number");
        }
        $peers[0]->send(Frame::DATA, 'hang');
        $server->next('hangs');
        return [$server, $peers];
    }

    /**
     * Sends for so long, and until there was no room for some, while everybody's heart beats. Returns how many were sent,
     * 'hang' included.
     *
     * @param string $lost the counter of those for which there was no room
     */
    private function flood(ServerApp $server, array $peers, string $lost, float $seconds = 0.5): int
    {
        $sent = 1;
        $end = microtime(true) + $seconds;
        $this->until(function () use ($server, $peers, $lost, $end, &$sent): bool {
            for ($number = 0; $number < 20; $number++) {
                $peers[0]->send(Frame::DATA, sprintf('%06d', $sent++) . str_repeat(' ', 1000));
            }
            foreach ($peers as $peer) {
                $peer->beat();
            }
            self::assertLessThanOrEqual(self::ROOM, $server->counter('dispatch_queued_bytes'));
            return microtime(true) >= $end && $server->counter($lost) > 0;
        }, "$lost counts", 40);
        self::assertSame($sent, $server->counter('data_in'), 'every frame was read');
        self::assertSame(0, $server->counter('reads_paused_by_host'));
        self::assertSame(0, $server->counter('nodes_timed_out'));
        self::assertSame(10, $server->bus()->stats()['nodes']['online']);
        return $sent;
    }
}
