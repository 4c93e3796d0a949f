<?php

namespace Heartbus\Tests\Classes;

use Heartbus\Tests\TestCase;
use PfinalClub\AsyncioHeartbeat\Node\{HeartbeatMonitor, Node, NodeManager};
use TypeError;

final class NodeManagerTest extends TestCase
{
    private function node(string $id, int $connection = 1): Node
    {
        return new Node($id, '10.0.0.1', 5000, $connection);
    }

    public function test_nodes_by_id_and_by_connection(): void
    {
        $manager = new NodeManager();
        $node = $this->node('a', 7);
        $manager->register($node);
        self::assertSame([$node, $node, true], [$manager->getNode('a'), $manager->getNodeByConnection(7), $manager->hasNode('a')]);
        self::assertSame([null, null, false], [$manager->getNode('b'), $manager->getNodeByConnection(8), $manager->hasNode('b')]);
        self::assertSame([$node, null, null, null], [$manager->unregisterByConnection(7), $manager->unregisterByConnection(7), $manager->unregister('a'), $manager->getNodeByConnection(7)]);
        self::assertSame([0, 1, 1], [$manager->getNodeCount(), $manager->getStats()['total_registered'], $manager->getStats()['total_unregistered']]);
    }

    public function test_integer_like_and_falsy_ids_are_ids(): void
    {
        $manager = new NodeManager();
        foreach (['12', '0', ''] as $number => $id) {
            $manager->register($this->node($id, $number));
            self::assertSame($id, $manager->getNodeByConnection($number)->id);
        }
        self::assertSame([12, 0, ''], array_keys($manager->getAllNodes()));
        self::assertSame('0', $manager->unregisterByConnection(1)->id);
    }

    public function test_a_takeover_is_not_undone_by_the_old_connection(): void
    {
        $manager = new NodeManager();
        $manager->register($this->node('a', 1));
        $manager->register($new = $this->node('a', 2));
        self::assertNull($manager->unregisterByConnection(1));
        self::assertSame([$new, $new], [$manager->getNode('a'), $manager->getNodeByConnection(2)]);
    }

    public function test_another_id_on_one_connection_keeps_the_connections_way(): void
    {
        $manager = new NodeManager();
        $manager->register($this->node('a', 1));
        $manager->register($second = $this->node('b', 1));
        $manager->unregister('a');
        self::assertSame($second, $manager->getNodeByConnection(1));
    }

    public function test_updates_reach_the_node(): void
    {
        $manager = new NodeManager();
        $manager->register($node = $this->node('a'));
        self::assertSame([true, true, false, false], [$manager->updateHeartbeat('a'), $manager->updateMessage('a'), $manager->updateHeartbeat('b'), $manager->updateMessage('b')]);
        self::assertSame([1, 1], [$node->heartbeatCount, $node->totalMessages]);
    }

    public function test_a_timeout_is_told_once_and_again_after_a_heartbeat(): void
    {
        $manager = new NodeManager(500.0);
        $manager->register($silent = $this->node('12', 1));
        $manager->register($this->node('b', 2));
        $silent->lastHeartbeatTime -= 600;
        self::assertSame([[12], []], [$manager->checkTimeout(), $manager->checkTimeout()]);
        self::assertSame(['offline', 2, 1], [$silent->status, $manager->getNodeCount(), $manager->getStats()['total_timeout']]);
        $manager->updateHeartbeat('12');
        $silent->lastHeartbeatTime -= 600;
        self::assertSame([[12], 2], [$manager->checkTimeout(), $manager->getStats()['total_timeout']]);
        self::assertSame([1, 0], [$manager->cleanupOffline(), $manager->cleanupOffline()]);
        self::assertFalse($manager->hasNode('12'));
    }

    public function test_the_timeout_can_be_changed(): void
    {
        $manager = new NodeManager(1);
        self::assertSame(1.0, $manager->getHeartbeatTimeout());
        $manager->setHeartbeatTimeout(60);
        $manager->register($node = $this->node('a'));
        $node->lastHeartbeatTime -= 30;
        self::assertSame([60.0, []], [$manager->getHeartbeatTimeout(), $manager->checkTimeout()]);
    }

