<?php

namespace Heartbus\Tests\Views;

use Heartbus\Tests\{EventLoop, Peer, Port, TestCase};

/** A HeartbeatMonitor over the manager of a server: the engine finds out who is silent, and the monitor is told. */
final class MonitorTest extends TestCase
{
    private const MONITOR = 'use PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor; ';

    public function test_its_callbacks_are_called_in_order_with_the_node_of_the_server(): void
    {
        $server = $this->server(['heartbeat_timeout' => 4, 'worker_count' => 4], '
            $manager = $server->getNodeManager();
            $server->on("register", function (Node $node) { $GLOBALS["nodes"][$node->id] = $node; });
            $monitor = new PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor($manager, 0.05);
            $monitor->onTimeout(fn (Node $node) => say("first", $node->id, $node === $GLOBALS["nodes"][$node->id], $node->status, $manager->hasNode($node->id)));
            $monitor->onTimeout(fn () => throw new Exception("swallowed"));
            $monitor->onTimeout(fn () => throw new Error("is told"));
            $monitor->onTimeout(fn (Node $node) => say("last", $node->id));
            $server->on("timeout", fn (Node $node) => say("server", $node->id));
            $monitor->start();
            $monitor->start();
            $GLOBALS["monitor"] = $monitor;
            $server->every(0.2, fn () => $manager->updateHeartbeat("alive"));');
        [$silent, $alive] = [$server->node('silent'), $server->node('alive')];
        self::assertSame(['silent', true, 'offline', false], $server->next('first'));
        self::assertSame(['silent'], $server->next('server'));
        $topics = array_column(array_filter($server->process->history(), fn (array $line) => in_array($line[0], ['first', 'last', 'server'], true)), 0);
        self::assertSame(['first', 'last', 'server'], $topics);
        self::assertStringContainsString('Error in a timeout callback: is told', $server->process->errors());
        self::assertStringNotContainsString('swallowed', $server->process->errors());
        // The timer of a monitor goes on beside it: it counts its checks as ever.
        self::assertSame([true, 4], $server->ask('return [$GLOBALS["monitor"]->isRunning(), $GLOBALS["monitor"]->getStats()["timeout_callbacks"]];'));
        self::assertSame(['alive'], $server->ask('return array_keys($server->getNodeManager()->getAllNodes());'));
    }

    public function test_a_stopped_one_is_told_nothing_and_one_that_starts_again_is(): void
    {
        $server = $this->server([], self::MONITOR . '
            $server->getNodeManager()->setHeartbeatTimeout(0.3);
            $GLOBALS["monitor"] = new HeartbeatMonitor($server->getNodeManager(), 60.0);
            $GLOBALS["monitor"]->onTimeout(fn (Node $node) => say("monitor", $node->id));
            $server->on("timeout", fn (Node $node) => say("server", $node->id));
            $GLOBALS["monitor"]->start();
            $GLOBALS["monitor"]->stop();');
        $peers[] = $server->node('a');
        self::assertSame(['a'], $server->next('server'));
        self::assertSame([], $server->process->said('monitor'));
        $server->ask('$GLOBALS["monitor"]->start();');
        $peers[] = $server->node('b');
        self::assertSame(['b'], $server->next('monitor'));
        // Only a timeout is one.
        $server->ask('$server->getNodeManager()->setHeartbeatTimeout(60);');
        $server->node('c')->close();
        $this->until(fn () => $server->counter('nodes_disconnected') === 1, 'the node is gone');
        $server->ask('$server->getNodeManager()->setHeartbeatTimeout(0.3);');
        $server->ask('$GLOBALS["monitor"]->clearTimeoutCallbacks();');
        $peers[] = $server->node('d');
        do {
            [$id] = $server->next('server');
        } while ($id !== 'd');
        self::assertSame([['b']], $server->process->said('monitor'));
    }

    public function test_it_may_be_started_and_stopped_by_a_callback_and_several_may_watch(): void
    {
        $server = $this->server([], self::MONITOR . '
            $server->getNodeManager()->setHeartbeatTimeout(0.3);
            $one = new HeartbeatMonitor($server->getNodeManager());
            $other = new HeartbeatMonitor($server->getNodeManager());
            $one->onTimeout(function (Node $node) use ($one, $other) { say("one", $node->id); $one->stop(); $other->start(); });
            $other->onTimeout(fn (Node $node) => say("other", $node->id));
            $one->start();');
        $peers[] = $server->node('a');
        self::assertSame(['a'], $server->next('one'));
        $peers[] = $server->node('b');
        self::assertSame(['b'], $server->next('other'));
        self::assertSame([['a']], $server->process->said('one'));
    }

    public function test_objects_are_freed_with_the_server(): void
    {
        $process = $this->script('
            for ($i = 0; $i < 300; $i++) {
                $server = new HeartbeatServer("127.0.0.1", 9501);
                $monitor = new PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor($server->getNodeManager());
                $monitor->onTimeout(fn () => $server);
                $monitor->start();
                if ($i === 100) { gc_collect_cycles(); $before = memory_get_usage(); }
            }
            unset($server, $monitor);
            gc_collect_cycles();
            say("grown", memory_get_usage() - $before);');
        self::assertLessThan(20_000, $process->next('grown')[0]);
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_its_callbacks_may_sleep_on_the_loops_of_others(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2]);" . '
            $server->getNodeManager()->setHeartbeatTimeout(0.3);
            $monitor = new PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor($server->getNodeManager(), 0.05);
            $monitor->onTimeout(function (Node $node) { say("begin", $node->id); nap(0.1); say("end", $node->id); });
            $server->on("start", fn () => say("ready"));
            $monitor->start();
            $server->start();
            $server->every(0.02, function () use ($monitor) { if ($monitor->getStats()["check_count"] > 2) { say("checked"); } });
        });');
        $process->next('ready');
        foreach (['a', 'b'] as $id) {
            $peers[] = $peer = Peer::connect($port);
            $peer->register($id);
        }
        $process->next('checked');
        $ends = [$process->next('end')[0], $process->next('end')[0]];
        self::assertEqualsCanonicalizing(['a', 'b'], $ends);
    }
}
