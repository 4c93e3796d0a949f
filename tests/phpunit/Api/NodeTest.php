<?php

namespace Heartbus\Tests\Api;

use Error;
use Heartbus\Tests\TestCase;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use TypeError;

final class NodeTest extends TestCase
{
    private function node(): Node
    {
        return new Node('n1', '10.0.0.1', 5000, 7);
    }

    public function test_a_new_node_is_online_and_has_done_nothing(): void
    {
        $before = microtime(true);
        $node = $this->node();
        $after = microtime(true);
        self::assertSame(['n1', '10.0.0.1', 5000, 7], [$node->id, $node->ip, $node->port, $node->connectionId]);
        self::assertSame(['online', 0, 0, []], [$node->status, $node->heartbeatCount, $node->totalMessages, $node->metadata]);
        foreach ([$node->createdAt, $node->lastHeartbeatTime, $node->lastMessageTime] as $time) {
            $this->assertBetween($before, $time, $after);
        }
        self::assertTrue($node->isOnline());
    }

    public function test_identity_is_readonly(): void
    {
        $node = $this->node();
        foreach (['id' => 'x', 'ip' => 'x', 'port' => 1, 'connectionId' => 1] as $property => $value) {
            try {
                $node->$property = $value;
                self::fail("$property was changed");
            } catch (Error $error) {
                self::assertSame('Cannot modify readonly property ' . Node::class . "::\$$property", $error->getMessage());
            }
        }
    }

    public function test_state_is_mutable_and_typed(): void
    {
        $node = $this->node();
        $node->heartbeatCount = 5;
        $node->metadata = ['a' => 1];
        $node->metadata['b'] = 2;
        $node->status = 'offline';
        $node->lastHeartbeatTime = 5;
        self::assertSame([5, ['a' => 1, 'b' => 2], 'offline', 5.0], [$node->heartbeatCount, $node->metadata, $node->status, $node->lastHeartbeatTime]);
        $this->expectException(TypeError::class);
        $node->metadata = 'no array';
    }

    public function test_a_heartbeat_counts_refreshes_and_brings_back_online(): void
    {
        $node = $this->node();
        $node->lastHeartbeatTime = 1.0;
        $node->markOffline();
        self::assertFalse($node->isOnline());
        $before = microtime(true);
        $node->updateHeartbeat();
        $after = microtime(true);
        self::assertSame([1, 'online'], [$node->heartbeatCount, $node->status]);
        $this->assertBetween($before, $node->lastHeartbeatTime, $after);
    }

    public function test_a_message_counts_and_is_no_heartbeat(): void
    {
        $node = $this->node();
        $node->lastHeartbeatTime = 1.0;
        $node->lastMessageTime = 1.0;
        $before = microtime(true);
        $node->updateMessage();
        $after = microtime(true);
        self::assertSame([1, 0, 1.0], [$node->totalMessages, $node->heartbeatCount, $node->lastHeartbeatTime]);
        $this->assertBetween($before, $node->lastMessageTime, $after);
    }

    public function test_times_out_only_after_more_than_the_timeout(): void
    {
        $node = $this->node();
        self::assertFalse($node->isTimeout(1000.0));
        $node->lastHeartbeatTime = microtime(true) - 100;
        self::assertTrue($node->isTimeout(95.0));
        self::assertFalse($node->isTimeout(150.0));
        $before = microtime(true);
        $silence = $node->getSecondsSinceLastHeartbeat();
        $this->assertBetween($before - $node->lastHeartbeatTime, $silence, microtime(true) - $node->lastHeartbeatTime);
        $node->lastHeartbeatTime = microtime(true) + 100;
        self::assertFalse($node->isTimeout(0.0));
    }

    public function test_online_and_offline(): void
    {
        $node = $this->node();
        $node->markOffline();
        self::assertSame('offline', $node->status);
        $node->markOnline();
        self::assertSame('online', $node->status);
        $node->status = 'something';
        self::assertFalse($node->isOnline());
    }