    public function test_online_and_offline(): void
    {
        $manager = new NodeManager();
        $manager->register($on = $this->node('on', 1));
        $manager->register($off = $this->node('off', 2));
        $off->markOffline();
        self::assertSame([['on' => $on], ['off' => $off], 1, 1], [$manager->getOnlineNodes(), $manager->getOfflineNodes(), $manager->getOnlineNodeCount(), $manager->getOfflineNodeCount()]);
        $on->updateMessage();
        $on->updateHeartbeat();
        self::assertSame(['total' => 2, 'online' => 1, 'offline' => 1, 'total_heartbeats' => 1, 'total_messages' => 1, 'total_registered' => 2,
            'total_unregistered' => 0, 'total_timeout' => 0], $manager->getStatsSummary());
        $stats = $manager->getStats();
        self::assertSame(['total', 'online', 'offline', 'total_registered', 'total_unregistered', 'total_timeout', 'nodes'], array_keys($stats));
        self::assertSame(['on', 'off'], array_column($stats['nodes'], 'id'));
    }

    public function test_subclasses_of_node_and_manager_are_asked(): void
    {
        $manager = new class extends NodeManager {
            public array $log = [];

            public function unregister(string $nodeId): ?Node
            {
                $this->log[] = $nodeId;
                return parent::unregister($nodeId);
            }
        };
        $manager->register(new class ('12', 'ip', 1, 1) extends Node {
            public function isOnline(): bool
            {
                return false;
            }
        });
        $manager->register($this->node('b', 2));
        self::assertSame([1, 1], [$manager->getOnlineNodeCount(), $manager->cleanupOffline()]);
        $manager->unregisterByConnection(2);
        self::assertSame(['12', 'b'], $manager->log);
        $this->expectException(TypeError::class);
        $manager->register(new \stdClass());
    }

    public function test_the_destructor_of_a_replaced_node_may_use_the_manager(): void
    {
        $manager = new NodeManager();
        $node = new class ('a', 'ip', 1, 1) extends Node {
            public static NodeManager $manager;

            public function __destruct()
            {
                self::$manager->unregister('a');
                self::$manager->register(new Node('b', 'ip', 1, 2));
            }
        };
        $node::$manager = $manager;
        $manager->register($node);
        unset($node);
        $manager->register($this->node('a'));
        self::assertSame(['b'], array_keys($manager->getAllNodes()));
    }

    public function test_clones_and_serializes(): void
    {
        $manager = new NodeManager(3.5);
        $manager->register($this->node('a', 1));
        $copy = clone $manager;
        $copy->unregister('a');
        self::assertTrue($manager->hasNode('a'));
        $restored = unserialize(serialize($manager));
        self::assertEquals($manager, $restored);
        self::assertSame([3.5, 'a'], [$restored->getHeartbeatTimeout(), $restored->getNodeByConnection(1)->id]);
    }

    public function test_a_monitor_without_a_loop_says_what_it_is_told(): void
    {
        $monitor = new HeartbeatMonitor(new NodeManager(), 2);
        self::assertSame(['running' => false, 'check_interval' => 2.0, 'check_count' => 0, 'timeout_callbacks' => 0], $monitor->getStats());
        $monitor->start();
        $monitor->start();
        self::assertTrue($monitor->isRunning());
        $monitor->onTimeout(fn () => null);
        $monitor->onTimeout(fn () => null);
        self::assertSame(2, $monitor->getStats()['timeout_callbacks']);
        $monitor->clearTimeoutCallbacks();
        $monitor->setCheckInterval(0.5);
        $monitor->stop();
        $monitor->stop();
        self::assertSame([false, 0.5, 0], [$monitor->isRunning(), $monitor->getCheckInterval(), $monitor->getStats()['timeout_callbacks']]);
        self::assertSame(10.0, (new HeartbeatMonitor(new NodeManager()))->getCheckInterval());
        $this->expectException(TypeError::class);
        $monitor->onTimeout('no such function');
    }
}
