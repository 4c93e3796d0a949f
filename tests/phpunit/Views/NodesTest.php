<?php

namespace Heartbus\Tests\Views;

use Heartbus\Tests\{Frame, Port, TestCase};

/** getNodeManager() of a running server: the engine's nodes, whichever thread they are on. */
final class NodesTest extends TestCase
{
    public function test_every_node_of_every_thread_is_there_and_counted(): void
    {
        $server = $this->server(['worker_count' => 4], '$nodes = $server->getNodeManager();');
        $peers = array_map(fn (int $i) => $server->node("n$i"), range(1, 20));
        $manager = '$server->getNodeManager()';
        self::assertSame([20, 20, 0], $server->ask("return [{$manager}->getNodeCount(), {$manager}->getOnlineNodeCount(), {$manager}->getOfflineNodeCount()];"));
        $ids = $server->ask("return array_keys({$manager}->getAllNodes());");
        sort($ids, SORT_NATURAL);
        self::assertSame(array_map(fn (int $i) => "n$i", range(1, 20)), $ids);
        self::assertSame(20, $server->ask("return count({$manager}->getOnlineNodes());"));
        self::assertSame([], $server->ask("return {$manager}->getOfflineNodes();"));
        $peers[3]->close();
        $this->until(fn () => $server->ask("return {$manager}->getNodeCount();") === 19, 'the node is gone');
        self::assertSame([false, null], $server->ask("return [{$manager}->hasNode('n4'), {$manager}->getNode('n4')];"));
        self::assertTrue($server->ask("return {$manager}->hasNode('n5');"));
    }

    public function test_the_stats_are_the_engine_s(): void
    {
        $server = $this->server();
        [$a, $b] = [$server->node('a', ['v' => '1.0']), $server->node('17')];
        $a->beat();
        $a->send(Frame::DATA, 'x');
        $a->expectSilence();
        $b->send(Frame::UNREGISTER);
        $b->expectSilence();
        $summary = ['total' => 1, 'online' => 1, 'offline' => 0, 'total_heartbeats' => 1, 'total_messages' => 1, 'total_registered' => 2,
            'total_unregistered' => 1, 'total_timeout' => 0];
        self::assertSame($summary, $server->ask('return $server->getNodeManager()->getStatsSummary();'));
        self::assertSame($summary, $server->stats()['nodes']);
        // The Unix time of a moment is derived from two clocks, between which a busy machine may pause: not each time.
        $changing = ['last_heartbeat' => 0.01, 'created_at' => 0.01, 'seconds_since_heartbeat' => 1, 'lifetime' => 1];
        $this->until(function () use ($server, $changing, &$stats, &$object): bool {
            [$stats, $object] = $server->ask('$manager = $server->getNodeManager(); return [$manager->getStats(), $manager->getNode("a")->toArray()];');
            return array_filter($changing, fn (float $delta, string $key) => abs($object[$key] - $stats['nodes'][0][$key]) > $delta, ARRAY_FILTER_USE_BOTH) === [];
        }, 'their times agree');
        self::assertSame(['total', 'online', 'offline', 'total_registered', 'total_unregistered', 'total_timeout', 'nodes'], array_keys($stats));
        self::assertCount(1, $stats['nodes']);
        $node = $stats['nodes'][0];
        self::assertSame(array_keys($object), array_keys($node));
        foreach ($changing as $key => $_) {
            unset($object[$key], $node[$key]);
        }
        self::assertSame($object, $node);
        self::assertSame(['v' => '1.0'], $node['metadata']);
    }

