<?php

namespace Heartbus\Tests\Server;

use Heartbus\Tests\{PhpProcess, Port, ServerApp, TestCase, TestServer};

/** WebSockets of a PHP server, from its configuration to the clients that people use: Python's, Node's, a browser. */
final class WebSocketTest extends TestCase
{
    private const CLIENTS = __DIR__ . '/../../websocket';
    private const ECHO = '$server->on("data", fn (Node $node, string $payload) => $server->sendTo($node->id, $payload));';

    public function test_a_server_lets_websockets_in_where_it_is_told_to(): void
    {
        $port = Port::free();
        $server = TestServer::start(['websocket' => "127.0.0.1:$port", 'websocket_path' => '/ws', 'websocket_origins' => ['http://a.example']]);
        self::assertSame(101, $this->status($port, '/ws?a=1', 'heartbus.v2', 'http://a.example'));
        self::assertSame(404, $this->status($port, '/', 'heartbus.v2'));
        self::assertSame(403, $this->status($port, '/ws', 'heartbus.v2', 'http://b.example'));
        self::assertSame(101, $this->status($port, '/ws', 'none'), 'that is a client of Firetower');
        self::assertSame([2, 2], [$server->counter('websockets'), $server->counter('websockets_refused')]);
        $server->node('plain')->beat();
        self::assertSame(0, $server->stop());
    }

    public function test_the_main_port_lets_websockets_in_too_where_it_is_told_to(): void
    {
        $server = TestServer::start(['websocket' => true, 'outbox_bytes' => 4 << 20], self::ECHO);
        self::assertSame(101, $this->status($server->port, '/', 'heartbus.json'));
        self::assertSame(426, $this->status($server->port, '/', null));
        $server->node('plain')->beat();
        self::assertSame(0, $server->stop());
    }

    /** @dataProvider Heartbus\Tests\WorkermanApp::installations */
    public function test_the_engine_under_workerman_lets_them_in_too(string $workerman): void
    {
        $port = Port::free();
        $app = ServerApp::start($workerman, ['websocket' => "127.0.0.1:$port"]);
        self::assertSame(101, $this->status($port, '/', 'heartbus.v2'));
        self::assertSame(1, $app->counter('websockets'));
    }

    public function test_a_host_without_php_code_lets_them_in_too(): void
    {
        [$port, $main] = [Port::free(), Port::free()];
        PhpProcess::run("Heartbus\Host::run(['host' => '127.0.0.1', 'port' => $main, 'bus' => false, 'websocket' => '127.0.0.1:$port']);");
        $this->until(fn () => @fsockopen('127.0.0.1', $port) !== false, 'it listens');
        self::assertSame(101, $this->status($port, '/', 'heartbus.json'));
    }

    public function test_the_example_says_how_a_browser_gets_in(): void
    {
        [$port, $main] = [Port::free(), Port::free()];
        $example = PhpProcess::file(__DIR__ . '/../../../php-examples/server.php', ['--host', '127.0.0.1', '--port', $main, '--websocket', "127.0.0.1:$port"]);
        $this->until(fn () => str_contains($example->output(), "new WebSocket('ws://127.0.0.1:$port', 'heartbus.json')"), 'it says so');
        self::assertSame(101, $this->status($port, '/', 'heartbus.json'));
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
        return ['no port' => ['websocket', "'localhost'"], 'a number' => ['websocket', '8080'], 'an empty host' => ['websocket', "':80'"],
            'a text' => ['websocket_origins', "'http://a'"], 'numbers' => ['websocket_origins', '[1]'], 'a list' => ['websocket_path', '[]']];
    }

    public function test_the_library_websockets_of_python_is_a_node(): void
    {
        if ($this->outcome(['/usr/bin/python3', '-c', 'import websockets']) !== '0') {
            $this->skip('websockets is not installed for Python (Debian: python3-websockets)');
        }
        self::assertSame('0OK', $this->outcome(['/usr/bin/python3', self::CLIENTS . '/client.py', $this->serve()]));
    }

