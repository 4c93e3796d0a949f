<?php

namespace Heartbus\Tests\Server;

use Heartbus\Bus;
use Heartbus\Tests\{Frame, Peer, PhpProcess, TestCase, Wait};

/**
 * Hostile and broken input: each kind gets its answer or its silence, is counted, ends at most its own connection, and
 * leaves nothing behind.
 */
final class BadInputTest extends TestCase
{
    private const INVALID = [500, 'Failed to process message: Invalid message payload'];

    /**
     * What is sent; the ERROR that answers, or null for silence; whether the connection survives; what counts it.
     *
     * @return array<string, array{0: string, 1: ?array{0: int, 1: ?string}, 2: bool, 3: string}>
     */
    public static function badInput(): array
    {
        $registration = fn (string $id): string => Frame::bytes(Frame::REGISTER, '{"node_id":' . $id . '}');
        return [
            'wrong magic' => ["\x12\xAB\x04\0\0\0\0", [500, 'Failed to process message: Invalid message magic: 0x12ab'], false, 'invalid_magic'],
            'HTTP' => ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", [500, 'Failed to process message: Invalid message magic: 0x4745'], false, 'invalid_magic'],
            'length 0xFFFFFFFF' => ["\xAB\x12\x03\xFF\xFF\xFF\xFF", [413, null], false, 'frames_too_long'],
            'body of 10 MiB + 1' => [Frame::body(Frame::DATA, str_repeat('x', 10485761)), [413, null], false, 'frames_too_long'],
            'length zero' => ["\xAB\x12\x03\0\0\0\0", self::INVALID, true, 'invalid_payloads'],
            'invalid JSON' => [Frame::body(Frame::DATA, '{"payload":'), self::INVALID, true, 'invalid_payloads'],
            'invalid UTF-8' => [Frame::body(Frame::DATA, "{\"payload\":\"\xFF\"}"), self::INVALID, true, 'invalid_payloads'],
            'payload a list' => [Frame::body(Frame::DATA, '{"payload":[]}'), self::INVALID, true, 'invalid_payloads'],
            'channel_id a word' => [Frame::body(Frame::DATA, '{"channel_id":"abc"}'), self::INVALID, true, 'invalid_payloads'],
            '10,000 brackets' => [Frame::body(Frame::DATA, str_repeat('[', 10_000)), self::INVALID, true, 'invalid_payloads'],
            'REGISTER with an array as node_id' => [$registration('["a"]'), [400, 'Invalid node id'], true, 'registers_refused'],
            'empty node_id' => [$registration('""'), [400, 'Invalid node id'], true, 'registers_refused'],
            '64 KiB node_id' => [$registration('"' . str_repeat('n', 65536) . '"'), [400, 'Invalid node id'], true, 'registers_refused'],
            'unknown type' => [Frame::bytes(77, 'x'), null, true, 'unknown_types'],
            'type 0' => [Frame::bytes(0, 'x'), null, true, 'unknown_types'],
        ];
    }

