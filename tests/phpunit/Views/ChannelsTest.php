<?php

namespace Heartbus\Tests\Views;

use Heartbus\Bus;
use Heartbus\Tests\{Frame, PhpProcess, TestCase};

/** getChannelScheduler() of a running server: its nodes' channels, in both directions. */
final class ChannelsTest extends TestCase
{
    private const MAIN = '$channel = $server->getChannelScheduler()->getNodeMainChannel("a");';

    public function test_each_node_has_one_channel_that_is_found_in_every_way(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $id = $peer->register('a')['channel_id'];
        $peers[] = $server->node('b');
        self::assertSame([$id, 'a', true, true, true, true, [2, 2]], $server->ask(self::MAIN . '
            $scheduler = $server->getChannelScheduler();
            $of_node = $scheduler->getNodeChannels("a");
            return [$channel->id, $channel->nodeId, $scheduler->getChannel($channel->id) === $channel, $of_node === [$channel->id => $channel],
                $scheduler->getAllChannels()[$channel->id] === $channel, $scheduler->hasNodeChannels("b"), [$scheduler->getActiveChannelCount(), $scheduler->getActiveNodeCount()]];'));
        self::assertSame([null, null, null, [], false], $server->ask('
            $scheduler = $server->getChannelScheduler();
            return [$scheduler->getChannel(0), $scheduler->getChannel(-1), $scheduler->getNodeMainChannel("nobody"), $scheduler->getNodeChannels("nobody"), $scheduler->hasNodeChannels("nobody")];'));
    }

    public function test_send_goes_out_on_the_wire_on_the_node_s_channel(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $id = $peer->register('a')['channel_id'];
        self::assertSame([true, true, true, 3, 0], $server->ask(self::MAIN . '
            return [$channel->send("one"), $channel->trySend("two"), $channel->trySend("three", true), $channel->getStats()["send_count"], $channel->getSendQueueSize()];'));
        foreach (['one', 'two', 'three'] as $payload) {
            $frame = $peer->expect(Frame::DATA);
            self::assertSame([$payload, $id], [$frame->payload, $frame->channel]);
        }
        self::assertSame([false, 3, false], $server->ask('$GLOBALS["c"] = ' . substr(self::MAIN, 11) . ' $c = $GLOBALS["c"];
            for ($i = 0; $i < 3; $i++) { $c->send("x"); } return [$c->send("\xFF"), $c->getStats()["send_count"], $c->isClosed()];'));
    }

    public function test_recv_blocks_and_the_server_goes_on_meanwhile(): void
    {
        $server = $this->server([], '
            $server->on("data", fn (Node $node, string $payload) => say("data", $payload));
            $server->on("heartbeat", function () use ($server) {
                $channel = $server->getChannelScheduler()->getNodeMainChannel("a");
                say("got", $channel->recv(20), $channel->recv(20), $channel->recv(0.05));
            });');
        $peer = $server->node('a');
        $peer->beat();
        $other = $server->node('b');
        $other->beat();
        $peer->send(Frame::DATA, 'one');
        self::assertSame(['one'], $server->next('data'));
        $peer->send(Frame::DATA, 'two');
        self::assertSame(['one', 'two', null], $server->next('got'));
        self::assertSame(['two'], $server->next('data'));
    }

    public function test_messages_that_came_between_two_calls_are_there_and_sizes_are_right(): void
    {
        $server = $this->server([], '$server->on("data", fn () => say("data"));');
        $peer = $server->node('a');
        // Nobody holds the channel after this; but somebody has begun to receive.
        self::assertNull($server->ask(self::MAIN . 'return $channel->recv(0.01);'));
        $peer->send(Frame::DATA, 'one')->send(Frame::DATA, 'two');
        $server->next('data');
        $server->next('data');
        self::assertSame(2, $server->ask(self::MAIN . 'return $channel->getRecvQueueSize();'));
        self::assertSame([2, 2], [$server->stats()['channels']['total_recv_queue'], $server->ask('return $server->getChannelScheduler()->getStatsSummary();')['total_recv_queue']]);
        self::assertSame(['one', 'two', 0, 2], $server->ask(self::MAIN . 'return [$channel->recv(), $channel->recv(), $channel->getRecvQueueSize(), $channel->getStats()["recv_count"]];'));
    }

    public function test_a_full_queue_drops_its_oldest_and_counts_it(): void
    {
        $server = $this->server(['channel_max_queue_size' => 3], '$server->on("data", fn () => say("data"));');
        $peer = $server->node('a');
        $server->ask(self::MAIN . '$channel->recv(0.001);');
        foreach (range(1, 5) as $i) {
            $peer->send(Frame::DATA, "$i");
            $server->next('data');
        }
        self::assertSame(['3', '4', '5', null], $server->ask(self::MAIN . 'return [$channel->recv(), $channel->recv(), $channel->recv(), $channel->recv(0.001)];'));
        self::assertSame(2, $server->counter('channel_dropped'));
    }

    public function test_recv_async_is_resolved_in_order_and_resolved_at_once_when_something_is_there(): void
    {
        $server = $this->server([], '
            $server->on("register", function (Node $node) use ($server) {
                $channel = $server->getChannelScheduler()->getNodeMainChannel($node->id);
                foreach ([1, 2] as $number) { $channel->recvAsync()->addDoneCallback(fn ($future) => say("future", $number, $future->getResult())); }
                say("waiting", $channel->getStats()["waiting_futures"]);
            });
            $server->on("data", fn (Node $node, string $payload) => say("data", $payload));');
        $peer = $server->node('a');
        self::assertSame([2], $server->next('waiting'));
        $peer->send(Frame::DATA, 'one')->send(Frame::DATA, 'two')->send(Frame::DATA, 'three');
        self::assertSame([1, 'one'], $server->next('future'));
        self::assertSame([2, 'two'], $server->next('future'));
        self::assertSame(['one'], $server->next('data'));
        self::assertSame(['two'], $server->next('data'));
        self::assertSame(['three'], $server->next('data'));
        self::assertSame([true, 'three'], $server->ask(self::MAIN . '$future = $channel->recvAsync(); return [$future->isDone(), $future->getResult()];'));
    }

    public function test_recv_suspends_a_fiber_and_a_timed_out_one_swallows_nothing(): void
    {
        $server = $this->server([], '
            $server->on("register", function (Node $node) use ($server) {
                $channel = $server->getChannelScheduler()->getNodeMainChannel($node->id);
                $fiber = new Fiber(function () use ($channel) {
                    say("timed out", $channel->recv(0.1));
                    while (($message = $channel->recv()) !== null) { say("fiber", $message); }
                    say("fiber ends");
                });
                $fiber->start();
                say("suspended", $fiber->isSuspended());
            });');
        $peer = $server->node('a');
        self::assertSame([true], $server->next('suspended'));
        self::assertSame([null], $server->next('timed out'));
        for ($i = 0; $i < 100; $i++) {
            $peer->send(Frame::DATA, "$i");
        }
        for ($i = 0; $i < 100; $i++) {
            self::assertSame(["$i"], $server->next('fiber'));
        }
        $peer->send(Frame::UNREGISTER);
        $server->next('fiber ends');
    }

    public function test_when_a_callback_throws_its_message_still_reaches_whoever_waits(): void
    {
        $port = \Heartbus\Tests\Port::free();
        $process = $this->script("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);
            \$server->on('start', fn () => say('ready'));
            \$server->on('register', fn (Node \$node) => \$server->getChannelScheduler()->getNodeMainChannel(\$node->id)->recvAsync()
                ->addDoneCallback(function (\$future) use (\$server) { say('future', \$future->getResult()); \$server->stop(); }));
            \$server->on('data', fn () => throw new DomainException('mine'));
            try { \$server->start(); } catch (DomainException \$e) { say('caught'); \$server->start(); }
            while (\$server->getNodeManager()->getNodeCount() > 0) { \$server->poll(0.1); }
            say('end');");
        $process->next('ready');
        $peer = \Heartbus\Tests\Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, 'kept');
        $process->next('caught');
        self::assertSame(['kept'], $process->next('future'));
        $process->next('end');
    }

    public function test_the_channel_of_a_node_that_left_is_closed_and_what_it_has_can_still_be_received(): void
    {
        $server = $this->server([], '
            say_events($server, "disconnected", "data");
            $server->on("register", function (Node $node) use ($server) { $GLOBALS["c"] ??= $server->getChannelScheduler()->getNodeMainChannel($node->id); });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'last words');
        $server->next('data');
        $peer->close();
        $server->next('disconnected');
        self::assertSame([true, 'last words', null, false, 'RuntimeException: Channel 1 is closed', true], $server->ask('
            $c = $GLOBALS["c"];
            try { $c->send("x"); } catch (Throwable $e) {}
            return [$c->isClosed(), $c->recv(), $c->recv(), $c->trySend("x"), $e::class . ": " . $e->getMessage(), $c->getStats()["closed"]];'));
        self::assertNull($server->ask('return $server->getChannelScheduler()->getChannel(1);'));
        // Whoever comes under the id has another channel.
        $peers[] = $server->node('a');
        self::assertSame([true, false], $server->ask(self::MAIN . 'return [$GLOBALS["c"]->isClosed(), $channel->isClosed()];'));
    }

    public function test_a_waiter_gets_null_when_the_node_leaves_or_the_server_stops(): void
    {
        $server = $this->server([], '
            $server->on("register", fn (Node $node) => $server->getChannelScheduler()->getNodeMainChannel($node->id)->recvAsync()->addDoneCallback(fn ($future) => say("future", $node->id, $future->getResult())));
            $server->on("heartbeat", function (Node $node) use ($server) {
                $channel = $server->getChannelScheduler()->getNodeMainChannel($node->id);
                say("waits");
                say("got", $node->id, $channel->recv());
            });');
        [$a, $b] = [$server->node('a'), $server->node('b')];
        $a->beat();
        $server->next('waits');
        $a->close();
        self::assertSame(['a', null], $server->next('future'));
        self::assertSame(['a', null], $server->next('got'));
        $b->beat();
        $server->next('waits');
        self::assertSame(0, $server->stop());
        self::assertSame(['b', null], $server->next('future'));
        self::assertSame(['b', null], $server->next('got'));
        $server->next('returned');
    }

    public function test_close_ends_this_side_and_disconnects_nobody(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $peer = $server->node('a');
        self::assertSame([true, true, null, 'Channel 1 is closed', true], $server->ask(self::MAIN . '$GLOBALS["c"] = $channel;
            $future = $channel->recvAsync();
            $channel->close(); $channel->close();
            try { $channel->send("x"); } catch (RuntimeException $e) {}
            return [$channel->isClosed(), $future->isDone(), $future->getResult(), $e->getMessage(), $server->getChannelScheduler()->getChannel(1) === $channel];'));
        $peer->send(Frame::DATA, 'x');
        self::assertSame(['a', 'x', 1], $server->next('data'));
        self::assertSame(0, $server->ask('return $GLOBALS["c"]->getRecvQueueSize();'));
        // The scheduler forgets a closed one, and the node has its channel as ever.
        self::assertSame([1, 0, false, true], $server->ask('$s = $server->getChannelScheduler();
            return [$s->cleanup(), $s->cleanup(), $s->getChannel(1)->isClosed(), $s->getChannel(1)->send("hello")];'));
        self::assertSame('hello', $peer->expect(Frame::DATA)->payload);
        self::assertSame([true, false], $server->ask(self::MAIN . '$server->getChannelScheduler()->closeChannel(1); return [$channel->isClosed(), $server->getChannelScheduler()->getChannel(1)->isClosed()];'));
        self::assertSame([true, false], $server->ask(self::MAIN . '$server->getChannelScheduler()->closeNodeChannels("a"); return [$channel->isClosed(), $server->getChannelScheduler()->getNodeMainChannel("a")->isClosed()];'));
        $peer->expectSilence();
    }

    public function test_create_channel_is_the_node_s_own_and_refused_for_strangers(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        self::assertSame([true, 'Heartbus\Exception\NotFoundException', true], $server->ask(self::MAIN . '
            $s = $server->getChannelScheduler();
            try { $s->createChannel("nobody"); } catch (Throwable $e) {}
            return [$s->createChannel("a", 2) === $channel, $e::class, $e instanceof RuntimeException];'));
    }

    public function test_data_is_asked_for_only_while_somebody_has_a_channel(): void
    {
        $server = $this->server([], '$GLOBALS["c"] = null;');
        $peer = $server->node('a');
        $server->ask(self::MAIN . '$GLOBALS["c"] = $channel;');
        $peer->send(Frame::DATA, 'x');
        $this->until(fn () => $server->ask('return $GLOBALS["c"]->getRecvQueueSize();') === 1, 'the channel has it');
        $server->ask('$GLOBALS["c"] = null;');
        $peer->send(Frame::DATA, 'y');
        $peer->expectSilence();
        self::assertSame(0, $server->ask(self::MAIN . 'return $channel->getRecvQueueSize();'));
    }

    public function test_stats_list_every_channel_whether_somebody_has_it_or_not(): void
    {
        $server = $this->server();
        [$a, $b] = [$server->node('a'), $server->node('b')];
        $stats = $server->ask(self::MAIN . '$channel->send("x"); return $server->getChannelScheduler()->getStats();');
        self::assertSame(['active_channels', 'active_nodes', 'total_created', 'total_closed', 'channels'], array_keys($stats));
        self::assertSame([2, 2, 2, 0], array_slice(array_values($stats), 0, 4));
        $channels = array_column($stats['channels'], null, 'node_id');
        self::assertSame(array_keys($channels['a']), array_keys($channels['b']));
        self::assertSame(['id', 'node_id', 'closed', 'send_queue_size', 'recv_queue_size', 'waiting_futures', 'send_count', 'recv_count', 'created_at', 'lifetime'], array_keys($channels['a']));
        self::assertSame([1, 0], [$channels['a']['send_count'], $channels['b']['send_count']]);
        self::assertEqualsWithDelta(microtime(true), $channels['b']['created_at'], 10);
    }

    public function test_a_router_over_the_scheduler_reaches_channels_of_nodes(): void
    {
        $server = $this->server();
        $peers[] = $server->node('a');
        self::assertSame([true, 1, 'routed', 'to all'], $server->ask(self::MAIN . '
            $router = new \PfinalClub\AsyncioHeartbeat\Channel\MessageRouter($server->getChannelScheduler());
            return [$router->route(Message::createData("routed", $channel->id)), $router->broadcastAll(Message::createData("to all")), $channel->recv(), $channel->recv()];'));
    }

    public function test_channels_of_nodes_whose_leaving_was_never_told_by_itself_are_closed_too(): void
    {
        // A full inbox puts a node's leaving together with its coming back.
        $gate = PhpProcess::folder() . '/gate';
        $server = $this->server(['inbox_events' => 4], '
            $server->on("register", function (Node $node) {
                if ($node->id === "slow") { say("sleeps"); while (!file_exists(' . var_export($gate, true) . ')) { usleep(1000); } }
            });
            $server->on("disconnected", fn () => null);');
        $first = $server->node('a');
        self::assertTrue($server->ask(self::MAIN . '$GLOBALS["c"] = $channel; $GLOBALS["f"] = $channel->recvAsync(); return !$channel->isClosed();'));
        $peers[] = $server->node('slow');
        $server->next('sleeps');
        for ($i = 0; $i < 4; $i++) {
            $peers[] = $server->node("filling-$i");
        }
        $peers[] = $server->node('a');
        // Asked over the bus, because PHP sleeps.
        $bus = Bus::connect(PhpProcess::folder() . "/$server->port.sock", 10.0);
        $this->until(fn () => $bus->stats()['engine']['inbox_coalesced'] > 0, 'events were merged');
        touch($gate);
        $this->until(fn () => $server->ask('return $GLOBALS["f"]->isDone() && $GLOBALS["f"]->getResult() === null && $GLOBALS["c"]->isClosed();'), 'the waiter is told');
        self::assertFalse($server->ask(self::MAIN . 'return $channel === $GLOBALS["c"] || $channel->isClosed();'));
    }

    public function test_views_leak_nothing(): void
    {
        $server = $this->server([], '$server->on("data", fn () => null);');
        $peer = $server->node('a');
        $use = '$use = function () use ($server) { for ($i = 0; $i < 500; $i++) { $s = $server->getChannelScheduler(); $c = $s->getNodeMainChannel("a"); $c->send("x"); $c->recv(0.00001); $s->getStats(); $s->closeChannel($c->id); } };';
        $grown = $server->ask("$use \$use(); gc_collect_cycles(); \$before = memory_get_usage(); \$use(); gc_collect_cycles(); return memory_get_usage() - \$before;", 30);
        self::assertLessThan(10_000, $grown);
    }
}
