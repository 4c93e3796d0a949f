<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Peer, Port, TestCase};

/** Starting and ending: signals, stop(), a port in use, what start() may do and may not. */
final class StopTest extends TestCase
{
    /** The kernel lists a thread for a moment after it has been waited for. */
    private const SAY_THREADS = '
        for ($end = microtime(true) + 5; ($threads = count(scandir("/proc/self/task")) - 2) > 1 && microtime(true) < $end; usleep(1000));
        say("threads", $threads);';

    /** @dataProvider signals */
    public function test_a_signal_tells_every_client_and_ends_the_process_with_zero(int $signal): void
    {
        self::assertTakesLessThan(3.0, function () use ($signal): float {
            $server = $this->server([], 'say_events($server, "stop");');
            $peers = [$server->node('a'), $server->node('b'), $server->connect()];
            $peers[2]->expectSilence();
            $since = microtime(true);
            self::assertSame(0, $server->stop($signal));
            $seconds = microtime(true) - $since;
            foreach ($peers as $peer) {
                $peer->expectError(503, 'Server is shutting down');
                $peer->expectClosed();
            }
            self::assertCount(1, $server->process->said('stop'));
            self::assertCount(1, $server->process->said('returned'));
            self::assertSame('', $server->process->errors());
            return $seconds;
        });
    }

    public static function signals(): array
    {
        return ['SIGINT' => [SIGINT], 'SIGTERM' => [SIGTERM]];
    }

    public function test_a_signal_that_comes_while_start_is_told_is_obeyed(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", ' . \Heartbus\Tests\Port::free() . ', ["loop" => "native"]);
            $server->on("start", fn () => posix_kill(posix_getpid(), SIGTERM));
            $server->on("stop", fn () => say("stop"));
            $server->start();
            say("returned");');
        self::assertSame(0, $process->exitCode(20), $process->transcript());
        $process->next('stop');
        $process->next('returned');
    }

    public function test_another_protocol_is_shown_and_changes_nothing(): void
    {
        $server = $this->server(['protocol' => 'text']);
        $server->node('a')->beat();
        self::assertSame('text', $server->stats()['server']['protocol']);
    }

    public function test_what_was_sent_before_the_stop_still_arrives(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        $server->ask('for ($i = 0; $i < 1000; $i++) { $server->sendTo("a", "message $i"); } posix_kill(posix_getpid(), SIGTERM);');
        for ($i = 0; $i < 1000; $i++) {
            self::assertSame("message $i", $peer->expect(Frame::DATA)->payload);
        }
        $peer->expectError(503, 'Server is shutting down');
        $peer->expectClosed();
    }

    public function test_clients_that_do_not_read_do_not_hold_up_the_stop(): void
    {
        self::assertTakesLessThan(3.5, function (): float {
            $server = $this->server(['slow_consumer' => 'drop']);
            $deaf = $server->node('deaf');
            $server->ask('while ($server->sendTo("deaf", str_repeat("x", 100000)));');
            $since = microtime(true);
            self::assertSame(0, $server->stop());
            $seconds = microtime(true) - $since;
            $deaf->close();
            return $seconds;
        });
    }