    public function test_the_same_node_is_the_same_object_everywhere_while_somebody_holds_it(): void
    {
        $server = $this->server([], '
            $manager = $server->getNodeManager();
            foreach (["register", "heartbeat", "data", "disconnected"] as $event) {
                $server->on($event, function (Node $node) use ($event, $manager) {
                    static $first;
                    $GLOBALS["held"] ??= $node;
                    say($event, $node === $GLOBALS["held"], $manager->getNode("7") === ($node->isOnline() ? $node : null), $node->heartbeatCount, $node->totalMessages, $node->status);
                });
            }');
        $peer = $server->node('7');
        self::assertSame([true, true, 0, 0, 'online'], $server->next('register'));
        $peer->beat();
        self::assertSame([true, true, 1, 0, 'online'], $server->next('heartbeat'));
        self::assertSame([true, true, true], $server->ask('
            $manager = $server->getNodeManager(); $held = $GLOBALS["held"];
            return [$manager->getAllNodes() === [7 => $held], $manager->getOnlineNodes()[7] === $held, $manager->getNodeByConnection($held->connectionId) === $held];'));
        self::assertSame([true, true], $server->ask('return [$server->getNodeManager() === $server->getNodeManager(), $server->getChannelScheduler() === $server->getChannelScheduler()];'));
        $peer->close();
        self::assertSame([true, true, 1, 0, 'offline'], $server->next('disconnected'));
        // The id comes back: that is another registration, and another object.
        $peers[] = $server->node('7');
        self::assertSame([false, true, 0, 0, 'online'], $server->next('register'));
        self::assertSame('offline', $server->ask('return $GLOBALS["held"]->status;'));
    }

    public function test_properties_are_fresh_when_a_node_is_handed_out_and_own_metadata_stays(): void
    {
        $server = $this->server([], '$server->getNodeManager();');
        $peer = $server->node('a', ['from' => 'node']);
        $server->ask('$GLOBALS["held"] = $server->getNodeManager()->getNode("a"); $GLOBALS["held"]->setMetadata("own", 1); $GLOBALS["held"]->markOffline();');
        $peer->beat();
        $peer->beat();
        self::assertSame([2, 'online', ['from' => 'node', 'own' => 1]], $server->ask('
            $node = $server->getNodeManager()->getNode("a"); return [$GLOBALS["held"]->heartbeatCount, $node->status, $node->metadata];'));
        $peer->register('a', ['from' => 'again']);
        self::assertSame(['from' => 'again', 'own' => 1], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        $server->ask('$GLOBALS["held"] = null;');
        self::assertSame(['from' => 'again', 'own' => 1], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        // What the node says itself wins, key by key; of another connection's node nothing is left.
        $peer->register('a', ['own' => 'mine']);
        self::assertSame(['own' => 'mine'], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        $server->node('a', ['from' => 'elsewhere']);
        self::assertSame(['from' => 'elsewhere'], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
    }

    public function test_metadata_that_is_set_is_what_json_makes_of_it_and_refused_beyond_its_bound(): void
    {
        $server = $this->server();
        $peer = $server->node('a', ['from' => 'node']);
        $set = fn (string $value): mixed => $server->ask("
            \$node = \$server->getNodeManager()->getNode('a');
            try { \$node->setMetadata('k', $value); } catch (Throwable \$e) { return [\$e::class, \$e->getMessage(), \$node->metadata]; }
            return [\$node->getMetadata('k'), \$server->getNodeManager()->getNode('a')->getMetadata('k')];");
        foreach (['"text"' => 'text', '17' => 17, '1.5' => 1.5, 'true' => true, 'null' => null, '[1, 2]' => [1, 2], '["a" => ["b" => "é/"]]' => ['a' => ['b' => 'é/']],
            '(object) ["x" => 1]' => ['x' => 1], '[]' => []] as $code => $value) {
            self::assertSame([$value, $value], $set($code), $code);
        }
        self::assertSame(['from' => 'node', 'k' => []], $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        foreach (['INF', '"\\xff"', 'STDIN'] as $code) {
            self::assertSame(['InvalidArgumentException', 'metadata cannot be encoded as JSON', ['from' => 'node', 'k' => []]], $set($code), $code);
        }
        self::assertSame(['Heartbus\Exception\LimitException', 'The metadata of a node must have at most 65536 bytes', ['from' => 'node', 'k' => []]],
            $set('str_repeat("x", 65536)'));
        // A node that is no server's keeps what it is given, and so does one that has left.
        self::assertSame([true, 'gone', 'gone'], $server->ask('
            $node = new Node("x", "ip", 1, 1); $node->setMetadata("stream", STDIN);
            $held = $GLOBALS["held"] = $server->getNodeManager()->getNode("a"); $server->disconnect("a"); $held->setMetadata("k", "gone");
            $copy = clone $held; $copy->setMetadata("k", "gone");
            return [is_resource($node->getMetadata("stream")), $held->getMetadata("k"), $copy->getMetadata("k")];'));
        $peer->expectClosed();
    }

    public function test_a_node_that_nobody_holds_costs_no_memory(): void
    {
        $server = $this->server();
        $peers = array_map(fn (int $i) => $server->node("n$i"), range(1, 50));
        $grown = $server->ask('
            $manager = $server->getNodeManager();
            $walk = function () use ($manager) { for ($i = 0; $i < 200; $i++) { $manager->getAllNodes(); $manager->getStats(); } };
            $walk();
            $before = memory_get_usage();
            $walk();
            return memory_get_usage() - $before;');
        self::assertLessThan(10_000, $grown);
    }

    public function test_clones_and_copies_of_a_view_are_plain_objects(): void
    {
        $server = $this->server();
        $peers[] = $server->node('a');
        self::assertSame([0, 1, 'a', false, 'a'], $server->ask('
            $manager = $server->getNodeManager();
            $node = $manager->getNode("a");
            $copy = clone $node;
            return [(clone $manager)->getNodeCount(), $manager->getNodeCount(), $copy->id, $copy === $manager->getNode("a"), unserialize(serialize($node))->id];'));
    }

    public function test_unregister_takes_a_node_off_the_bus(): void
    {
        $server = $this->server([], 'say_events($server, "disconnected");');
        $peer = $server->node('a');
        self::assertSame(['a', 'offline', true], $server->ask('
            $node = $server->getNodeManager()->getNode("a"); $left = $server->getNodeManager()->unregister("a");
            return [$left->id, $left->status, $left === $node];'));
        self::assertSame(['a'], $server->next('disconnected'));
        $peer->expectClosed();
        self::assertNull($server->ask('return $server->getNodeManager()->unregister("a");'));
        $peer = $server->node('b');
        self::assertSame('b', $server->ask('$m = $server->getNodeManager(); return $m->unregisterByConnection($m->getNode("b")->connectionId)->id;'));
        $peer->expectClosed();
        self::assertSame([null, null, null], $server->ask('$m = $server->getNodeManager(); return [$m->unregisterByConnection(-1), $m->unregisterByConnection(99999), $m->getNodeByConnection(0)];'));
    }

    public function test_register_is_refused_unless_the_node_is_registered_already(): void
    {
        $server = $this->server();
        $peers[] = $server->node('a');
        self::assertSame(['LogicException', 1], $server->ask('
            $manager = $server->getNodeManager();
            $manager->register($manager->getNode("a"));
            try { $manager->register(new Node("b", "1.2.3.4", 5, 6)); } catch (Throwable $e) {}
            return [$e::class, $manager->getNodeCount()];'));
    }

    public function test_the_engine_has_checked_timeouts_already_and_update_heartbeat_keeps_a_node_alive(): void
    {
        $server = $this->server(['heartbeat_timeout' => 4], '
            say_events($server, "timeout");
            $server->every(0.2, fn () => $GLOBALS["keep"] = $server->getNodeManager()->updateHeartbeat("kept"));');
        [$silent, $kept] = [$server->node('silent'), $server->node('kept')];
        self::assertSame([[], 0, false, true], $server->ask('$m = $server->getNodeManager(); return [$m->checkTimeout(), $m->cleanupOffline(), $m->updateHeartbeat("x"), $m->updateMessage("kept")];'));
        self::assertSame(['silent'], $server->next('timeout'));
        usleep(700_000);
        self::assertSame([['kept'], 1, 0], $server->ask('$m = $server->getNodeManager(); return [array_keys($m->getAllNodes()), $m->getStats()["total_timeout"], $m->getNode("kept")->heartbeatCount];'));
    }

    public function test_the_heartbeat_timeout_can_be_set_before_the_start_and_while_it_runs(): void
    {
        $server = $this->server(['heartbeat_timeout' => 300], 'say_events($server, "timeout"); $server->getNodeManager()->setHeartbeatTimeout(0.3);');
        $peers[] = $server->node('a');
        self::assertSame(['a'], $server->next('timeout', 20));
        self::assertSame(0.3, $server->ask('return $server->getNodeManager()->getHeartbeatTimeout();'));
        $server->ask('$server->getNodeManager()->setHeartbeatTimeout(100);');
        $peers[] = $server->node('b');
        usleep(600_000);
        self::assertTrue($server->ask('return $server->getNodeManager()->hasNode("b");'));
        self::assertSame(100.0, $server->ask('return $server->getNodeManager()->getHeartbeatTimeout();'));
    }

    public function test_before_the_start_it_stands_alone_and_after_the_stop_it_is_empty(): void
    {
        $port = Port::free();
        $process = $this->script("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'heartbeat_timeout' => 40]);
            \$manager = \$server->getNodeManager();
            say('timeout', \$manager->getHeartbeatTimeout());
            \$manager->register(new Node('own', '1.2.3.4', 5, 6));
            say('before', \$manager->getNodeCount(), \$manager->getNodeByConnection(6)->id, \$server->getChannelScheduler()->createChannel('own')->id);
            \$server->on('register', function () use (\$server, \$manager) { say('running', array_keys(\$manager->getAllNodes()), count(\$server->getChannelScheduler()->getAllChannels())); \$server->stop(); });
            \$server->on('start', fn () => say('ready'));
            \$server->start();
            say('after', \$manager->getAllNodes(), \$manager->getNodeCount(), \$server->getChannelScheduler()->getAllChannels(), \$manager->getStats()['total_registered']);
            unset(\$server);
            say('alone', \$manager->getNodeCount());");
        self::assertSame([40.0], $process->next('timeout'));
        self::assertSame([1, 'own', 1], $process->next('before'));
        $process->next('ready');
        \Heartbus\Tests\Peer::connect($port)->register('a');
        self::assertSame([['a'], 1], $process->next('running'));
        self::assertSame([[], 0, [], 1], $process->next('after'));
        $process->next('alone');
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_forked_child_is_told_that_the_server_is_not_its_own(): void
    {
        $server = $this->server([], '$server->getNodeManager(); $server->getChannelScheduler();');
        $peers[] = $server->node('a');
        $server->ask('
            $manager = $server->getNodeManager(); $channel = $server->getChannelScheduler()->getNodeMainChannel("a");
            if (pcntl_fork() === 0) {
                foreach ([fn () => $manager->getNode("a"), fn () => $server->getNodeManager(), fn () => $manager->getAllNodes(), fn () => $channel->send("x")] as $use) {
                    try { $use(); say("child", "nothing"); } catch (Throwable $e) { say("child", $e::class); }
                }
                posix_kill(getmypid(), SIGKILL);
            }
            return true;');
        for ($i = 0; $i < 4; $i++) {
            self::assertSame(['Heartbus\Exception\WrongProcessException'], $server->next('child'));
        }
        self::assertSame(1, $server->ask('return $server->getNodeManager()->getNodeCount();'));
    }

    public function test_counts_do_not_cost_more_with_more_nodes_and_a_list_is_made_once(): void
    {
        $server = $this->server(['max_nodes_per_connection' => 100_000, 'heartbeat_timeout' => 3600], '', ['ini' => ['memory_limit=512M']]);
        // Many nodes over one connection.
        $peer = $server->connect();
        $bytes = '';
        for ($i = 0; $i < 20_000; $i++) {
            $bytes .= Frame::registration("node-$i");
        }
        $read = 0;
        foreach (str_split($bytes, 65536) as $part) {
            $peer->bytes($part);
            $read += strlen($peer->peek());
        }
        $this->until(fn () => [$peer->peek(0.01), $server->ask('return $server->getNodeManager()->getNodeCount();')][1] === 20_000, 'all nodes are there', 30);
        [$counts, $list, $stats, $memory] = $server->ask('
            $manager = $server->getNodeManager();
            // The best of three: others use the machine too.
            $time = function (callable $do): float {
                for ($i = 0; $i < 3; $i++) { $since = hrtime(true); $do(); $times[] = hrtime(true) - $since; }
                return min($times) / 1e6;
            };
            $manager->getNode("node-5");
            $counts = $time(function () use ($manager, $server) { for ($i = 0; $i < 1000; $i++) { $manager->getNodeCount(); $manager->getStatsSummary(); $server->getStats(); $manager->getNode("node-77"); } });
            // Since PHP 8.2; before the list there was no such peak anyway.
            function_exists("memory_reset_peak_usage") && memory_reset_peak_usage();
            $before = memory_get_usage();
            $all = $manager->getAllNodes();
            $memory = memory_get_peak_usage() - $before;
            $kept = memory_get_usage() - $before;
            $list = $time(fn () => $manager->getAllNodes());
            $stats = $time(fn () => $manager->getStats());
            return [$counts / 4000, $list, $stats, $memory / $kept];');
        self::assertLessThan(0.2, $counts, 'milliseconds for a count');
        self::assertLessThan(1500, $list, 'milliseconds for the list');
        self::assertLessThan(1500, $stats, 'milliseconds for the stats');
        self::assertLessThan(1.5, $memory, 'the list is not built twice');
    }

    /** Few connections carry them: what is looked at is the list, not the sockets. */
    public function test_a_hundred_thousand_nodes_are_counted_listed_once_and_walked_in_little_memory(): void
    {
        $server = $this->server(['heartbeat_timeout' => 3600], '
            $measure = function (callable $look) {
                // Since PHP 8.2.
                if (!function_exists("memory_reset_peak_usage")) { return [$look(), 0]; }
                memory_reset_peak_usage();
                $before = memory_get_usage();
                return [$look(), memory_get_peak_usage() - $before];
            };
            $GLOBALS["measure"] = $measure;');
        // PHP keeps the names of the statistics from the first time on. Their table takes 8 KiB, with or without nodes.
        $statistics = '($GLOBALS["measure"])(fn () => $server->getStats()["nodes"]["online"])';
        $server->ask("return $statistics;");
        [$none, $empty] = $server->ask("return $statistics;");
        self::assertSame(0, $none);
        for ($c = 0; $c < 20; $c++) {
            $peer = $peers[] = $server->connect();
            for ($k = 0; $k < 5; $k++) {
                $peer->bytes(implode('', array_map(fn (int $i) => Frame::registration("node $c $k $i"), range(1, 1000))));
                for ($i = 0; $i < 1000; $i++) {
                    $peer->receive();
                }
            }
        }
        $measured = $server->ask('
            $manager = $server->getNodeManager();
            $measure = $GLOBALS["measure"];
            return [
                "count" => $measure(fn () => [$manager->getNodeCount(), $manager->getOnlineNodeCount(), $manager->getOfflineNodeCount(), $manager->getStatsSummary()["online"]]),
                "statistics" => $measure(fn () => $server->getStats()["nodes"]["online"]),
                "all" => $measure(fn () => count($manager->getAllNodes())),
                "stats" => $measure(function () use ($manager) {
                    $stats = $manager->getStats();
                    return [$stats["total"], count(array_unique(array_column($stats["nodes"], "id")))];
                }),
                "channels" => $measure(fn () => count($server->getChannelScheduler()->getStats()["channels"])),
                "walk" => $measure(function () use ($manager) {
                    $seen = 0;
                    foreach ($manager->iterateNodes() as $id => $node) { $seen += (int) ($id === $node->id && $node->isOnline()); }
                    return $seen;
                }),
            ];', 60);
        self::assertSame([[100_000, 100_000, 0, 100_000], 100_000, 100_000, [100_000, 100_000], 100_000, 100_000], array_column(array_values($measured), 0));
        self::assertLessThan(10_000, $measured['count'][1]);
        self::assertLessThan($empty + 1000, $measured['statistics'][1], 'nothing of it grows with the nodes');
        // An object with its strings, and one table: a second list beside it would show.
        self::assertLessThan(600 * 100_000, $measured['all'][1]);
        self::assertLessThan(5_000_000, $measured['walk'][1]);
    }

    public function test_a_walk_goes_on_while_nodes_come_and_go(): void
    {
        $server = $this->server();
        $peer = $server->connect();
        $peer->bytes(implode('', array_map(fn (int $i) => Frame::registration((string) $i), range(1, 500))));
        for ($i = 0; $i < 500; $i++) {
            $peer->expect(Frame::REGISTER);
        }
        $leaving = $server->node('leaves');
        $server->ask('
            $walk = $server->getNodeManager()->iterateNodes(10);
            for ($i = 0; $i < 50; $i++) { $GLOBALS["seen"][] = (string) $walk->key(); $walk->next(); }
            $GLOBALS["walk"] = $walk;');
        $leaving->close();
        $this->until(fn () => $server->stats()['nodes']['online'] === 500, 'it left');
        $peers[] = $server->node('comes');
        $seen = $server->ask('for ($walk = $GLOBALS["walk"]; $walk->valid(); $walk->next()) { $GLOBALS["seen"][] = (string) $walk->key(); } return $GLOBALS["seen"];');
        self::assertCount(count($seen), array_unique($seen), 'no node twice');
        self::assertSame([], array_diff(array_map('strval', range(1, 500)), $seen), 'none of those that stayed is missing');
        self::assertSame([[], ['a', 'b'], 'iterateNodes() needs a page of at least one node, 0 given'], $server->ask('
            $manager = new PfinalClub\AsyncioHeartbeat\Node\NodeManager();
            $empty = iterator_to_array($manager->iterateNodes());
            $manager->register(new Node("a", "ip", 1, 1));
            $manager->register(new Node("b", "ip", 1, 2));
            try { $manager->iterateNodes(0); } catch (InvalidArgumentException $error) {}
            return [$empty, array_keys(iterator_to_array($manager->iterateNodes(1))), $error->getMessage()];'));
    }
}
