<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, TestCase, TestServer};

/** Messages told many at a time: on('data.batch'). */
final class BatchTest extends TestCase
{
    public function test_messages_that_wait_are_told_at_once_with_the_arguments_of_data_as_lists(): void
    {
        $server = $this->holding('
            say("batch", $nodes, $payloads, $channels);
            say("shape", array_is_list($nodes) && array_is_list($payloads) && array_is_list($channels), $nodes[0] === $nodes[3], $nodes[0]->totalMessages);');
        $a = $server->connect();
        $main = $a->register('a')['channel_id'];
        $b = $server->connect();
        $other = $b->register('b')['channel_id'];
        $this->hold($server, $a, function () use ($a, $b, $main): void {
            $a->send(Frame::DATA, 'one')->send(Frame::DATA, "two \0 é", $main)->expectSilence();
            $b->send(Frame::DATA, 'three')->expectSilence();
            $a->send(Frame::DATA, '');
        });
        self::assertSame([['a', 'a', 'b', 'a'], ['one', "two \0 é", 'three', ''], [$main, $main, $other, $main]], $server->next('batch'));
        self::assertSame([true, true, 4], $server->next('shape'), 'one object for a node, as the engine knows it now');
    }

    public function test_a_message_never_waits_for_others(): void
    {
        $server = $this->server([], 'say_events($server, "data.batch");');
        $peer = $server->connect();
        $channel = $peer->register('a')['channel_id'];
        foreach (['one', 'two'] as $payload) {
            $peer->send(Frame::DATA, $payload);
            self::assertSame([['a'], [$payload], [$channel]], $server->next('data.batch'));
        }
    }

    public function test_a_batch_has_at_most_1024_messages(): void
    {
        $server = $this->holding('say("batch", count($payloads), $payloads[0], end($payloads));');
        $peer = $server->node('a');
        $this->hold($server, $peer, fn () => $peer->bytes(implode('', array_map(fn (int $i) => Frame::bytes(Frame::DATA, (string) $i), range(1, 2500)))));
        self::assertSame([1024, '1', '1024'], $server->next('batch'));
        self::assertSame([1024, '1025', '2048'], $server->next('batch'));
        self::assertSame([452, '2049', '2500'], $server->next('batch'));
    }

    public function test_a_batch_has_at_most_1_mib_unless_it_is_one_message(): void
    {
        $server = $this->holding('say("batch", array_map(strlen(...), $payloads));');
        $peer = $server->node('a');
        $sizes = [400_000, 400_000, 400_000, 3_000_000, 10, 1_048_566, 10];
        $this->hold($server, $peer, function () use ($peer, $sizes): void {
            foreach ($sizes as $size) {
                $peer->send(Frame::DATA, str_repeat('x', $size));
            }
        });
        foreach ([[400_000, 400_000], [400_000], [3_000_000], [10, 1_048_566], [10]] as $batch) {
            self::assertSame([$batch], $server->next('batch'));
        }
    }

    public function test_a_batch_ends_before_anything_else_that_happened(): void
    {
        $server = $this->holding('say("batch", $payloads);', 'say_events($server, "register", "heartbeat", "unregister");');
        $peer = $server->node('a');
        $this->hold($server, $peer, function () use ($peer): void {
            $peer->send(Frame::DATA, '1')->send(Frame::DATA, '2')->send(Frame::HEARTBEAT_REQ)->send(Frame::DATA, '3')->send(Frame::UNREGISTER);
            $peer->expect(Frame::HEARTBEAT_RES);
            $peer->bytes(Frame::registration('b'));
            $peer->expect(Frame::REGISTER);
            $peer->send(Frame::DATA, '4')->send(Frame::DATA, '5');
        });
        $this->until(fn () => count($server->process->said('batch')) === 3, 'all is told');
        $told = array_filter($server->process->history(), fn (array $said) => in_array($said[0], ['batch', 'register', 'heartbeat', 'unregister'], true));
        self::assertSame([['register', 'a'], ['batch', ['1', '2']], ['heartbeat', 'a'], ['batch', ['3']], ['unregister', 'a'], ['register', 'b'],
            ['batch', ['4', '5']]], array_values($told));
    }

    public function test_of_data_and_data_batch_the_later_one_replaces_the_other(): void
    {
        $server = $this->server([], 'say_events($server, "data", "data.batch");');
        $peer = $server->connect();
        $channel = $peer->register('a')['channel_id'];
        $peer->send(Frame::DATA, 'x');
        self::assertSame([['a'], ['x'], [$channel]], $server->next('data.batch'));
        $server->ask('say_events($server, "data");');
        $peer->send(Frame::DATA, 'y');
        self::assertSame(['a', 'y', $channel], $server->next('data'));
        $server->ask('say_events($server, "data.batch");');
        $peer->send(Frame::DATA, 'z')->expectSilence();
        self::assertSame([['a'], ['z'], [$channel]], $server->next('data.batch'));
        self::assertCount(2, $server->process->said('data.batch'));
        self::assertCount(1, $server->process->said('data'));
    }

    public function test_what_cannot_be_called_is_refused_and_the_callback_stays(): void
    {
        $server = $this->server([], 'say_events($server, "data");
            try { $server->on("data.batch", null); } catch (TypeError $e) { say("refused", $e->getMessage()); }
            try { $server->on("data.batches", fn () => null); } catch (InvalidArgumentException $e) { say("unknown", $e->getMessage()); }');
        self::assertStringContainsString('must be a valid callback', $server->next('refused')[0]);
        self::assertStringContainsString('data, data.batch,', $server->next('unknown')[0]);
        $server->node('a')->send(Frame::DATA, 'x');
        self::assertSame('x', $server->next('data')[1]);
    }

    public function test_event_speaks_of_the_first_message(): void
    {
        $server = $this->holding('say("batch", count($payloads), $server->event());');
        $peer = $server->node('a');
        $this->hold($server, $peer, fn () => $peer->send(Frame::DATA, '1')->send(Frame::DATA, '2'));
        self::assertSame([2, ['sequence' => 2, 'redelivered' => false]], $server->next('batch'));
        $peer->send(Frame::DATA, '3');
        self::assertSame([1, ['sequence' => 4, 'redelivered' => false]], $server->next('batch'));
    }

    public function test_a_flood_from_many_nodes_arrives_complete_and_in_order(): void
    {
        $server = $this->server([], '
            $next = []; $wrong = $total = 0;
            $server->on("data.batch", function (array $nodes, array $payloads) use (&$next, &$wrong, &$total) {
                foreach ($payloads as $i => $payload) {
                    $wrong += (int) $payload !== $next[$nodes[$i]->id] = ($next[$nodes[$i]->id] ?? 0) + 1;
                }
                if (($total += count($payloads)) === 50000) { say("done", $wrong, count($next)); }
            });');
        $peers = array_map(fn (int $number) => $server->node("n$number"), range(1, 50));
        for ($i = 0; $i < 1000; $i += 250) {
            $bytes = implode('', array_map(fn (int $n) => Frame::bytes(Frame::DATA, (string) $n), range($i + 1, $i + 250)));
            foreach ($peers as $peer) {
                $peer->bytes($bytes);
            }
        }
        self::assertSame([0, 50], $server->next('done', 30));
    }

    public function test_after_an_exception_the_rest_is_told_and_nothing_twice(): void
    {
        $port = Port::free();
        $process = $this->script("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);" . '
            $server->on("start", fn () => say("ready"));
            $all = [];
            $server->on("data.batch", function (array $nodes, array $payloads) use ($server, &$all) {
                if ($payloads === ["hold"]) {
                    say("holds");
                    while ($server->getStats()["engine"]["data_in"] < 2501) { usleep(1000); }
                    return;
                }
                $all = [...$all, ...$payloads];
                if (count($all) === 1024) { throw new DomainException("after " . count($payloads)); }
                if (count($all) >= 2500) { say("all", $all === array_map(strval(...), range(1, 2500))); $server->stop(); }
            });
            try { $server->start(); } catch (DomainException $e) { say("caught", $e->getMessage()); }
            $server->start();');
        $process->next('ready');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'hold');
        $process->next('holds');
        $peer->bytes(implode('', array_map(fn (int $i) => Frame::bytes(Frame::DATA, (string) $i), range(1, 2500))));
        self::assertSame(['after 1024'], $process->next('caught'));
        self::assertSame([true], $process->next('all'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_exit_in_the_callback_ends_the_process_with_its_code(): void
    {
        $server = $this->server([], '$server->on("data.batch", function () { exit(7); });');
        $server->node('a')->send(Frame::DATA, 'x');
        self::assertSame(7, $server->process->exitCode(20));
    }

    public function test_a_loop_inside_of_the_callback_tells_what_comes_next(): void
    {
        $server = $this->server([], '
            $all = [];
            $server->on("data.batch", function (array $nodes, array $payloads) use ($server, &$all) {
                $all = [...$all, ...$payloads];
                if ($payloads === ["outer"]) {
                    say("outer");
                    while (end($all) !== "last") { $server->poll(0.1); }
                    say("inner", $all);
                }
                say("told", ...$payloads);
            });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'outer');
        $server->next('outer');
        $peer->send(Frame::DATA, '1')->send(Frame::DATA, '2')->send(Frame::DATA, 'last');
        self::assertSame([['outer', '1', '2', 'last']], $server->next('inner'));
        $peer->expectSilence();
        $told = fn (): array => array_merge(...$server->process->said('told'));
        $this->until(fn () => count($told()) === 4, 'all are told');
        self::assertEqualsCanonicalizing(['outer', '1', '2', 'last'], $told());
    }

    public function test_channels_receive_the_messages_of_a_batch_as_well(): void
    {
        $server = $this->holding('say("batch", $payloads);', '
            $server->on("register", function (Node $node) use ($server) { $GLOBALS["channel"] = current($server->getChannelScheduler()->getNodeChannels($node->id)); });');
        $peer = $server->node('a');
        $this->hold($server, $peer, fn () => $peer->send(Frame::DATA, '1')->send(Frame::DATA, '2'));
        self::assertSame([['1', '2']], $server->next('batch'));
        $received = $server->ask('return array_map(fn () => $GLOBALS["channel"]->recv(0.01), range(1, 4));');
        self::assertSame(['1', '2', null], array_slice($received, 1), 'behind the one that held');
    }

    /** A server whose callback runs `$code` with the lists of each batch but the one that hold() sends. */
    private function holding(string $code, string $more = ''): TestServer
    {
        return $this->server([], $more . '
            $server->on("data.batch", function (array $nodes, array $payloads, array $channels) use ($server) {
                if (str_starts_with($payloads[0], "hold ")) {
                    say("holds");
                    while (!is_file(substr($payloads[0], 5))) { usleep(1000); clearstatcache(); }
                    return;
                }' . $code . '
            });');
    }

    /** What the peers send meanwhile waits together: the callback of a message before it returns only then. */
    private function hold(TestServer $server, Peer $peer, callable $send): void
    {
        $go = PhpProcess::folder() . '/go' . $server->port;
        $peer->send(Frame::DATA, "hold $go");
        $server->next('holds');
        $send();
        $peer->expectSilence();
        touch($go);
    }
}
