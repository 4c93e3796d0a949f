<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{Frame, Peer, Port, TestCase};

/** What the server does with each message, seen from the wire. */
final class MessagesTest extends TestCase
{
    public function test_register_is_answered_with_the_original_reply_and_the_channel_at_top_level_as_last_key(): void
    {
        $peer = $this->server()->connect();
        $since = microtime(true);
        $peer->bytes(Frame::registration('node-1', ['v' => '1.0']));
        $frame = $peer->expect(Frame::REGISTER);
        self::assertSame(0, $frame->channel);
        $time = '[0-9]{10}(\.[0-9]{1,6})?';
        self::assertMatchesRegularExpression(
            "/^{\"node_id\":\"node-1\",\"metadata\":{\"channel_id\":1,\"status\":\"ok\",\"server_time\":$time},\"timestamp\":$time,\"channel_id\":1}$/",
            $frame->payload);
        self::assertSince($since, $frame->json()['timestamp']);
    }

    /** @dataProvider namelessRegistrations */
    public function test_a_registration_without_an_id_gets_one(string $payload): void
    {
        $peer = $this->server()->connect();
        $peer->send(Frame::REGISTER, $payload);
        self::assertMatchesRegularExpression('/^node_[0-9a-f]{13}_[0-9a-f]{8}$/', $peer->expect(Frame::REGISTER)->json()['node_id']);
        $peer->beat();
    }

    public static function namelessRegistrations(): array
    {
        return ['no id' => ['{"metadata":[]}'], 'null' => ['{"node_id":null}'], 'empty object' => ['{}'], 'a list' => ['[]'],
            'a number' => ['12'], 'no JSON' => ['hello'], 'nothing' => ['']];
    }

    public function test_made_up_ids_differ(): void
    {
        $server = $this->server();
        $ids = [];
        for ($i = 0; $i < 50; $i++) {
            $peer = $server->connect();
            $peer->send(Frame::REGISTER, '{}');
            $ids[] = $peer->expect(Frame::REGISTER)->json()['node_id'];
        }
        self::assertCount(50, array_unique($ids));
    }

    public function test_a_numeric_id_becomes_a_string(): void
    {
        $server = $this->server([], "say_events(\$server, 'register');");
        $peer = $server->connect();
        $peer->send(Frame::REGISTER, '{"node_id":42}');
        self::assertSame('42', $peer->expect(Frame::REGISTER)->json()['node_id']);
        self::assertSame(['42'], $server->next('register'));
    }

    public function test_the_ids_zero_and_longest_are_ids_like_any_other(): void
    {
        $server = $this->server();
        foreach (['0', str_repeat('x', 255), 'ünï/"\\' . "\t"] as $id) {
            $peer = $server->connect();
            self::assertSame($id, $peer->register($id)['node_id']);
            $peer->beat();
            $peer->send(Frame::UNREGISTER);
            $peer->expectSilence();
        }
        self::assertSame(0, $server->stats()['nodes']['online']);
    }

