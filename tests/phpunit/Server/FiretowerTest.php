<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{PhpProcess, Port, ServerApp, TestCase, TestServer};

/** A PHP server as the manager of Firetower's gateways and publishers: their frames, written here from the format of old. */
final class FiretowerTest extends TestCase
{
    public function test_old_gateways_and_publishers_find_their_manager_where_it_is_told_to_be(): void
    {
        $port = Port::free();
        $server = TestServer::start(['firetower' => "127.0.0.1:$port"]);
        [$gateway, $other, $publisher] = [$this->connect($port), $this->connect($port), $this->connect($port)];
        self::assertSame(['onSubscribe', '1', 'system', '/chat/world', '1'], $this->ask($gateway, 'subscribe', '1', 'gw-1', '/chat/world', ''));
        self::assertSame(['onSubscribe', '2', 'system', '/chat/world', '2'], $this->ask($other, 'subscribe', '2', 'gw-2', '/chat/world', ''));
        $long = str_repeat("longer than the 4096 bytes of old\n", 1000);
        foreach (['{"from":"u1","data":"hi","type":"publish"}', '', $long, "\0\xff"] as $content) {
            $this->send($publisher, 'publish', '1234567890', 'user', '/chat/world', $content);
            $expected = ['publish', '1234567890', 'user', '/chat/world', $content];
            self::assertSame([$expected, $expected], [$this->receive($gateway), $this->receive($other)]);
        }
        // A gateway that comes back takes the place of what is left of it.
        $back = $this->connect($port);
        self::assertSame('onSubscribe', $this->ask($back, 'subscribe', '3', 'gw-2', '/chat/world', '')[0]);
        self::assertNull($this->receive($other));
        $this->until(fn () => $server->counter('connections_closed') === 1, 'the old connection is gone');
        $this->send($publisher, 'publish', '2', 'platform', '/chat/world', 'again');
        self::assertSame(['again', 'again'], [$this->receive($gateway)[4], $this->receive($back)[4]]);
        self::assertSame(['onUnsubscribe', '4', 'system', '/chat/world', '1'], $this->ask($back, 'unSubscribe', '4', 'gw-2', '/chat/world', ''));
        self::assertSame(0, $server->stop());
    }

    public function test_what_cannot_be_is_answered_and_counted(): void
    {
        $port = Port::free();
        $server = TestServer::start(['firetower' => "127.0.0.1:$port"]);
        $peer = $this->connect($port);
        self::assertSame(['error', '', 'system', '*', 'a field has a space or a line end in it'],
            $this->ask($peer, 'publish', '1', 'user', 'victim DATA', 'x'));
        self::assertSame(['error', '1', 'system', '$nodes', 'Topics that begin with $ belong to the server'],
            $this->ask($peer, 'publish', '1', 'user', '$nodes', 'x'));
        foreach ([-1, 0x7fffffff] as $length) {
            $wrong = $this->connect($port);
            fwrite($wrong, 'FireHeader' . pack('N', $length & 0xffffffff));
            self::assertStringContainsString($length < 0 ? 'negative length' : 'too long', $this->receive($wrong)[4]);
            self::assertNull($this->receive($wrong));
        }
        self::assertSame([4, 2], [$server->counter('firetower_refused'), $server->counter('firetower_violations')]);
        self::assertSame(['onSubscribe', '1', 'system', 't', '1'], $this->ask($peer, 'subscribe', '1', '', 't', ''), 'nobody else noticed');
        self::assertSame(0, $server->stop());
    }

    public function test_the_main_port_lets_them_in_too_where_it_is_told_to(): void
    {
        $server = TestServer::start(['firetower' => true]);
        $gateway = $this->connect($server->port);
        self::assertSame('onSubscribe', $this->ask($gateway, 'subscribe', '1', '', 't', '')[0]);
        $server->node('plain')->beat();
        self::assertSame(0, $server->stop());
    }