    public function test_stop_ends_start_and_the_script_goes_on(): void
    {
        $server = $this->server([], '$server->on("data", fn () => $server->stop());');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'stop!');
        $peer->expectError(503, 'Server is shutting down');
        self::assertSame(0, $server->process->exitCode());
        $server->next('returned');
        $this->assertRefused($server->port);
    }

    public function test_after_a_stop_the_same_port_is_free_at_once(): void
    {
        $process = $this->script(sprintf('
            for ($round = 1; $round <= 5; $round++) {
                $server = new HeartbeatServer("127.0.0.1", %d, ["loop" => "native"]);
                $server->on("register", fn () => $server->stop());
                $server->on("start", fn () => say("round", $round));
                $server->start();
            }', $port = Port::free()) . self::SAY_THREADS);
        for ($round = 1; $round <= 5; $round++) {
            self::assertSame([$round], $process->next('round'));
            $peer = Peer::connect($port);
            $peer->register('a');
            $peer->expectError(503, 'Server is shutting down');
        }
        self::assertSame([1], $process->next('threads'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_threads_are_named_and_there_are_no_more_than_cores(): void
    {
        $server = $this->server(['worker_count' => 128]);
        // They name themselves: before, they are called as the script's own thread.
        $nameless = fn (): array => array_filter($server->process->threads(), fn (string $name) => !str_starts_with($name, 'heartbus-'));
        $this->until(fn () => count($nameless()) === 1, 'all have their names');
        $io = array_values(array_filter($server->process->threads(), fn (string $name) => str_starts_with($name, 'heartbus-io-')));
        $cores = (int) shell_exec('nproc');
        self::assertCount(min(128, $cores), $io);
        self::assertContains('heartbus-io-0', $io);
        self::assertSame(128, $server->stats()['server']['workers']);
    }

    public function test_loading_the_extension_and_building_objects_starts_no_thread_and_opens_no_descriptor(): void
    {
        $process = $this->script('
            $before = [count(scandir("/proc/self/task")), count(scandir("/proc/self/fd"))];
            $server = new HeartbeatServer("127.0.0.1", 9501);
            $client = new HeartbeatClient();
            $server->on("data", fn () => null);
            $server->every(1.0, fn () => null);
            new Message(3); $server->getStats(); $client->getStats();
            say("same", $before === [count(scandir("/proc/self/task")), count(scandir("/proc/self/fd"))], $before[0] - 2);');
        self::assertSame([true, 1], $process->next('same'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_port_in_use_by_another_heartbus_is_a_clear_exception(): void
    {
        $server = $this->server();
        $this->assertPortInUse($server->port);
        $server->node('still fine')->beat();
    }

    public function test_a_port_in_use_by_somebody_else_is_a_clear_exception(): void
    {
        $port = Port::free();
        $listener = stream_socket_server("tcp://127.0.0.1:$port");
        $this->assertPortInUse($port);
        fclose($listener);
    }

    public function test_an_address_that_is_not_ours_is_a_clear_exception(): void
    {
        $process = $this->script('
            try { (new HeartbeatServer("192.0.2.1", ' . Port::free() . ', ["loop" => "native"]))->start(); }
            catch (RuntimeException $e) { say("refused", $e->getMessage()); }');
        self::assertStringContainsString('Cannot listen on 192.0.2.1:', $process->next('refused')[0]);
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_second_start_while_running_does_nothing(): void
    {
        $server = $this->server();
        $server->ask('$server->start();');
        $server->node('a')->beat();
        self::assertSame(0, $server->stop());
    }

    public function test_signal_handlers_of_the_script_stay_its_own(): void
    {
        // A signal the server does not use is the script's, also while the server waits.
        $server = $this->server([], 'pcntl_async_signals(true); pcntl_signal(SIGUSR1, fn () => say("usr1"));');
        $server->process->signal(SIGUSR1);
        $server->next('usr1');
        $server->node('a')->beat();
        self::assertSame(0, $server->stop());
    }

    public function test_connections_over_the_limit_are_told_and_closed(): void
    {
        $server = $this->server(['max_connections' => 3]);
        $peers = [$server->node('a'), $server->node('b'), $server->node('c')];
        $fourth = $server->connect();
        $fourth->expectError(503, 'Server is full or connection limit reached');
        $fourth->expectClosed();
        self::assertSame(1, $server->counter('connections_rejected'));
        $peers[0]->close();
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 2, 'one place is free');
        $server->node('d')->beat();
        foreach ([$peers[1], $peers[2]] as $peer) {
            $peer->beat();
        }
    }

    public function test_stats_tell_what_happened(): void
    {
        $server = $this->server(['max_connections' => 1000]);
        $a = $server->node('a');
        $a->beat();
        $a->beat();
        $server->node('b')->send(Frame::DATA, 'x')->send(Frame::UNREGISTER)->expectSilence();
        $stats = $server->stats();
        self::assertSame(['host' => '127.0.0.1', 'port' => $server->port, 'workers' => 2, 'protocol' => 'tcp'], $stats['server']);
        self::assertSame([1, 1, 2, 1, 0], [$stats['nodes']['total'], $stats['nodes']['online'], $stats['nodes']['total_registered'],
            $stats['nodes']['total_unregistered'], $stats['nodes']['total_timeout']]);
        $connections = $stats['connections'];
        self::assertSame([1000, $connections['active_connections'] + $connections['total_closed']], [$connections['max_connections'], $connections['total_connections']]);
        self::assertSame([2, 1, 2], [$stats['engine']['heartbeats'], $stats['engine']['data_in'], $stats['engine']['registers']]);
        self::assertSame(1, $stats['channels']['active_channels']);
    }

    private function assertPortInUse(int $port): void
    {
        $process = $this->script("
            try { (new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']))->start(); say('started'); }
            catch (RuntimeException \$e) { say('refused', \$e->getMessage(), \$e::class); }" . self::SAY_THREADS);
        self::assertSame(["Cannot listen on 127.0.0.1:$port: Address already in use", 'Heartbus\Exception\IoException'], $process->next('refused'));
        self::assertSame([1], $process->next('threads'));
        self::assertSame(0, $process->exitCode());
    }

    private function assertRefused(int $port): void
    {
        self::assertFalse(@stream_socket_client("tcp://127.0.0.1:$port"), 'nobody listens any more');
    }
}