    /** @dataProvider badInput */
    public function test_is_answered_counted_and_ends_at_most_its_own_connection(string $bytes, ?array $error, bool $survives, string $counter): void
    {
        $server = $this->server();
        $bystander = $server->node('bystander');
        foreach ([false, true] as $registered) {
            $peer = $registered ? $server->node('attacker') : $server->connect();
            $before = $server->counter($counter);
            $peer->bytes($bytes);
            $this->expectOutcome($peer, $error, $survives);
            $this->until(fn () => $server->counter($counter) === $before + 1, "$counter counts it");
            $bystander->beat();
            $peer->close();
        }
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 1, 'only the bystander is left');
        self::assertSame(1, $server->stats()['nodes']['online']);
    }

    public function test_bad_frames_between_good_ones_do_not_put_the_stream_out_of_step(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $peer = $server->node('a');
        $bad = array_filter(self::badInput(), fn (array $case) => $case[2]);
        $bytes = '';
        foreach ($bad as $case) {
            $bytes .= $case[0] . Frame::bytes(Frame::PING);
        }
        $peer->bytes($bytes . Frame::bytes(Frame::DATA, 'the good one'));
        foreach ($bad as $case) {
            $case[1] === null || $peer->expectError(...$case[1]);
            $peer->expect(Frame::PONG);
        }
        self::assertSame('the good one', $server->next('data')[1]);
    }

    public function test_a_truncated_frame_then_close_is_silent_and_counted(): void
    {
        $server = $this->server([], 'say_events($server, "close");');
        $bystander = $server->node('bystander');
        foreach (["\xAB", "\xAB\x12\x03\0\0", substr(Frame::bytes(Frame::DATA, 'text'), 0, -1), "\xAB\x12\x03\x00\xA0\x00\x00" . str_repeat('x', 100_000)] as $bytes) {
            $before = $server->counter('truncated_bytes');
            $peer = $server->connect();
            $peer->bytes($bytes);
            $peer->finish();
            $peer->expectClosed();
            $peer->close();
            $this->until(fn () => $server->counter('truncated_bytes') === $before + strlen($bytes), 'the lost bytes are counted');
        }
        $bystander->beat();
        self::assertSame(['peer closed'], array_values(array_unique(array_column($server->process->said('close'), 1))));
    }

    public function test_all_of_it_again_and_again_leaves_no_memory_and_no_descriptors_behind(): void
    {
        $server = $this->server();
        $descriptors = $server->process->descriptors();
        $made = 0;
        $round = function () use ($server, &$made): void {
            foreach (self::badInput() as [$bytes, $error, $survives]) {
                $peer = $server->connect();
                $peer->bytes($bytes);
                $this->expectOutcome($peer, $error, $survives);
                $peer->close();
                $half = $server->connect();
                $half->bytes(substr($bytes, 0, (int) (strlen($bytes) / 2)));
                $half->close();
                $made += 2;
            }
        };
        $settle = function () use ($server, $descriptors, &$made): void {
            $this->until(function () use ($server, $made): bool {
                $connections = $server->stats()['connections'];
                return [$connections['active_connections'], $connections['total_closed']] === [0, $made];
            }, 'all connections have come and gone');
            $this->until(fn () => $server->process->descriptors() === $descriptors, 'their descriptors are closed');
        };
        for ($i = 0; $i < 5; $i++) {
            $round();
        }
        $settle();
        $memory = $server->process->residentKilobytes();
        for ($i = 0; $i < 20; $i++) {
            $round();
        }
        $settle();
        // 20 rounds carried over 200 MB; what stays must be noise of the allocator.
        self::assertLessThan(4096, $server->process->residentKilobytes() - $memory);
        self::assertSame(0, $server->stats()['nodes']['online']);
    }

    public function test_a_thousand_connections_that_never_register_are_closed_and_harm_nobody(): void
    {
        $server = $this->server(['register_timeout' => 3]);
        $bystander = $server->node('bystander');
        $descriptors = $server->process->descriptors();
        $idle = array_map(fn () => $server->connect(), range(1, 1000));
        $bystander->beat();
        foreach ($idle as $peer) {
            $peer->expectClosed(15);
        }
        $bystander->beat();
        $this->until(fn () => $server->counter('register_timeouts') === 1000, 'all are counted');
        $this->until(fn () => $server->process->descriptors() === $descriptors, 'their descriptors are closed');
        self::assertSame(1, $server->stats()['connections']['active_connections']);
    }

    public function test_a_reader_that_takes_nothing_for_too_long_is_closed_as_slow_and_its_memory_comes_back(): void
    {
        $server = $this->server(['slow_consumer_timeout' => 1], 'say_events($server, "close", "disconnected");');
        $bystander = $server->node('bystander');
        $memory = $server->process->residentKilobytes();
        $deaf = $server->node('deaf');
        $sent = $server->ask('for ($i = 0; $server->sendTo("deaf", str_repeat("x", 10000)); $i++); return $i;');
        self::assertGreaterThan(0, $sent);
        self::assertGreaterThan(0, $server->counter('data_out_refused'));
        self::assertSame(['deaf'], $server->next('disconnected'));
        self::assertSame('slow consumer', $server->next('close')[1]);
        $bystander->beat();
        $this->until(fn () => $server->counter('slow_consumers') === 1, 'it is counted');
        self::assertSame(1, $server->stats()['nodes']['online']);
        self::assertLessThan(8192, $server->process->residentKilobytes() - $memory);
        $deaf->close();
    }

    public function test_the_time_in_which_the_process_slept_makes_nobody_slow(): void
    {
        $server = $this->server(['slow_consumer_timeout' => 3, 'heartbeat_timeout' => 60]);
        $late = $server->node('late');
        $sent = $server->ask('for ($i = 0; $server->sendTo("late", str_repeat("x", 10000)); $i++); return $i;');
        $server->process->freeze();
        Wait::pass(5.0);
        $server->process->signal(SIGCONT);
        // It has been looked at since.
        $server->ask('return 1;');
        Wait::pass(0.3);
        for ($i = 0; $i < $sent; $i++) {
            $late->expect(Frame::DATA);
        }
        $late->beat();
        self::assertSame(0, $server->counter('slow_consumers'));
    }

    public function test_a_burst_from_one_callback_closes_nobody_and_false_says_what_did_not_arrive(): void
    {
        $server = $this->server([], 'say_events($server, "close");');
        $peers = array_map(fn (int $n) => $server->node("n$n"), range(1, 3));
        $server->ask('for ($i = 0; $i < 32; $i++) { $server->broadcast(str_repeat("x", 65536)); }');
        $done = fn (): int => $server->counter('data_out') + $server->counter('data_out_refused');
        $this->until(fn () => $done() === 3 * 32, 'all is delivered or refused');
        $sent = $server->counter('data_out');
        $received = 0;
        foreach ($peers as $n => $peer) {
            $this->until(fn () => $server->ask("return \$server->sendTo('n" . ($n + 1) . "', 'the end');"), 'there is room');
            while ($peer->expect(Frame::DATA)->payload !== 'the end') {
                $received++;
            }
        }
        self::assertSame($sent, $received);
        self::assertSame(3, $server->stats()['nodes']['online']);
        self::assertSame(0, $server->counter('slow_consumers'));
    }

    public function test_a_full_buffer_is_told_and_so_is_an_empty_one(): void
    {
        $server = $this->server(['outbox_bytes' => 100_000], 'say_events($server, "buffer.full", "buffer.drain");');
        $peer = $server->node('a');
        $sent = 0;
        $waiting = 0;
        // A push is refused as well where much waits that the socket was not tried with yet: then it may still take all of it.
        $this->until(function () use ($server, &$sent, &$waiting): bool {
            $sent += $server->ask('for ($i = 0; $server->sendTo("a", str_repeat("x", 10000)); $i++); return $i;');
            $before = $waiting;
            usleep(20_000);
            $waiting = $server->ask('return $server->getNodeManager()->getNode("a")->bytesWaiting;');
            return $waiting >= 100_000 && $waiting === $before;
        }, 'the socket takes no more');
        self::assertSame(['a'], $server->next('buffer.full'));
        for ($i = 0; $i < $sent; $i++) {
            $peer->expect(Frame::DATA);
        }
        $this->until(fn () => $server->ask('return $server->getNodeManager()->getNode("a")->bytesWaiting;') === 0, 'nothing waits any more');
        $said = fn (string $event): array => $server->process->said($event);
        $this->until(fn () => $said('buffer.drain') !== [] && count($said('buffer.drain')) === count($said('buffer.full')), 'each is told in its turn');
        self::assertSame([['a']], array_unique($said('buffer.drain'), SORT_REGULAR));
    }

    public function test_with_the_drop_policy_a_slow_reader_stays_and_misses_messages(): void
    {
        $server = $this->server(['slow_consumer' => 'drop', 'slow_consumer_timeout' => 0.1, 'outbox_bytes' => 100_000]);
        $deaf = $server->node('deaf');
        $server->ask('for ($i = 0; $server->sendTo("deaf", str_repeat("x", 10000)); $i++);');
        self::assertGreaterThan(0, $server->counter('data_out_refused'));
        self::assertSame(1, $server->stats()['nodes']['online']);
        // It starts to read: what was taken arrives, and it can be reached again.
        $deaf->expect(Frame::DATA);
        $this->until(function () use ($deaf, $server): bool {
            while (strlen($deaf->peek()) > 20_000) {
                $deaf->expect(Frame::DATA);
            }
            return $server->ask('return $server->sendTo("deaf", "again");');
        }, 'there is room again');
        do {
            $payload = $deaf->expect(Frame::DATA)->payload;
        } while ($payload !== 'again');
        self::assertSame('again', $payload);
    }

    public function test_a_reader_that_never_reads_its_replies_is_not_read_either_and_grows_nothing(): void
    {
        $server = $this->server(['heartbeat_timeout' => 60]);
        $bystander = $server->node('bystander');
        $peer = $server->node('asks and never listens');
        $memory = $server->process->residentKilobytes();
        // 32 MB of pings ask for as many bytes of pongs; our unread buffers and the kernel's hold a few of them.
        $pings = str_repeat(Frame::bytes(Frame::PING), 1000);
        $sent = 0;
        $this->until(function () use ($server, $peer, $pings, &$sent): bool {
            // On from where the last write ended, which may be inside of a frame.
            $taken = $peer->bytes(substr($pings, $sent % strlen($pings)), 0.1);
            $sent += $taken;
            return $sent >= 32_000_000 || ($taken === 0 && $server->counter('reads_paused_by_peer') > 0);
        }, 'nothing more is taken', 30);
        self::assertLessThan(32_000_000, $sent, 'the server stopped reading at some point');
        $bystander->beat();
        self::assertGreaterThan(0, $server->counter('reads_paused_by_peer'));
        self::assertLessThan(8192, $server->process->residentKilobytes() - $memory);
        self::assertSame(2, $server->stats()['nodes']['online'], 'requests of its own never close it');
        for ($pongs = 0; $pongs < 1000; $pongs++) {
            $peer->expect(Frame::PONG);
        }
    }

    public function test_a_client_that_reconnects_in_a_tight_loop_leaves_nothing_behind(): void
    {
        $server = $this->server();
        $bystander = $server->node('bystander');
        $descriptors = $server->process->descriptors();
        $loop = function (int $times) use ($server, $descriptors): void {
            for ($i = 0; $i < $times; $i++) {
                $peer = $server->node('restless', ['round' => $i]);
                $i % 2 ? $peer->close() : $peer->reset();
            }
            $this->until(fn () => $server->stats()['connections']['active_connections'] === 1, 'only the bystander is left');
            $this->until(fn () => $server->process->descriptors() === $descriptors, 'the descriptors are back to the start');
        };
        $loop(500);
        $memory = $server->process->residentKilobytes();
        $loop(3000);
        $bystander->beat();
        self::assertLessThan(2048, $server->process->residentKilobytes() - $memory);
        self::assertSame(1, $server->stats()['nodes']['online']);
        self::assertSame(1, $server->stats()['channels']['active_channels']);
    }

    public function test_unregister_and_fin_in_one_packet_close_the_descriptor(): void
    {
        $server = $this->server([], 'say_events($server, "unregister", "disconnected", "close");');
        $bystander = $server->node('bystander');
        $descriptors = $server->process->descriptors();
        for ($i = 0; $i < 200; $i++) {
            $peer = $server->node("n$i");
            $peer->bytes(Frame::bytes(Frame::UNREGISTER));
            $peer->close();
        }
        $this->until(fn () => count($server->process->said('unregister')) === 200, 'all are told');
        $this->until(fn () => $server->process->descriptors() === $descriptors, 'the descriptors are back to the start');
        self::assertSame([], $server->process->said('disconnected'));
        self::assertSame(1, $server->stats()['connections']['active_connections']);
        $bystander->beat();
    }

    public function test_a_whole_session_and_its_end_in_one_packet_is_handled(): void
    {
        $server = $this->server([], 'say_events($server, "register", "data", "unregister", "close");');
        $peer = $server->connect();
        $peer->bytes(Frame::registration('brief') . Frame::bytes(Frame::DATA, 'hello') . Frame::bytes(Frame::UNREGISTER));
        $peer->finish();
        $peer->expect(Frame::REGISTER);
        $peer->expectClosed();
        $server->next('close');
        self::assertSame(['register', 'data', 'unregister', 'close'], array_values(array_diff(array_column($server->process->history(), 0), ['ready'])));
    }

    public function test_when_descriptors_run_out_accepting_pauses_without_spinning_and_resumes_by_itself(): void
    {
        $server = $this->server();
        $bystander = $server->node('bystander');
        // PHP itself takes every descriptor that is left.
        $server->ask('posix_setrlimit(POSIX_RLIMIT_NOFILE, 200, posix_getrlimit()["hard openfiles"]); while ($file = @fopen("/dev/null", "r")) { $GLOBALS["files"][] = $file; }');
        $waiting = array_map(fn () => $server->connect(), range(1, 20));
        $this->until(fn () => $server->counter('accept_pauses') > 0, 'accepting pauses');
        $cpu = $server->process->cpuSeconds();
        $bystander->beat();
        Wait::pass(1.0);
        self::assertLessThan(0.5, $server->process->cpuSeconds() - $cpu, 'waiting costs nothing');
        $bystander->beat();
        $server->ask('unset($GLOBALS["files"]);');
        foreach ($waiting as $peer) {
            $peer->expectSilence();
        }
        $server->node('new')->beat();
    }

    public function test_a_small_descriptor_limit_lowers_the_connection_limit_and_refuses_politely(): void
    {
        $server = $this->server([], '', ['wrap' => ['prlimit', '--nofile=256:256']]);
        $peers = array_map(fn () => $server->connect(), range(1, 200));
        $answers = ['served' => 0, 'refused' => 0];
        foreach ($peers as $peer) {
            $peer->send(Frame::PING);
            $frame = $peer->receive();
            $answers[$frame?->type === Frame::PONG ? 'served' : 'refused']++;
        }
        self::assertGreaterThan(50, $answers['served']);
        self::assertSame(200, array_sum($answers));
        self::assertGreaterThan(0, $answers['refused']);
        array_map(fn (Peer $peer) => $peer->close(), $peers);
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 0, 'all are gone');
        $server->node('new')->beat();
    }

    public function test_callers_of_the_bus_socket_and_connections_leave_each_other_their_descriptors(): void
    {
        $bus = PhpProcess::folder() . '/few.sock';
        $server = $this->server(['bus' => $bus], '', ['wrap' => ['prlimit', '--nofile=400:400']]);
        // 272 are shared: 34 for callers, and as many who are told that there are too many. Nobody says hello.
        $before = $server->process->descriptors();
        $callers = [];
        for ($i = 0; $i < 200; $i++) {
            $callers[] = stream_socket_client("unix://$bus");
        }
        // Those who are told may be gone before anybody looks; the others stay as long as they may take to say hello.
        $this->until(fn () => $server->process->descriptors() >= $before + 34, 'callers are let in');
        $bystander = $server->node('bystander');
        $peers = array_map(fn () => $server->connect(), range(1, 150));
        foreach ($peers as $peer) {
            $peer->send(Frame::PING);
            self::assertSame(Frame::PONG, $peer->receive()?->type);
        }
        self::assertSame(0, $server->counter('accept_pauses'));
        array_map('fclose', $callers);
        // The other way around.
        $more = array_map(fn () => $server->connect(), range(1, 250));
        $this->until(fn () => $server->counter('connections_rejected') > 0, 'connections are refused');
        $running = Bus::connect($bus)->stats();
        self::assertGreaterThan(200, $running['connections']['active_connections']);
        self::assertSame(0, $server->counter('accept_pauses'));
        $bystander->beat();
        array_map(fn (Peer $peer) => $peer->close(), [...$peers, ...$more]);
    }

    private function expectOutcome(Peer $peer, ?array $error, bool $survives): void
    {
        if ($error !== null) {
            $answer = $peer->expect(Frame::ERROR)->json();
            self::assertSame($error[0], $answer['code']);
            $error[1] === null || self::assertSame($error[1], $answer['message']);
        }
        $survives ? $peer->expectSilence() : $peer->expectClosed();
    }
}
