<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{FakeServer, Frame, Peer, TestCase, Vectors};

/** The v2 dialect, which carries any bytes, beside v1 on one port. */
final class DialectsTest extends TestCase
{
    private const ECHO = '$server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, $payload));';

    /** @return iterable<string, array{string}> */
    public static function payloads(): iterable
    {
        yield 'every byte' => [implode('', array_map('chr', range(0, 255)))];
        yield 'no UTF-8' => ["\xFF\xC0\x80"];
        yield 'text' => ['é中😀'];
        yield 'nothing' => [''];
        yield 'a frame' => [Frame::v2(Frame::PING)];
        yield 'a megabyte of noise' => [random_bytes(1_000_000)];
    }

    /** @dataProvider payloads */
    public function test_a_client_sends_any_bytes_and_gets_any_bytes(string $payload): void
    {
        $server = $this->server([], self::ECHO);
        $client = $this->client($server->port, ['node_id' => 'a'], '$client->on("data", fn (string $data) => say("echo", base64_encode($data)));');
        $client->next('register');
        self::assertTrue($client->ask('return $client->send(base64_decode("' . base64_encode($payload) . '"));'));
        self::assertSame(base64_encode($payload), $client->next('echo')[0]);
    }

    public function test_a_client_that_wants_v1_refuses_what_is_no_text(): void
    {
        $server = $this->server([], self::ECHO);
        $client = $this->client($server->port, ['node_id' => 'a', 'protocol' => 1]);
        $client->next('register');
        self::assertFalse($client->ask('return $client->send("\xFF");'));
        self::assertFalse($server->ask('return $server->sendTo("a", "\xFF");'));
        self::assertTrue($client->ask('return $client->send("text");'));
        self::assertSame('text', $client->next('data')[0]);
    }

    /** @dataProvider wrongProtocols */
    public function test_only_the_two_dialects_can_be_asked_for(string $value): void
    {
        $script = $this->script("
            \$client = new HeartbeatClient('127.0.0.1', 1, ['protocol' => $value]);
            try { \$client->connect(); } catch (\\Throwable \$thrown) { say('thrown', get_class(\$thrown), \$thrown->getMessage()); }");
        self::assertStringContainsString('protocol', $script->next('thrown')[1]);
    }

    public static function wrongProtocols(): array
    {
        return ['0' => ['0'], '3' => ['3'], 'text' => ['"2"'], 'a float' => ['2.5'], 'a list' => ['[]']];
    }

    public function test_a_client_asks_for_v2_in_v1_and_speaks_it_once_the_server_agrees(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['node_id' => 'a']);
        $peer = $server->accept();
        $registration = $peer->expect(Frame::REGISTER);
        self::assertSame(1, $registration->dialect);
        self::assertSame(2, $registration->json()['protocol']);
        self::assertSame('protocol', array_key_last($registration->json()));
        $peer->send(Frame::REGISTER, '{"node_id":"a","metadata":{"channel_id":7},"timestamp":1.5,"channel_id":7,"protocol":2}');
        $ack = $peer->expect(Frame::ACK);
        self::assertSame([2, '', 0], [$ack->dialect, $ack->payload, $ack->channel]);
        $client->next('register');
        self::assertTrue($client->ask('return $client->send("\xFF");'));
        $data = $peer->expect(Frame::DATA);
        self::assertSame([2, "\xFF", 7], [$data->dialect, $data->payload, $data->channel]);
        $peer->bytes(Frame::v2(Frame::DATA, 'new', 7) . Frame::bytes(Frame::DATA, 'old', 7));
        self::assertSame(['new', 'old'], [$client->next('data')[0], $client->next('data')[0]]);
    }

    public function test_a_raw_peer_agrees_and_is_answered_frame_by_frame(): void
    {
        $server = $this->server([], self::ECHO);
        $peer = $server->connect();
        $peer->send(Frame::REGISTER, '{"node_id":"a","protocol":2}');
        $reply = $peer->expect(Frame::REGISTER);
        self::assertSame([1, 2], [$reply->dialect, $reply->json()['protocol']]);
        $peer->bytes(Frame::v2(Frame::DATA, "\xAB\x13\xFF"));
        $echo = $peer->expect(Frame::DATA);
        self::assertSame([2, "\xAB\x13\xFF"], [$echo->dialect, $echo->payload]);
        $peer->bytes(Frame::v2(Frame::PING) . Frame::bytes(Frame::PING));
        self::assertSame([2, 1], [$peer->expect(Frame::PONG)->dialect, $peer->expect(Frame::PONG)->dialect]);
    }

    public function test_a_stop_is_told_as_goaway_and_reaches_the_application_as_the_error_it_was(): void
    {
        $server = $this->server();
        $client = $this->client($server->port, ['node_id' => 'a']);
        $client->next('register');
        $peer = $server->connect();
        $peer->bytes(Frame::v2(Frame::PING));
        $peer->expect(Frame::PONG);
        $server->process->signal(SIGTERM);
        $told = $peer->expect(Frame::GOAWAY)->json();
        self::assertSame(['message' => 'Server is shutting down', 'code' => 503, 'window_ms' => 1000], $told);
        $peer->expectClosed();
        self::assertStringContainsString('Server is shutting down', json_encode($client->next('server_error')));
    }

    /** @dataProvider goldenFrames */
    public function test_the_golden_frames_are_what_pack_makes(string $bytes, int $type, int $channel, string $payload): void
    {
        self::assertSame(bin2hex($bytes), bin2hex(Frame::v2($type, $payload, $channel)));
    }

    public static function goldenFrames(): iterable
    {
        return Vectors::v2('both');
    }
}
