<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{Frame, Peer, Port, TestCase};

/** fork(): threads do not survive it, so a child starts afresh or is told clearly. Nothing hangs in either process. */
final class ForkTest extends TestCase
{
    public function test_objects_made_before_a_fork_work_in_the_child_and_in_the_parent(): void
    {
        $port = Port::free();
        $process = $this->script("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);
            \$server->on('data', fn (Node \$node, string \$payload) => \$server->sendTo(\$node->id, \"echo \$payload\"));
            \$server->on('unregister', fn () => \$server->stop());
            \$client = new HeartbeatClient('127.0.0.1', $port, ['node_id' => 'parent', 'reconnect_interval' => 0.1]);
            if (pcntl_fork() === 0) { \$server->start(); exit(5); }
            \$client->on('register', fn () => \$client->send('hello'));
            \$client->on('data', function (string \$payload) use (\$client) { say('data', \$payload); \$client->disconnect(); });
            \$client->connect();
            HeartbeatClient::run();
            pcntl_wait(\$status);
            say('child', pcntl_wexitstatus(\$status));");
        self::assertSame(['echo hello'], $process->next('data'));
        self::assertSame([5], $process->next('child'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_child_of_a_running_server_cannot_use_it_and_the_parent_goes_on(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                if ($payload !== "fork") { $server->sendTo($node->id, "parent: $payload"); return; }
                $pid = pcntl_fork();
                if ($pid === 0) {
                    foreach (["sendTo" => ["a", "from the child"], "broadcast" => ["x"], "publish" => ["t", "x"], "join" => ["a", "t"], "topics" => [], "disconnect" => ["a"], "every" => [1.0, fn () => 1], "on" => ["data", fn () => 1]] as $method => $arguments) {
                        try { say($method, $server->$method(...$arguments)); } catch (Throwable $e) { say($method, $e::class); }
                    }
                    exit(9);
                }
                pcntl_waitpid($pid, $status);
                say("child", pcntl_wifexited($status), pcntl_wexitstatus($status));
            });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'fork');
        self::assertSame([true, 9], $server->next('child'));
        foreach (['sendTo', 'broadcast', 'publish', 'join', 'topics', 'disconnect', 'every', 'on'] as $method) {
            self::assertSame(['Heartbus\Exception\WrongProcessException'], $server->next($method));
        }
        $peer->send(Frame::DATA, 'still there?');
        self::assertSame('parent: still there?', $peer->expect(Frame::DATA)->payload);
        $peer->beat();
        self::assertSame(0, $server->stop());
    }

    /** @dataProvider waysToEnd */
    public function test_a_child_of_a_server_ends_at_once_however_it_ends_and_closes_nobody_s_connection(string $end, int $code): void
    {
        $server = $this->server([], "
            \$server->on('data', function (Node \$node) use (\$server) {
                \$pid = pcntl_fork();
                if (\$pid === 0) { $end }
                \$since = microtime(true);
                pcntl_waitpid(\$pid, \$status);
                say('child', pcntl_wifexited(\$status) ? pcntl_wexitstatus(\$status) : -1, microtime(true) - \$since);
            });");
        $peer = $server->node('a');
        self::assertTakesLessThan(3.0, function () use ($server, $peer, $code): float {
            $peer->send(Frame::DATA, 'fork');
            [$status, $seconds] = $server->next('child');
            self::assertSame($code, $status);
            return $seconds;
        });
        $peer->beat();
        self::assertSame(1, $server->stats()['nodes']['online']);
    }

    public static function waysToEnd(): array
    {
        return [
            'exit' => ['exit(4);', 4],
            'exit after a long look at the stats' => ['try { $server->getStats(); } catch (Throwable) {} exit(4);', 4],
            'an uncaught exception' => ['throw new Exception("in the child");', 255],
            'a fatal error' => ['no_such_function();', 255],
        ];
    }

    public function test_a_child_that_returns_into_the_server_s_loop_is_told_and_ends(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node) use ($server) {
                $pid = pcntl_fork();
                if ($pid === 0) { return; }
                pcntl_waitpid($pid, $status);
                say("child", pcntl_wifexited($status));
            });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'fork');
        self::assertSame([true], $server->next('child'));
        $peer->beat();
    }

    public function test_a_child_may_start_a_server_and_clients_of_its_own_after_the_parent_used_some(): void
    {
        $server = $this->server();
        $port = Port::free();
        $process = $this->script("
            \$client = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => 'parent']);
            \$client->connect();
            drive(fn () => \$client->getNodeId() !== null);
            if (pcntl_fork() === 0) {
                try { say('old client', \$client->send('x')); } catch (Throwable \$e) { say('old client', \$e::class); }
                \$own = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => 'child']);
                \$own->connect();
                drive(fn () => \$own->getNodeId() !== null);
                \$mine = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);
                \$mine->on('register', fn () => \$mine->stop());
                \$mine->on('start', fn () => say('child serves'));
                \$mine->start();
                exit(6);
            }
            pcntl_wait(\$status);
            say('child', pcntl_wifexited(\$status) ? pcntl_wexitstatus(\$status) : -1);
            say('parent', \$client->isConnected(), \$client->send('still here'));");
        $process->next('child serves');
        Peer::connect($port)->register('visitor');
        self::assertSame([6], $process->next('child'));
        self::assertContains($process->next('old client')[0], [false, 'Heartbus\Exception\WrongProcessException']);
        self::assertSame([true, true], $process->next('parent'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_the_parent_s_client_is_not_disconnected_by_a_child_that_exits(): void
    {
        $server = $this->server([], 'say_events($server, "register", "unregister", "disconnected", "data");');
        $process = $this->script("
            \$client = new HeartbeatClient('127.0.0.1', {$server->port}, ['node_id' => 'parent']);
            \$client->connect();
            drive(fn () => \$client->getNodeId() !== null);
            for (\$i = 0; \$i < 5; \$i++) {
                \$pid = pcntl_fork();
                if (\$pid === 0) { unset(\$client); exit(0); }
                pcntl_waitpid(\$pid, \$status);
                say('child', pcntl_wifexited(\$status) ? pcntl_wexitstatus(\$status) : -1);
            }
            say('sent', \$client->send('after the children'));
            fgets(STDIN);");
        for ($i = 0; $i < 5; $i++) {
            self::assertSame([0], $process->next('child'));
        }
        self::assertSame([true], $process->next('sent'));
        self::assertSame('after the children', $server->next('data')[1]);
        self::assertSame([], $server->process->said('unregister'));
        self::assertSame([], $server->process->said('disconnected'));
    }

    public function test_a_grandchild_of_proc_open_inherits_no_socket(): void
    {
        $server = $this->server([], '$server->on("data", function () { $GLOBALS["child"] = proc_open(["sleep", "60"], [], $pipes); say("spawned"); });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'spawn');
        $server->next('spawned');
        // proc_open() may return before the child is another program.
        $this->until(fn () => $server->ask('return count(array_filter(scandir("/proc/" . proc_get_status($GLOBALS["child"])["pid"] . "/fd"),
            fn ($fd) => str_contains((string) @readlink("/proc/" . proc_get_status($GLOBALS["child"])["pid"] . "/fd/$fd"), "socket:")));') === 0, 'it has no socket');
        $server->ask('proc_terminate($GLOBALS["child"], SIGKILL);');
    }
}
