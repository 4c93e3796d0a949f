<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{Frame, Peer, PhpProcess, ServerApp, TestCase, TestServer, WorkermanApp};

/** What a server's callbacks are told of who comes and who subscribes, in the engine's own process and in PHP workers. */
final class HooksTest extends TestCase
{
    /** Says everything, and who it is about. */
    private const CALLBACKS = '
        $name = fn (Node|Heartbus\Peer $who) => $who instanceof Node ? "node $who->id" : "peer $who->user at $who->ip";
        $server->on("connect", fn (string $ip, int $port, int $id, string $transport) => say("connect", $ip, $transport, $id));
        $server->on("subscribe", fn (Node|Heartbus\Peer $who, string $topic) => say("topic", "subscribe", $name($who), $topic));
        $server->on("unsubscribe", fn (Node|Heartbus\Peer $who, string $topic) => say("topic", "unsubscribe", $name($who), $topic));
        $server->on("close", fn (int $id, string $reason) => say("end", "close", $id, $reason));
        $server->on("offline", fn (Heartbus\Peer $peer, string $reason) => say("end", "offline", $name($peer), $peer->connectionId, $reason));';

    /** @return array<string, array{0: string, 1: string}> */
    public static function starts(): array
    {
        $starts = ["the engine's process" => ['own', '']];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            $starts["$name, two workers"] = ['workers', $folder];
            $starts["$name, without workers"] = ['whole', $folder];
        }
        return $starts;
    }

    /** @dataProvider starts */
    public function test_a_node_that_comes_subscribes_and_goes_is_told_of(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman, ['websocket' => true]);
        $node = Peer::connect($server->port);
        $node->register('n');
        [$ip, $transport, $id] = $server->next('connect');
        self::assertSame(['127.0.0.1', 'tcp'], [$ip, $transport]);
        $node->subscribe('a/+');
        self::assertSame(['subscribe', 'node n', 'a/+'], $server->next('topic'));
        $bus = $this->busOf($server);
        $bus->join('n', 'own');
        self::assertSame(['subscribe', 'node n', 'own'], $server->next('topic'));
        $node->send(Frame::UNSUBSCRIBE, json_encode(['filter' => 'a/+']))->expect(Frame::UNSUBSCRIBE);
        self::assertSame(['unsubscribe', 'node n', 'a/+'], $server->next('topic'));
        $bus->leave('n', 'own');
        self::assertSame(['unsubscribe', 'node n', 'own'], $server->next('topic'));
        $node->subscribe('left');
        self::assertSame(['subscribe', 'node n', 'left'], $server->next('topic'));
        $bus->disconnect('n');
        self::assertSame(['close', $id, 'disconnected by the server'], $server->next('end'));
        self::assertSame(['offline', 'peer  at 127.0.0.1', $id, 'disconnected by the server'], $server->next('end'));
        // That it left is told by that alone.
        $other = Peer::connect($server->port);
        $other->register('o');
        $other->subscribe('next');
        self::assertSame(['subscribe', 'node o', 'next'], $server->next('topic'));
    }

    /** @dataProvider starts */
    public function test_a_client_of_firetowers_is_a_peer_and_what_is_left_of_it_ends_before_it_does(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman, ['websocket' => true, 'firetower_conventions' => false]);
        $stream = stream_socket_client("tcp://127.0.0.1:$server->port", timeout: 10);
        stream_set_timeout($stream, 10);
        fwrite($stream, "GET /ws?user_id=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
        while (trim((string) fgets($stream)) !== '');
        [$ip, $transport, $id] = $server->next('connect');
        self::assertSame(['127.0.0.1', 'websocket'], [$ip, $transport]);
        $say = function (string $type, string $topic) use ($stream): void {
            $text = sprintf('{"type":"%s","topic":"%s","data":""}', $type, $topic);
            fwrite($stream, chr(0x81) . chr(0x80 | strlen($text)) . "\0\0\0\0" . $text);
        };
        $say('subscribe', 'x,y,x');
        $say('unSubscribe', 'x');
        fclose($stream);
        $told = array_map(fn () => $server->next('topic'), range(1, 4));
        $peer = 'peer 7 at 127.0.0.1';
        self::assertSame([['subscribe', $peer, 'x'], ['subscribe', $peer, 'y'], ['unsubscribe', $peer, 'x'], ['unsubscribe', $peer, 'y']], $told);
        [$close, $offline] = [$server->next('end'), $server->next('end')];
        self::assertSame(['close', $id], array_slice($close, 0, 2));
        self::assertSame(['offline', $peer, $id, $close[2]], $offline);
    }

    public function test_who_never_could_speak_neither_comes_nor_goes(): void
    {
        $server = $this->start('own', '', ['websocket' => true]);
        $stream = stream_socket_client("tcp://127.0.0.1:$server->port", timeout: 10);
        fwrite($stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        self::assertStringStartsWith('HTTP/1.1 426', (string) fgets($stream));
        fclose($stream);
        $node = Peer::connect($server->port);
        $node->register('n');
        self::assertSame('tcp', $server->next('connect')[1]);
        $node->close();
        self::assertSame('close', $server->next('end')[0]);
        self::assertSame([1, 2], [$server->counter('websockets_refused'), $server->counter('connections_total')]);
    }

    /** @return TestServer|ServerApp */
    private function start(string $start, string $workerman, array $config): TestServer|ServerApp
    {
        return match ($start) {
            'own' => TestServer::start($config, self::CALLBACKS),
            'workers' => ServerApp::start($workerman, ['php_workers' => 2] + $config, self::CALLBACKS),
            'whole' => ServerApp::start($workerman, ['php_workers' => 0] + $config, self::CALLBACKS),
        };
    }

    private function busOf(TestServer|ServerApp $server): \Heartbus\Bus
    {
        return $server instanceof ServerApp ? $server->bus() : \Heartbus\Bus::connect(PhpProcess::folder() . "/$server->port.sock", 10.0);
    }
}
