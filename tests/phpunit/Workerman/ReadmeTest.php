<?php

namespace Heartbus\Tests\Workerman;

use Heartbus\Tests\{FakeServer, Frame, Peer, TestCase, Wait, WorkermanApp};

/** The README of the PHP library, word by word: its server and its client, with only the extension and Workerman. */
final class ReadmeTest extends TestCase
{
    private const PORT = 9501;

    private const SERVER = <<<'PHP'
        <?php
        require_once 'vendor/autoload.php';

        use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

        $server = new HeartbeatServer('0.0.0.0', 9501, [
            'worker_count' => 8,              // 8 进程（充分利用多核）
            'heartbeat_timeout' => 30,        // 30秒心跳超时
            'heartbeat_check_interval' => 10, // 10秒检查一次
        ]);

        $server->start();
        PHP;

    private const CLIENT = <<<'PHP'
        <?php
        require_once 'vendor/autoload.php';

        use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
        use Workerman\Worker;

        $client = new HeartbeatClient('127.0.0.1', 9501, [
            'heartbeat_interval' => 10,
            'auto_reconnect' => true,
        ]);

        // 注册数据接收回调
        $client->on('data', function($data) {
            echo "收到数据: $data\n";
        });

        // 连接服务器
        $client->connect();

        Worker::runAll();
        PHP;

    protected function setUp(): void
    {
        // The snippets are not ours to change, so their port must be free. The worker of the test before may still be dying.
        $isTaken = fn (): bool => (bool) @stream_socket_client('tcp://127.0.0.1:' . self::PORT);
        for ($tries = 0; $tries < 20 && $isTaken(); $tries++) {
            Wait::pass(0.05);
        }
        if ($isTaken()) {
            self::markTestSkipped('port 9501, which the snippets use, is taken on this machine');
        }
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_server_snippet_starts_serves_shows_its_status_and_stops(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $app->write('server.php', self::SERVER);
        $server = $app->php('server.php', 'start');
        $peers = [];
        foreach (['a', 'b', 'c'] as $id) {
            $peers[$id] = $this->connect();
            $peers[$id]->register($id);
            $peers[$id]->beat();
        }
        $this->until(fn () => str_contains($app->command('server.php', 'status'), 'HeartbeatServer'), 'the status shows it', 30);
        self::assertStringContainsString('stop success', $app->command('server.php', 'stop'));
        foreach ($peers as $peer) {
            $peer->expectError(503, 'Server is shutting down');
            $peer->expectClosed();
        }
        self::assertSame(0, $server->exitCode());
        self::assertSame('', $server->errors());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_the_client_snippet_connects_beats_and_receives(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $app->write('client.php', self::CLIENT);
        $server = FakeServer::listen(self::PORT);
        $client = $app->php('client.php', 'start');
        [$peer, $request] = $server->register(3);
        self::assertMatchesRegularExpression('/^client_[0-9a-f]{13}_[0-9a-f]{8}$/', $request['node_id']);
        $peer->send(Frame::DATA, 'hello', 3);
        $this->until(fn () => str_contains($client->output(), "收到数据: hello\n"), 'the callback prints the data');
        $peer->close();
        [$peer, $again] = $server->register(4, 20);
        self::assertSame($request['node_id'], $again['node_id'], 'it reconnects, as itself');
        $client->signal(SIGINT);
        $peer->expect(Frame::UNREGISTER);
        self::assertSame(0, $client->exitCode());
        self::assertSame('', $client->errors());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_both_snippets_meet(string $workerman): void
    {
        [$serverApp, $clientApp] = [WorkermanApp::make($workerman), WorkermanApp::make($workerman)];
        $serverApp->write('server.php', self::SERVER);
        $clientApp->write('client.php', self::CLIENT);
        $serverApp->php('server.php', 'start');
        $this->connect();
        $client = $clientApp->php('client.php', 'start');
        $this->until(fn () => count($clientApp->workers()) === 1, 'the client has its one worker');
        $this->until(fn () => $this->established() >= 1, 'client and server are connected');
        $client->signal(SIGINT);
        self::assertSame(0, $client->exitCode());
    }

    private function connect(): Peer
    {
        return Peer::served(self::PORT);
    }

    /** Connections from anywhere to the snippets' port that are established and not this test's own. */
    private function established(): int
    {
        $port = sprintf('%04X', self::PORT);
        preg_match_all("/^ *\d+: \S+ \S+:$port 01 \S+ \S+ \S+ +\d+ +\d+ (\d+)/m", file_get_contents('/proc/net/tcp'), $found);
        $own = array_map(fn (string $fd) => (string) @readlink("/proc/self/fd/$fd"), scandir('/proc/self/fd'));
        return count(array_filter($found[1], fn (string $inode) => !in_array("socket:[$inode]", $own, true)));
    }
}
