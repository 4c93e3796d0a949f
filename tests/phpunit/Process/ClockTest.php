<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{EventLoop, Frame, PhpProcess, Port, ServerApp, TestCase, WallClock, WorkermanApp};

/** Somebody sets the wall clock by hours: what is shown follows it, what is measured does not notice. */
final class ClockTest extends TestCase
{
    private const STEP = 5 * 3600;

    /** In a script: sets the clock as the test does, and compares. */
    private const HELP = '
        function step(int $seconds): void { $file = fopen(getenv("HEARTBUS_TEST_CLOCK"), "c"); fwrite($file, pack("q", $seconds)); fclose($file); }
        function is_short(float $seconds): bool { return $seconds >= 0 && $seconds < 120; }
        function is_now(float $moment): bool { return abs($moment - microtime(true)) < 120; }
        ';

    public static function steps(): array
    {
        return ['forward' => [self::STEP], 'back' => [-self::STEP]];
    }

    /** @dataProvider steps */
    public function test_plain_objects_are_as_old_as_before(int $step): void
    {
        $clock = WallClock::make();
        $process = $this->script(self::HELP . '
            use PfinalClub\AsyncioHeartbeat\{Channel\Channel, Channel\ChannelScheduler, Node\NodeManager, Utils\Metrics, Utils\RateLimiter};
            $before = microtime(true);
            $node = new Node("n", "127.0.0.1", 1, 1);
            $channel = new Channel(1, "n");
            $scheduler = new ChannelScheduler();
            $scheduler->createChannel("n");
            $metrics = Metrics::getInstance();
            $manager = new NodeManager(60.0);
            $manager->register(new Node("m", "127.0.0.1", 1, 2));
            $limiter = new RateLimiter(1, 1 / 3600);
            $limiter->allow("k");
            $quick = new RateLimiter(1, 1000.0);
            $quick->allow("k");
            step(' . $step . ');
            $checks["the clock was set"] = abs(microtime(true) - $before - ' . $step . ') < 120;
            $clone = clone $node;
            foreach (["node" => $node, "clone" => $clone] as $name => $about) {
                $checks["lifetime of the $name"] = is_short($about->getLifetime());
                $checks["silence of the $name"] = is_short($about->getSecondsSinceLastHeartbeat());
                $checks["timeout of the $name"] = !$about->isTimeout(120.0);
                ["lifetime" => $lifetime, "seconds_since_heartbeat" => $silence] = $about->toArray();
                $checks["array of the $name"] = is_short($lifetime) && is_short($silence);
            }
            $checks["the summary"] = preg_match("/lifetime: (\d+\.\d)s/", $node->getSummary(), $told) && is_short((float) $told[1]);
            $node->updateHeartbeat();
            $node->updateMessage();
            $checks["shown by the new clock"] = is_now($node->lastHeartbeatTime) && is_now($node->lastMessageTime);
            $checks["beaten"] = is_short($node->getSecondsSinceLastHeartbeat()) && is_short($node->getLifetime());
            $node->lastHeartbeatTime = microtime(true) - 1000;
            $checks["set by the script"] = is_short($node->getSecondsSinceLastHeartbeat() - 1000) && $node->isTimeout(900.0);
            $checks["lifetime of a channel"] = is_short($channel->getStats()["lifetime"]);
            $checks["of one that was cloned"] = is_short((clone $channel)->getStats()["lifetime"]);
            foreach ($scheduler->getStats()["channels"] as $stats) { $checks["of one in a scheduler"] = is_short($stats["lifetime"]); }
            preg_match("/^heartbeat_uptime_seconds (\S+)$/m", $metrics->export(), $uptime);
            $checks["uptime in metrics"] = is_short((float) $uptime[1]);
            $json = json_decode($metrics->exportJson(), true);
            $checks["in their JSON"] = is_short($json["uptime"]) && is_now($json["timestamp"]);
            $checks["nobody times out"] = $manager->checkTimeout() === [];
            $checks["an empty bucket is empty"] = !$limiter->allow("k") && $limiter->getTokens("k") < 0.1;
            $checks["and not forgotten"] = $limiter->cleanup(600.0) === 0 && $limiter->cleanup(-1.0) === 1;
            for ($deadline = hrtime(true) + 10e9; !($filled = $quick->allow("k")) && hrtime(true) < $deadline;);
            $checks["a quick one fills"] = $filled;
            $manager->setHeartbeatTimeout(0.01);
            for ($deadline = hrtime(true) + 10e9; ($late = $manager->checkTimeout()) === [] && hrtime(true) < $deadline;);
            $checks["silence still ends a node"] = $late === ["m"];
            say("failed", array_keys(array_filter($checks, fn ($held) => !$held)), count($checks));', [], ['env' => $clock->environment()]);
        self::assertSame(0, $process->exitCode(30), $process->transcript());
        [$failed, $checks] = $process->next('failed');
        self::assertSame([], $failed);
        self::assertGreaterThan(20, $checks);
    }

    /** @dataProvider steps */
    public function test_a_server_its_nodes_and_its_clients_are_as_old_as_before_and_go_on(int $step): void
    {
        $clock = WallClock::make();
        $server = $this->server(['worker_count' => 1, 'heartbeat_timeout' => 60], self::HELP . '
            $server->on("timeout", fn (Node $node) => say("timeout", $node->id));
            $server->on("heartbeat", fn (Node $node) => say("heartbeat", $node->id, is_short($node->getLifetime()), is_short($node->getSecondsSinceLastHeartbeat()), is_now($node->createdAt)));
            $server->every(0.05, fn () => say("tick"));', ['env' => $clock->environment()]);
        $peer = $server->node('a');
        $client = $this->client($server->port, ['node_id' => 'c', 'heartbeat_interval' => 0.2], self::HELP, ['env' => $clock->environment()]);
        $client->next('register');
        $server->ask('$GLOBALS["held"] = $server->getNodeManager()->getNode("a"); $GLOBALS["channel"] = $server->getChannelScheduler()->getNodeChannels("a");');
        $clock->set($step);
        // In the engine and in PHP, by the object that was there before and by others.
        $checks = $server->ask('
            $nodes = [$GLOBALS["held"]->toArray(), $server->getNodeManager()->getNode("a")->toArray(),
                ...array_map(fn (Node $node) => $node->toArray(), $server->getNodeManager()->getAllNodes()),
                ...array_map(fn (Node $node) => $node->toArray(), Heartbus\Bus::connect("' . PhpProcess::folder() . "/$server->port.sock" . '")->nodes()["nodes"])];
            foreach ($nodes as $number => $node) {
                $failed[] = is_short($node["lifetime"]) && is_short($node["seconds_since_heartbeat"]) ? null : [$number, $node];
            }
            foreach ($server->getChannelScheduler()->getStats()["channels"] as $stats) { $failed[] = is_short($stats["lifetime"]) ? null : $stats; }
            $failed[] = is_short($server->getStats()["engine"]["uptime_seconds"]) ? null : "uptime";
            return [count($failed), array_filter($failed)];');
        self::assertGreaterThan(7, $checks[0]);
        self::assertSame([], $checks[1]);
        $uptime = $client->ask('return [is_short($client->getStats()["uptime"]), $client->getStats()["uptime"]];');
        self::assertTrue($uptime[0], "a client's uptime: $uptime[1]");
        $ticks = count($server->process->said('tick'));
        $beats = count($server->process->said('heartbeat'));
        $peer->beat();
        $this->until(fn () => count($server->process->said('tick')) > $ticks + 5, 'timers go on');
        $this->until(fn () => count(array_filter(array_slice($server->process->said('heartbeat'), $beats), fn (array $beat) => $beat[0] === 'c')) > 2, 'the client beats on');
        foreach (array_slice($server->process->said('heartbeat'), $beats + 1) as $beat) {
            self::assertSame([true, true, true], array_slice($beat, 1), $beat[0]);
        }
        $client->ask('$client->disconnect();');
        $client->next('close');
        self::assertTrue($client->ask('return is_short($client->getStats()["uptime"]);'));
        self::assertSame([], $server->process->said('timeout'));
        self::assertSame(2, $server->stats()['nodes']['total_registered'] ?? 2);
    }

    /** @dataProvider steps */
    public function test_silence_is_still_noticed_and_a_client_still_comes_back(int $step): void
    {
        $clock = WallClock::make();
        $server = $this->server(['worker_count' => 1, 'heartbeat_timeout' => 1], '
            $server->on("timeout", fn (Node $node) => say("timeout", $node->id));', ['env' => $clock->environment()]);
        $client = $this->client($server->port, ['node_id' => 'c', 'heartbeat_interval' => 0.2, 'reconnect_interval' => 0.1], '', ['env' => $clock->environment()]);
        $client->next('register');
        $server->node('silent');
        $clock->set($step);
        self::assertSame(['silent'], $server->next('timeout'));
        $server->ask('$server->disconnect("c");');
        $client->next('register');
    }

    /** @dataProvider steps */
    public function test_a_worker_s_copies_are_as_old_as_before(int $step): void
    {
        [$workerman] = array_values(WorkermanApp::installations())[0];
        $clock = WallClock::make();
        foreach ($clock->environment() as $name => $value) {
            putenv("$name=$value");
        }
        try {
            $server = ServerApp::start($workerman, ['heartbeat_timeout' => 60], self::HELP . '
                $server->on("data", fn (Node $node, string $payload) => say("data", $payload, is_short($node->getLifetime()), is_short($node->getSecondsSinceLastHeartbeat()), is_now($node->createdAt)));');
            $peer = $server->node('a');
            $peer->send(Frame::DATA, 'before');
            self::assertSame(['before', true, true, true], $server->next('data'));
            $clock->set($step);
            $peer->send(Frame::DATA, 'after');
            self::assertSame(['after', true, true, true], $server->next('data'));
        } finally {
            array_map(putenv(...), array_keys($clock->environment()));
        }
    }
}