    public function test_the_library_ws_of_node_is_a_node(): void
    {
        $folder = PhpProcess::folder() . '/ws';
        @mkdir($folder);
        $install = ['npm', 'install', '--silent', '--no-package-lock', '--no-audit', '--no-fund', '--ignore-scripts', '--prefix', $folder, 'ws@8'];
        if ($this->outcome(['node', '--version'])[0] !== '0' || $this->outcome($install)[0] !== '0') {
            $this->skip('no node with npm here (Debian: nodejs, npm), or npm cannot have ws');
        }
        self::assertSame('0OK', $this->outcome(['node', self::CLIENTS . '/client.mjs', "$folder/node_modules/ws", $this->serve()]));
    }

    public function test_a_page_in_a_browser_is_a_node(): void
    {
        if ($this->outcome(['chromium', '--version'])[0] !== '0') {
            $this->skip('no browser here (Debian: chromium)');
        }
        [$web, $port, $found] = [Port::free(), Port::free(), tempnam(PhpProcess::folder(), 'found')];
        unlink($found);
        $server = TestServer::start(['websocket' => "127.0.0.1:$port", 'websocket_path' => '/ws', 'websocket_origins' => ["http://127.0.0.1:$web"]],
            self::ECHO);
        $pages = $this->beside([PHP_BINARY, '-S', "127.0.0.1:$web", self::CLIENTS . '/router.php'], ['FOUND' => $found]);
        $this->until(fn () => @fsockopen('127.0.0.1', $web) !== false, 'the page is served');
        $browser = $this->beside(['chromium', '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
            '--disable-background-networking', '--user-data-dir=' . PhpProcess::folder() . "/browser-$web",
            "http://127.0.0.1:$web/?server=" . rawurlencode("ws://127.0.0.1:$port")]);
        $this->until(fn () => is_file($found), 'the page has done its work', 60);
        self::assertEquals(['registered' => 6, 'bytes' => true, 'protocol' => 'heartbus.json', 'tab' => 'tab', 'text' => 'é 早 😀', 'replaced' => 4409,
            'elsewhere' => 1006, 'closed' => 1000], json_decode(file_get_contents($found), true));
        self::assertSame(3, $server->counter('websockets'));
        foreach ([$browser, $pages] as [$process, $pid]) {
            posix_kill(-$pid, SIGKILL);
            proc_close($process);
        }
    }

    /** A server that sends back what it gets, and takes compressed messages: its URL. */
    private function serve(): string
    {
        $port = Port::free();
        TestServer::start(['websocket' => "127.0.0.1:$port", 'websocket_compression' => true, 'outbox_bytes' => 4 << 20], self::ECHO);
        return "ws://127.0.0.1:$port/";
    }

    /** What a command ends with, and what it says. */
    private function outcome(array $command): string
    {
        $process = @proc_open(['timeout', '60', ...$command], [['file', '/dev/null', 'r'], ['pipe', 'w'], ['redirect', 1]], $pipes);
        $output = trim(stream_get_contents($pipes[1]));
        return proc_close($process) . $output;
    }

    /** @return array{resource, int} the process, and the number of its group */
    private function beside(array $command, array $environment = []): array
    {
        $none = ['file', '/dev/null', 'a'];
        $process = proc_open(['setsid', 'setpriv', '--pdeathsig', 'KILL', ...$command], [['file', '/dev/null', 'r'], $none, $none], $pipes, null,
            $environment + getenv());
        return [$process, proc_get_status($process)['pid']];
    }

    private function status(int $port, string $path, ?string $subprotocol, string $origin = ''): int
    {
        $upgrade = $subprotocol === null ? '' : "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            . "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: $subprotocol\r\n" . ($origin === '' ? '' : "Origin: $origin\r\n");
        $stream = stream_socket_client("tcp://127.0.0.1:$port");
        stream_set_timeout($stream, 10);
        fwrite($stream, "GET $path HTTP/1.1\r\nHost: h\r\n$upgrade\r\n");
        return (int) explode(' ', fgets($stream))[1];
    }

    private function skip(string $why): never
    {
        if (getenv('CI')) {
            self::fail("cannot be skipped where CI is set: $why");
        }
        self::markTestSkipped($why);
    }
}
