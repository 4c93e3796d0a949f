<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{EventLoop, Peer, PhpProcess, Port, TestCase};

/** Which numbers the engine's descriptors have: none that select() needs, and none of a standard stream that was closed. */
final class DescriptorsTest extends TestCase
{
    private const CONNECTIONS = 1100;

    /** As many connections as select() has numbers, and more, by a process of their own. */
    private function crowd(int $port, int $size = self::CONNECTIONS): PhpProcess
    {
        $crowd = $this->script(sprintf('
            for ($i = 0; $i < %d; $i++) { $all[] = stream_socket_client("tcp://127.0.0.1:%d", $code, $message, 20) ?: throw new Exception($message); }
            say("in");
            sleep(600);', $size, $port), [], ['wrap' => ['bash', '-c', 'ulimit -Sn $(ulimit -Hn); exec "$@"', 'bash']]);
        $crowd->next('in', 60);
        return $crowd;
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_the_streams_of_an_application_on_a_loop_of_select_stay_watchable_however_many_connections_there_are(string $loop): void
    {
        $port = Port::free();
        $process = EventLoop::named($loop)->run('
            set_error_handler(fn (int $level, string $message) => say("warning", $message));
            inside(function () {
                $server = new HeartbeatServer("127.0.0.1", ' . $port . ', ["worker_count" => 1, "bus" => false, "php_workers" => 0]);
                $server->on("data", function (Node $node, string $payload) use ($server) {
                    if ($payload === "open") {
                        $GLOBALS["pair"] = $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
                        $read = [...$pair, $server->getEventStream()];
                        $none = [];
                        say("watched", stream_select($read, $none, $none, 0));
                    }
                    say("data", $payload);
                });
                $server->on("register", fn (Node $node) => say("register", $node->id));
                $server->start();
                say("started");
            });');
        $process->next('started', 20);
        $peer = Peer::connect($port);
        $peer->register('device');
        $process->next('register', 20);
        $this->crowd($port);
        foreach (['open', 'and on it goes'] as $payload) {
            $peer->send(\Heartbus\Tests\Frame::DATA, $payload);
            self::assertSame([$payload], $process->next('data', 20), $process->transcript());
        }
        self::assertIsInt($process->next('watched')[0]);
        self::assertSame([], $process->said('warning'));
    }

    public function test_everything_but_the_stream_for_other_loops_is_above_what_select_knows(): void
    {
        $server = $this->server(['worker_count' => 2, 'log_file' => PhpProcess::folder() . '/numbers.log'], '
            function numbers(): array { return array_map("intval", array_filter(scandir("/proc/self/fd"), fn ($name) => @readlink("/proc/self/fd/$name"))); }
            say("before", array_values(numbers()));');
        [$before] = $server->next('before');
        $server->node('a');
        $client = $server->ask('
            $client = $GLOBALS["client"] = new HeartbeatClient("localhost", ' . $server->port . ', ["node_id" => "b"]);
            $client->on("register", fn () => say("client registered"));
            $client->connect();');
        $server->next('client registered');
        $server->ask('$GLOBALS["bus"] = Heartbus\Bus::connect(' . var_export(PhpProcess::folder() . "/$server->port.sock", true) . '); $GLOBALS["bus"]->stats();');
        $numbers = fn (): array => array_values(array_diff($server->ask('return array_values(numbers());'), $before));
        $opened = $numbers();
        self::assertGreaterThan(15, count($opened));
        self::assertSame([], array_filter($opened, fn (int $number) => $number < 1024));
        $stream = $server->ask('$GLOBALS["events"] = $server->getEventStream();');
        self::assertCount(1, array_filter($numbers(), fn (int $number) => $number < 1024), 'the stream is for select()');
    }

    public function test_a_standard_stream_that_was_closed_stays_closed(): void
    {
        $port = Port::free();
        $process = $this->script('
            fclose(STDIN);
            fclose(STDERR);
            function taken(): array { return array_values(array_filter([0, 2], fn (int $number) => @readlink("/proc/self/fd/$number") !== false)); }
            $server = new HeartbeatServer("localhost", ' . $port . ', ["loop" => "manual", "bus" => "' . PhpProcess::folder() . '/closed.sock", "worker_count" => 2]);
            $registered = 0;
            $server->on("register", function (Node $node) use (&$registered) { $registered++; say("register", $node->id, taken()); });
            $server->start();
            say("started", taken());
            for ($i = 0; $i < 5; $i++) {
                $clients[$i] = new HeartbeatClient("localhost", ' . $port . ', ["node_id" => "c$i", "loop" => "manual"]);
                $clients[$i]->connect();
            }
            Heartbus\Bus::connect("' . PhpProcess::folder() . '/closed.sock")->stats();
            drive(function () use (&$registered, $clients) { return $registered === 5 && count(array_filter($clients, fn ($client) => $client->getNodeId() !== null)) === 5; }, 20);
            say("connected", taken());
            $own = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
            say("own", taken());');
        self::assertSame(0, $process->exitCode(30), $process->transcript());
        self::assertSame([[[[]]], [[[]]]], [$process->said('started'), $process->said('connected')]);
        self::assertSame(array_fill(0, 5, []), array_column($process->said('register'), 1));
        self::assertSame([[[0, 2]]], $process->said('own'), 'what the script opens itself gets them');
    }

    public function test_where_the_system_has_no_numbers_left_above_the_engine_takes_others_and_says_so_once(): void
    {
        $server = $this->server(['worker_count' => 1], '', ['wrap' => ['bash', '-c', 'ulimit -n 1040; exec "$@"', 'bash']]);
        $this->crowd($server->port, 100);
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 100, 'all are let in');
        $server->node('one more')->beat();
        self::assertSame(1, substr_count($server->process->errors(), 'No descriptor number above 1024 is left'), $server->process->errors());
    }

    public function test_where_the_limit_allows_no_numbers_above_there_is_nothing_to_complain_of(): void
    {
        $server = $this->server(['worker_count' => 1], '', ['wrap' => ['bash', '-c', 'ulimit -n 1024; exec "$@"', 'bash']]);
        $this->crowd($server->port, 100);
        $server->node('one more')->beat();
        $errors = $server->process->allErrors();
        self::assertSame([1, 1], [substr_count($errors, 'max_connections lowered'), substr_count($errors, "\n")], $errors);
    }
}