    /** @dataProvider badIds */
    public function test_a_bad_id_is_refused_and_the_connection_stays(string $id): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $peer->send(Frame::REGISTER, '{"node_id":' . $id . '}');
        $peer->expectError(400, 'Invalid node id');
        self::assertSame('fine', $peer->register('fine')['node_id']);
        self::assertSame(1, $server->counter('registers_refused'));
    }

    public static function badIds(): array
    {
        return ['empty' => ['""'], 'array' => ['["a"]'], 'object' => ['{"a":1}'], '256 bytes' => ['"' . str_repeat('x', 256) . '"'],
            '64 KiB' => ['"' . str_repeat('x', 65536) . '"']];
    }

    public function test_metadata_over_64_kib_is_refused(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $peer->bytes(Frame::registration('big', ['x' => str_repeat('y', 65536)]));
        self::assertSame(400, $peer->expect(Frame::ERROR)->json()['code']);
        $peer->register('big', ['x' => str_repeat('y', 60000)]);
    }

    public function test_metadata_reaches_php_as_an_array(): void
    {
        $server = $this->server([], '$server->on("register", fn (Node $node) => say("metadata", $node->metadata, $node->getMetadata("v")));');
        $server->node('a', ['v' => '1.0', 'deep' => ['list' => [1, 2.5, null, true]], '中' => '😀']);
        self::assertSame([['v' => '1.0', 'deep' => ['list' => [1, 2.5, null, true]], '中' => '😀'], '1.0'], $server->next('metadata'));
        foreach (['"text"', '12', 'null', 'true', '[]', '{}'] as $number => $metadata) {
            $server->connect()->send(Frame::REGISTER, "{\"node_id\":\"b$number\",\"metadata\":$metadata}");
            self::assertSame([[], null], $server->next('metadata'));
        }
        $server->connect()->send(Frame::REGISTER, '{"node_id":"c","metadata":["x","y"]}');
        self::assertSame([['x', 'y'], null], $server->next('metadata'));
    }

    public function test_registering_again_keeps_node_and_channel_and_updates_the_metadata(): void
    {
        $server = $this->server([], 'say_events($server, "register", "data");
            $server->on("data", fn (Node $node) => say("metadata", $node->metadata));');
        $peer = $server->connect();
        $first = $peer->register('a', ['v' => 1]);
        $again = $peer->register('a', ['v' => 2]);
        self::assertSame($first['channel_id'], $again['channel_id']);
        $peer->send(Frame::DATA, 'x');
        self::assertSame([['v' => 2]], $server->next('metadata'));
        self::assertCount(1, $server->process->said('register'));
        self::assertSame(1, $server->stats()['nodes']['total_registered']);
    }

    public function test_a_heartbeat_is_answered_with_the_server_s_time_and_counted(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        $since = microtime(true);
        $peer->send(Frame::HEARTBEAT_REQ, '{"timestamp":1}');
        $reply = $peer->expect(Frame::HEARTBEAT_RES);
        self::assertSame(0, $reply->channel);
        self::assertSame(['timestamp'], array_keys($reply->json()));
        self::assertSince($since, $reply->json()['timestamp']);
        $peer->send(Frame::HEARTBEAT_REQ, 'the payload does not matter');
        $peer->expect(Frame::HEARTBEAT_RES);
        self::assertSame(2, $server->counter('heartbeats'));
    }

    public function test_a_heartbeat_of_a_stranger_gets_no_answer_and_is_counted(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $peer->bytes(Frame::heartbeat());
        $peer->expectSilence();
        self::assertSame(1, $server->counter('heartbeats_ignored'));
    }

    public function test_data_gets_no_answer_and_reaches_php(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $peer = $server->connect();
        $channel = $peer->register('a')['channel_id'];
        $peer->send(Frame::DATA, 'on the first channel')->send(Frame::DATA, "bytes \0 é中😀", $channel);
        $peer->expectSilence();
        self::assertSame(['a', 'on the first channel', $channel], $server->next('data'));
        self::assertSame(['a', "bytes \0 é中😀", $channel], $server->next('data'));
    }

    public function test_data_of_a_stranger_or_into_a_stranger_s_channel_goes_nowhere(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $stranger = $server->connect();
        $stranger->send(Frame::DATA, 'nobody');
        $stranger->expectSilence();
        $victim = $server->connect();
        $channel = $victim->register('victim')['channel_id'];
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'intruder', $channel)->send(Frame::DATA, 'no such', 999)->send(Frame::DATA, 'negative', -1);
        $peer->expectSilence();
        $victim->expectSilence();
        $peer->send(Frame::DATA, 'own');
        self::assertSame('own', $server->next('data')[1]);
        self::assertSame(4, $server->counter('data_ignored'));
    }

    public function test_ping_is_answered_to_anybody_and_is_no_heartbeat(): void
    {
        $server = $this->server(['heartbeat_timeout' => 1], 'say_events($server, "timeout");');
        $peer = $server->connect();
        $peer->expectSilence();
        $peer->register('a');
        // Pings all along: the node is declared down all the same.
        $this->until(function () use ($peer, $server): bool {
            $peer->send(Frame::PING);
            return $server->process->said('timeout') === [['a']];
        }, 'the node times out');
    }

    public function test_unregister_is_silent_and_leaves_the_connection_open(): void
    {
        $server = $this->server([], 'say_events($server, "register", "unregister");');
        $peer = $server->node('a');
        $peer->send(Frame::UNREGISTER)->send(Frame::HEARTBEAT_REQ)->send(Frame::UNREGISTER);
        $peer->expectSilence();
        self::assertSame(['a'], $server->next('unregister'));
        self::assertSame(0, $server->stats()['nodes']['online']);
        $peer->register('b');
        $peer->beat();
        self::assertCount(1, $server->process->said('unregister'));
    }

    public function test_messages_only_servers_send_and_unknown_types_are_silent_and_counted(): void
    {
        $server = $this->server();
        $peer = $server->node('a');
        $types = [0, 2, 5, 8, 12, 100, 255];
        foreach ($types as $type) {
            $peer->send($type, '{}');
        }
        $peer->expectSilence();
        self::assertSame(count($types), $server->counter('unknown_types'));
    }

    public function test_a_frame_split_anywhere_works_the_same(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $peer = $server->node('a');
        $frame = Frame::bytes(Frame::DATA, 'split é');
        for ($cut = 1; $cut < strlen($frame); $cut++) {
            $peer->bytes(substr($frame, 0, $cut));
            // The server has answered something in between on another connection: it did see the first half alone.
            if ($cut % 8 === 1) {
                $server->connect()->expectSilence();
            }
            $peer->bytes(substr($frame, $cut));
        }
        foreach (str_split(Frame::bytes(Frame::DATA, 'byte by byte')) as $byte) {
            $peer->bytes($byte);
        }
        $peer->expectSilence();
        for ($cut = 1; $cut < strlen($frame); $cut++) {
            self::assertSame('split é', $server->next('data')[1]);
        }
        self::assertSame('byte by byte', $server->next('data')[1]);
    }

    public function test_glued_frames_are_all_handled_in_order(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $peer = $server->connect();
        $peer->bytes(Frame::bytes(Frame::PING) . Frame::registration('a') . Frame::bytes(Frame::DATA, 'one') . Frame::heartbeat()
            . Frame::bytes(Frame::DATA, 'two') . Frame::bytes(Frame::PING));
        foreach ([Frame::PONG, Frame::REGISTER, Frame::HEARTBEAT_RES, Frame::PONG] as $type) {
            $peer->expect($type);
        }
        self::assertSame('one', $server->next('data')[1]);
        self::assertSame('two', $server->next('data')[1]);
    }

    public function test_a_large_message_arrives_whole_and_once(): void
    {
        $server = $this->server([], '$server->on("data", fn (Node $node, string $payload) => say("data", strlen($payload), md5($payload)));');
        $peer = $server->node('a');
        foreach ([200_000, 5_000_000] as $size) {
            $text = substr(str_repeat('0123456789abcdef', intdiv($size, 16) + 1), 0, $size);
            $peer->send(Frame::DATA, $text);
            self::assertSame([$size, md5($text)], $server->next('data'));
        }
        $peer->expectSilence();
        self::assertCount(2, $server->process->said('data'));
    }

    public function test_a_body_of_exactly_the_limit_is_taken(): void
    {
        $server = $this->server([], '$server->on("data", fn (Node $node, string $payload) => say("data", strlen($payload)));');
        $peer = $server->node('a');
        $length = 10485760 - strlen('{"channel_id":0,"payload":""}');
        $peer->send(Frame::DATA, str_repeat('x', $length));
        self::assertSame([$length], $server->next('data'));
        $peer->expectSilence();
    }

    public function test_raw_and_escaped_utf8_mean_the_same(): void
    {
        $server = $this->server([], 'say_events($server, "data");');
        $peer = $server->node('a');
        $peer->bytes(Frame::body(Frame::DATA, '{"payload":"é中😀/"}') . Frame::body(Frame::DATA, ' { "payload" : "\u00E9\u4e2d\ud83d\ude00\/" } '));
        self::assertSame('é中😀/', $server->next('data')[1]);
        self::assertSame('é中😀/', $server->next('data')[1]);
    }

    public function test_channel_and_connection_ids_start_at_one_and_only_increase(): void
    {
        $server = $this->server(['worker_count' => 4], '$server->on("register", fn (Node $node) => say("register", $node->connectionId, $node->ip, $node->port));');
        for ($i = 1; $i <= 5; $i++) {
            $peer = $server->connect();
            self::assertSame($i, $peer->register("n$i")['channel_id']);
            [$connection, $ip, $port] = $server->next('register');
            self::assertSame([$i, '127.0.0.1'], [$connection, $ip]);
            self::assertGreaterThan(0, $port);
            $peer->close();
        }
    }

    public function test_listens_on_ipv6_and_host_names(): void
    {
        $hosts = Port::hasIpv6() ? ['::1' => '::1', '::' => '::1', 'localhost' => 'localhost'] : ['localhost' => 'localhost'];
        foreach ($hosts as $host => $target) {
            $server = $this->server([], '$server->on("register", fn (Node $node) => say("ip", $node->ip));', ['host' => $host]);
            $peer = Peer::connect($server->port, $target);
            $peer->register('six');
            $peer->beat();
            self::assertContains($server->next('ip')[0], ['::1', '127.0.0.1']);
        }
    }
}
