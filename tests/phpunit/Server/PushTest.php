<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, TestCase};

/** The host speaks: sendTo(), broadcast(), disconnect(). */
final class PushTest extends TestCase
{
    public function test_send_to_reaches_the_node_on_its_channel(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $channel = $peer->register('a')['channel_id'];
        self::assertTrue($server->ask('return $server->sendTo("a", "hello");'));
        $frame = $peer->expect(Frame::DATA);
        self::assertSame(['hello', $channel], [$frame->payload, $frame->channel]);
        self::assertTrue($server->ask("return \$server->sendTo('a', 'named', $channel);"));
        self::assertSame('named', $peer->expect(Frame::DATA)->payload);
    }

    public function test_send_to_says_false_when_there_is_no_such_node_or_channel(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $channel = $peer->register('a')['channel_id'];
        self::assertFalse($server->ask('return $server->sendTo("b", "hello");'));
        self::assertFalse($server->ask('return $server->sendTo("a", "hello", ' . ($channel + 1) . ');'));
        $peer->send(Frame::UNREGISTER);
        $peer->expectSilence();
        self::assertFalse($server->ask('return $server->sendTo("a", "hello");'));
        $peer->expectSilence();
    }

    public function test_messages_arrive_in_order(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        $server->ask('for ($i = 0; $i < 5000; $i++) { $server->sendTo("a", "message $i") || throw new Exception("refused at $i"); }');
        for ($i = 0; $i < 5000; $i++) {
            self::assertSame("message $i", $peer->expect(Frame::DATA)->payload);
        }
    }

    public function test_bytes_that_json_can_carry_travel_unharmed(): void
    {
        $server = $this->server([], '$server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, $payload));');
        $peer = $server->node('a');
        foreach ([implode('', array_map('chr', range(0, 127))), "é中😀\u{2028}\u{10FFFF}", '', '{"json":["text"]}', str_repeat("\0", 1000), "\r\n"] as $payload) {
            $peer->send(Frame::DATA, $payload);
            self::assertSame(bin2hex($payload), bin2hex($peer->expect(Frame::DATA)->payload));
        }
    }

    public function test_what_json_cannot_carry_is_refused_and_logged(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        foreach (['"\xFF"', '"text \xC0\x80"', 'random_bytes(1000)'] as $bytes) {
            self::assertFalse($server->ask("return \$server->sendTo('a', $bytes);"));
            self::assertSame(0, $server->ask("return \$server->broadcast($bytes);"));
        }
        self::assertStringContainsString('UTF-8', $server->process->errors());
        $peer->expectSilence();
    }

    public function test_what_is_over_the_frame_limit_is_refused(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        self::assertFalse($server->ask('return $server->sendTo("a", str_repeat("x", 10485761));'));
        // Escaping makes it longer than the limit, not the payload itself.
        self::assertFalse($server->ask('return $server->sendTo("a", str_repeat("\0", 2000000));'));
        self::assertSame(0, $server->ask('return $server->broadcast(str_repeat("x", 10485761));'));
        $peer->expectSilence();
        self::assertTrue($server->ask('return $server->sendTo("a", str_repeat("x", 5000000));'));
        self::assertSame(5_000_000, strlen($peer->expect(Frame::DATA)->payload));
    }

    public function test_broadcast_reaches_every_node_on_its_own_channel_and_counts_them(): void
    {
        $server = $this->server();
        self::assertSame(0, $server->ask('return $server->broadcast("nobody");'));
        $channels = [];
        $one = $server->connect();
        foreach (['a', 'b', 'c'] as $id) {
            $channels[] = $one->register($id)['channel_id'];
        }
        $other = $server->node('d');
        $server->connect()->expectSilence();
        self::assertSame(4, $server->ask('return $server->broadcast("to all é");'));
        self::assertSame('to all é', $other->expect(Frame::DATA)->payload);
        $received = array_map(fn () => $one->expect(Frame::DATA), $channels);
        self::assertEqualsCanonicalizing($channels, array_map(fn (Frame $frame) => $frame->channel, $received));
    }

    public function test_disconnect_closes_the_node_s_connection(): void
    {
        $server = $this->server([], 'say_events($server, "disconnected", "close");');
        $peer = $server->node('a');
        self::assertFalse($server->ask('return $server->disconnect("nobody");'));
        self::assertTrue($server->ask('return $server->disconnect("a");'));
        $peer->expectClosed();
        self::assertSame(['a'], $server->next('disconnected'));
        self::assertSame('disconnected by the server', $server->next('close')[1]);
        self::assertFalse($server->ask('return $server->disconnect("a");'));
        $server->node('a')->beat();
    }

    public function test_before_the_start_and_after_the_stop_nobody_is_reached(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", ' . \Heartbus\Tests\Port::free() . ', ["loop" => "native"]);
            say("before", $server->sendTo("a", "x"), $server->broadcast("x"), $server->disconnect("a"));
            $server->every(0.01, fn () => $server->stop());
            $server->start();
            say("after", $server->sendTo("a", "x"), $server->broadcast("x"), $server->disconnect("a"));
            $server->stop();');
        self::assertSame(0, $process->exitCode());
        self::assertSame([false, 0, false], $process->next('before'));
        self::assertSame([false, 0, false], $process->next('after'));
    }

    public function test_a_callback_may_send_to_and_disconnect_anybody(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                [$verb, $id, $text] = explode(" ", $payload) + [1 => "", 2 => ""];
                match ($verb) {
                    "tell" => $server->sendTo($id, $text),
                    "kick" => $server->disconnect($id),
                    "shout" => $server->broadcast($id),
                };
            });');
        [$a, $b] = [$server->node('a'), $server->node('b')];
        $a->send(Frame::DATA, 'tell b hello')->send(Frame::DATA, 'shout hey')->send(Frame::DATA, 'kick b')->send(Frame::DATA, 'kick a');
        self::assertSame('hello', $b->expect(Frame::DATA)->payload);
        self::assertSame('hey', $b->expect(Frame::DATA)->payload);
        $b->expectClosed();
        self::assertSame('hey', $a->expect(Frame::DATA)->payload);
        $a->expectClosed();
    }
}