    public function test_a_server_is_a_gateway_of_an_old_manager_and_comes_back_to_it(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $port = Port::free();
        $server = TestServer::start(['firetower' => "127.0.0.1:$port", 'firetower_manager' => stream_socket_get_name($listener, false),
            'firetower_manager_grpc' => false]);
        $gateway = $this->connect($port);
        $this->ask($gateway, 'subscribe', '1', '', 'room', '');
        foreach ([1, 2] as $time) {
            $manager = stream_socket_accept($listener, 20);
            stream_set_timeout($manager, 20);
            [$type, , $name, $topic] = $this->receive($manager);
            self::assertSame(['subscribe', 'room'], [$type, $topic]);
            self::assertStringStartsWith('heartbus-', $name);
            $this->send($manager, 'publish', '1234567890', 'user', 'room', "from the manager $time");
            self::assertSame(['publish', '1234567890', 'user', 'room', "from the manager $time"], $this->receive($gateway));
            $this->send($gateway, 'publish', '55', 'user', 'room', "from a gateway $time");
            [, $id, $source, , $content] = $frame = $this->receive($manager);
            self::assertSame(["user", "from a gateway $time"], [$source, $content]);
            self::assertSame(24, strlen($id));
            // It sends to all gateways of the topic, the one that it has it from as well: here that is passed over.
            $this->send($manager, ...$frame);
            self::assertSame("from a gateway $time", $this->receive($gateway)[4]);
            $this->until(fn () => $server->counter('firetower_loops') === $time, 'it came around');
            fclose($manager);
        }
        self::assertSame(0, $server->stop());
    }

    /** @dataProvider Heartbus\Tests\WorkermanApp::installations */
    public function test_the_engine_under_workerman_is_their_manager_too(string $workerman): void
    {
        $port = Port::free();
        $app = ServerApp::start($workerman, ['firetower' => "127.0.0.1:$port"]);
        self::assertSame('onSubscribe', $this->ask($this->connect($port), 'subscribe', '1', '', 't', '')[0]);
        self::assertSame(1, $app->counter('subscribes'));
    }

    public function test_the_example_says_what_a_gateway_is_told(): void
    {
        [$port, $main] = [Port::free(), Port::free()];
        $example = PhpProcess::file(__DIR__ . '/../../../php-examples/server.php', ['--host', '127.0.0.1', '--port', $main, '--firetower', "127.0.0.1:$port"]);
        $this->until(fn () => str_contains($example->output(), "topicServiceAddr = \"127.0.0.1:$port\""), 'it says so');
        self::assertSame('onSubscribe', $this->ask($this->connect($port), 'subscribe', '1', '', 't', '')[0]);
        $example->signal(SIGINT);
        self::assertSame(0, $example->exitCode());
    }

    /** @dataProvider wrong */
    public function test_a_wrong_value_is_refused_by_its_key(string $key, string $value): void
    {
        $process = PhpProcess::run("try { (new HeartbeatServer('127.0.0.1', 1, ['$key' => $value]))->start(); } catch (Throwable \$e) { echo \$e->getMessage(); }");
        self::assertSame(0, $process->exitCode(), $process->transcript());
        self::assertStringContainsString($key, $process->output());
    }

    public static function wrong(): array
    {
        return ['no port' => ['firetower', "'localhost'"], 'a number' => ['firetower', '6666'], 'none' => ['firetower_max_subscriptions', '0'],
            'a manager without a port' => ['firetower_manager', "'localhost'"], 'its gRPC' => ['firetower_manager_grpc', "'6667'"]];
    }

    private function connect(int $port): mixed
    {
        $socket = stream_socket_client("tcp://127.0.0.1:$port", timeout: 10);
        stream_set_timeout($socket, 20);
        return $socket;
    }

    private function send(mixed $socket, string $type, string $id, string $source, string $topic, string $content): void
    {
        $body = "$type $id $source $topic\n$content";
        fwrite($socket, 'FireHeader' . pack('N', strlen($body)) . $body);
    }

    private function ask(mixed $socket, string ...$fields): array
    {
        $this->send($socket, ...$fields);
        return $this->receive($socket);
    }

    /** The next frame but for heartbeats: type, id, source, topic, content. Null at the end. */
    private function receive(mixed $socket): ?array
    {
        do {
            $header = (string) stream_get_contents($socket, 14);
            if ($header === '' && feof($socket)) {
                return null;
            }
            self::assertStringStartsWith('FireHeader', $header);
            [$line, $content] = explode("\n", (string) stream_get_contents($socket, unpack('N', $header, 10)[1]), 2);
            $frame = [...explode(' ', $line), $content];
        } while ($frame[0] === 'heartbeat');
        return $frame;
    }
}