    public function test_metadata_by_key_with_a_default_for_missing_and_null(): void
    {
        $node = $this->node();
        $node->setMetadata('k', ['deep' => true]);
        $node->setMetadata('null', null);
        $node->setMetadata('7', 'seven');
        self::assertSame(['deep' => true], $node->getMetadata('k'));
        self::assertNull($node->getMetadata('missing'));
        self::assertSame('d', $node->getMetadata('missing', 'd'));
        self::assertSame('d', $node->getMetadata('null', 'd'));
        self::assertSame(['k' => ['deep' => true], 'null' => null, 7 => 'seven'], $node->metadata);
        self::assertSame('seven', $node->getMetadata('7'));
    }

    public function test_metadata_of_two_nodes_is_not_shared(): void
    {
        $node = $this->node();
        $node->setMetadata('k', 1);
        $copy = clone $node;
        $copy->setMetadata('k', 2);
        self::assertSame([1, 2], [$node->getMetadata('k'), $copy->getMetadata('k')]);
    }

    public function test_to_array(): void
    {
        $node = $this->node();
        [$node->createdAt, $node->lastHeartbeatTime] = [microtime(true) - 3, microtime(true) - 2];
        $before = microtime(true);
        $array = $node->toArray();
        $after = microtime(true);
        self::assertSame(['id', 'ip', 'port', 'connection_id', 'status', 'last_heartbeat', 'seconds_since_heartbeat', 'heartbeat_count',
            'total_messages', 'created_at', 'lifetime', 'metadata'], array_keys($array));
        self::assertSame(['n1', '10.0.0.1', 5000, 7, 'online', 0, 0, []], [$array['id'], $array['ip'], $array['port'], $array['connection_id'],
            $array['status'], $array['heartbeat_count'], $array['total_messages'], $array['metadata']]);
        $this->assertBetween($before - $node->createdAt, $array['lifetime'], $after - $node->createdAt);
        $this->assertBetween($before - $node->lastHeartbeatTime, $array['seconds_since_heartbeat'], $after - $node->lastHeartbeatTime);
        self::assertSame($node->createdAt, $array['created_at']);
    }

    public function test_summary(): void
    {
        $node = $this->node();
        $node->updateHeartbeat();
        self::assertMatchesRegularExpression('/^Node\[n1\] 10\.0\.0\.1:5000 - online \(heartbeats: 1, lifetime: \d+\.\ds\)$/', $node->getSummary());
    }

    public function test_lifetime_counts_from_creation(): void
    {
        $node = $this->node();
        $node->createdAt = microtime(true) - 60;
        $before = microtime(true);
        $lifetime = $node->getLifetime();
        $this->assertBetween($before - $node->createdAt, $lifetime, microtime(true) - $node->createdAt);
        self::assertSame(1, preg_match('/lifetime: (\d+\.\d)s/', $node->getSummary(), $told));
        // It is rounded.
        $this->assertBetween($before - $node->createdAt - 0.1, (float) $told[1], microtime(true) - $node->createdAt + 0.1);
    }

    public function test_serializes_and_can_be_extended(): void
    {
        $node = $this->node();
        $node->setMetadata('k', 'v');
        self::assertEquals($node, unserialize(serialize($node)));
        $own = new class ('n2', 'ip', 1, 2) extends Node {
            public function isOnline(): bool
            {
                return !parent::isOnline();
            }
        };
        self::assertFalse($own->isOnline());
        self::assertSame('n2', (clone $own)->id);
    }

    public function test_constructor_arguments_are_checked(): void
    {
        self::assertSame(80, (new Node('a', 'b', '80', 1))->port);
        $this->expectException(TypeError::class);
        new Node('a', 'b', 'http', 1);
    }

    private function assertBetween(float $earliest, float $value, float $latest): void
    {
        self::assertGreaterThanOrEqual($earliest, $value);
        self::assertLessThanOrEqual($latest, $value);
    }
}
