<?php

namespace Heartbus\Tests\Classes;

use Error;
use Heartbus\Tests\{Frame, Port, TestCase};
use PfinalClub\AsyncioHeartbeat\Channel\{Channel, ChannelScheduler, MessageRouter};
use PfinalClub\AsyncioHeartbeat\Client\TcpMultiplexClient;
use PfinalClub\AsyncioHeartbeat\Node\{HeartbeatMonitor, Node, NodeManager};
use PfinalClub\AsyncioHeartbeat\Protocol\{HeartbeatProtocol, Message};
use PfinalClub\AsyncioHeartbeat\Server\{ConnectionPool, TcpMultiplexServer};
use PfinalClub\AsyncioHeartbeat\Utils\{ConfigValidator, RateLimiter};
use ReflectionClass;
use ReflectionExtension;
use ReflectionMethod;
use ReflectionParameter;

/** Classes of the application's own that extend those of the extension, in use. */
final class SubclassTest extends TestCase
{
    /** Everything that is not final, without the exceptions and what has no public constructor. */
    public static function classes(): array
    {
        $classes = array_filter((new ReflectionExtension('heartbus'))->getClasses(), fn (ReflectionClass $class) => !$class->isFinal()
            && !$class->isInterface() && !$class->isSubclassOf(\Throwable::class) && !$class->getConstructor()?->isPrivate());
        return array_map(fn (ReflectionClass $class) => [$class->getName()], $classes);
    }

    /**
     * PHP code that forgets the parent's constructor gets what PHP gives it for its own classes, and no crash; what needs
     * nothing of the constructor works.
     *
     * @dataProvider classes
     */
    public function test_without_the_parent_s_constructor_methods_work_or_throw_a_clear_error(string $class): void
    {
        $name = 'Forgetful' . substr(strrchr($class, '\\'), 1);
        eval("class $name extends \\$class { public array \$own = [1]; public function __construct() {} }");
        $errors = [];
        foreach ((new ReflectionClass($class))->getMethods(ReflectionMethod::IS_PUBLIC) as $method) {
            // They concern no object.
            if ($method->isStatic() || $method->isConstructor() || in_array($method->getName(), ['poll', 'getEventStream'], true)) {
                continue;
            }
            $object = new $name();
            try {
                $method->invokeArgs($object, array_map($this->argument(...), array_filter($method->getParameters(), fn ($parameter) => !$parameter->isOptional())));
            } catch (Error $error) {
                $errors[$method->getName()] = $error->getMessage();
            } catch (\RuntimeException | \LogicException) {
                // What the method says of its own, as getResult() of a Future that is not done.
            }
            self::assertSame([1], $object->own);
        }
        foreach ($errors as $method => $message) {
            self::assertMatchesRegularExpression('/^The parent constructor was not called$|^Typed property ' . preg_quote($class) . '::\$\w+ must not be accessed before initialization$|must be of type (Workerman|Throwable)/', $message, $method);
        }
        $needs = [
            Channel::class => ['send', 'trySend', 'recv', 'recvAsync', 'putRecv', 'tryPutRecv', 'getStats'],
            HeartbeatMonitor::class => ['start', 'getCheckInterval', 'getStats'],
            NodeManager::class => ['checkTimeout', 'getHeartbeatTimeout'],
            MessageRouter::class => ['broadcast', 'broadcastAll'],
            TcpMultiplexServer::class => ['getScheduler', 'getStats'],
            ConnectionPool::class => ['getStats'],
            RateLimiter::class => ['allow', 'getTokens', 'getStats'],
            Message::class => ['encode', 'toArray', 'getTypeName'],
            Node::class => ['isTimeout', 'toArray', 'getSummary', 'getLifetime'],
        ];
        self::assertSame([], array_diff($needs[$class] ?? [], array_keys($errors)), 'methods that should have thrown');
        print_r(new $name(), true);
        unset($object);
    }

    private function argument(ReflectionParameter $parameter): mixed
    {
        $type = ltrim((string) $parameter->getType(), '?');
        return match (true) {
            $type === 'int' => 1,
            $type === 'float' => 1.0,
            $type === 'string' => 'a',
            $type === 'bool' => true,
            $type === 'array' => [],
            $type === 'callable' => fn () => null,
            $type === Node::class => new Node('a', '127.0.0.1', 1, 1),
            $type === Message::class => new Message(1),
            $type === 'Throwable' => new \Exception(),
            default => new \stdClass(),
        };
    }

    /** @dataProvider classes */
    public function test_one_that_only_adds_keeps_everything(string $class): void
    {
        $name = 'Adding' . substr(strrchr($class, '\\'), 1);
        $constructor = (new ReflectionClass($class))->getConstructor();
        eval("class $name extends \\$class { private string \$note = 'mine'; public function note(): string { return \$this->note; }"
            . ($constructor ? ' public function __construct(mixed ...$arguments) { $this->note .= "!"; parent::__construct(...$arguments); }' : '') . ' }');
        $object = $this->make($name, $class);
        self::assertSame($constructor ? 'mine!' : 'mine', $object->note());
        self::assertInstanceOf($class, $object);
        $again = $this->make($name, $class);
        self::assertNotSame($object, $again);
        if ((new ReflectionClass($class))->isCloneable()) {
            self::assertSame($object->note(), (clone $object)->note());
        }
    }

    private function make(string $name, string $class): object
    {
        return match ($class) {
            Channel::class => new $name(1, 'n'),
            Node::class => new $name('a', '127.0.0.1', 1, 1),
            Message::class => new $name(1),
            MessageRouter::class => new $name(new ChannelScheduler()),
            HeartbeatMonitor::class => new $name(new NodeManager()),
            default => new $name(),
        };
    }

    public function test_a_channel_of_the_applications_own(): void
    {
        $channel = new class(7, 'n', 2) extends Channel {
            public array $log = [];

            public function __construct(int $id, string $nodeId, int $max)
            {
                parent::__construct($id, $nodeId, $max);
            }

            public function send(string $data): bool
            {
                $this->log[] = $data;
                return parent::send(strtoupper($data));
            }
        };
        self::assertSame([true, true, false], [$channel->send('a'), $channel->send('b'), $channel->send('c')]);
        self::assertSame([['a', 'b', 'c'], ['A', 'B'], 7], [$channel->log, $channel->getSendQueue(), $channel->id]);
    }

    public function test_a_router_of_the_applications_own_over_a_scheduler_of_its_own(): void
    {
        $scheduler = new class extends ChannelScheduler {
            public int $asked = 0;

            public function getChannel(int $channelId): ?Channel
            {
                $this->asked++;
                return parent::getChannel($channelId);
            }
        };
        $router = new class($scheduler) extends MessageRouter {
            public function __construct(ChannelScheduler $scheduler)
            {
                parent::__construct($scheduler);
                $this->registerHandler(Message::TYPE_DATA, $this->handle(...));
            }

            public function handle(Message $message): void
            {
                $this->handled[] = $message->payload;
            }

            public function route(Message $message): bool
            {
                return $message->payload !== 'refused' && parent::route($message);
            }

            public array $handled = [];
        };
        $channel = $scheduler->createChannel('n');
        self::assertTrue($router->route(new Message(Message::TYPE_DATA, 'x')));
        self::assertTrue($router->route(new Message(Message::TYPE_DATA, 'y', $channel->id)));
        self::assertFalse($router->route(new Message(Message::TYPE_DATA, 'refused', $channel->id)));
        self::assertSame([['x'], 1], [$router->handled, $channel->getRecvQueueSize()]);
        self::assertSame(1, $router->broadcast('n', new Message(Message::TYPE_DATA, 'z')));
        self::assertGreaterThan(0, $scheduler->asked);
    }

    public function test_a_monitor_a_manager_and_nodes_of_the_applications_own(): void
    {
        $node = new class('a', 'ip', 1, 2) extends Node {
            public bool $isLate = false;

            public function isTimeout(float $timeout): bool
            {
                return $this->isLate;
            }
        };
        $manager = new class(30.0) extends NodeManager {
            public array $log = [];

            public function register(Node $node): void
            {
                $this->log[] = "register $node->id";
                parent::register($node);
            }

            public function checkTimeout(): array
            {
                $late = parent::checkTimeout();
                $this->log[] = 'late: ' . implode(' ', $late);
                return $late;
            }
        };
        $manager->register($node);
        self::assertSame([], $manager->checkTimeout());
        $node->isLate = true;
        $monitor = new class($manager, 0.5) extends HeartbeatMonitor {
            public function getCheckInterval(): float
            {
                return 2 * parent::getCheckInterval();
            }
        };
        $monitor->onTimeout(function (Node $late) use (&$told): void { $told[] = $late; });
        (new ReflectionMethod(HeartbeatMonitor::class, 'start'))->invoke($monitor);
        self::assertSame([true, 1.0], [$monitor->isRunning(), $monitor->getCheckInterval()]);
        $monitor->stop();
        self::assertSame(['a'], $manager->checkTimeout());
        self::assertSame(['register a', 'late: ', 'late: a'], $manager->log);
        self::assertSame(['a' => $node], $manager->getOfflineNodes());
    }

    public function test_multiplexers_pools_and_limiters_of_the_applications_own(): void
    {
        $client = new class extends TcpMultiplexClient {
            public function createChannel(int $channelId, string $nodeId): Channel
            {
                return parent::createChannel($channelId, "mine-$nodeId");
            }
        };
        self::assertSame('mine-n', $client->createChannel(4, 'n')->nodeId);
        self::assertSame(1, $client->getChannelCount());
        $server = new class extends TcpMultiplexServer {
            public function getStats(): array
            {
                return ['mine' => true] + parent::getStats();
            }
        };
        self::assertSame(['mine', 'connections_with_channels', 'scheduler_stats'], array_keys($server->getStats()));
        $pool = new class(0) extends ConnectionPool {
            public function __construct(int $max)
            {
                parent::__construct($max + 10);
            }
        };
        self::assertSame([10, 0], [$pool->getStats()['max_connections'], $pool->count()]);
        $limiter = new class(2, 0.0) extends RateLimiter {
            public function allow(string $key, int $tokens = 1): bool
            {
                return $key === 'vip' || parent::allow($key, $tokens);
            }
        };
        self::assertSame([true, true, false, true], [$limiter->allow('a'), $limiter->allow('a'), $limiter->allow('a'), $limiter->allow('vip')]);
        $protocol = new class extends HeartbeatProtocol {
        };
        self::assertTrue($protocol::isValidMessageType(Message::TYPE_DATA));
        $validator = new class extends ConfigValidator {
        };
        $this->expectException(\InvalidArgumentException::class);
        $validator::validateServerConfig(['worker_count' => 0]);
    }

    public function test_a_server_and_a_client_of_the_applications_own(): void
    {
        $port = Port::free();
        $server = $this->script('
            class Bus extends HeartbeatServer {
                public array $seen = [];
                private int $sent = 0;
                public function __construct(int $port, array $config = []) {
                    parent::__construct("127.0.0.1", $port, $config + ["loop" => "native", "worker_count" => 2]);
                    $this->on("register", fn (Node $node) => $this->seen[] = $node->id);
                    $this->on("data", fn (Node $node, string $payload) => $this->sendTo($node->id, "re: $payload"));
                    $this->on("unregister", $this->stop(...));
                }
                public function sendTo(string $nodeId, string $data, int $channelId = 0): bool { $this->sent++; return parent::sendTo($nodeId, strtoupper($data), $channelId); }
                public function stop(): void { say("stopping", $this->seen, $this->sent, $this->getNodeManager()->getStatsSummary()["total_registered"]); parent::stop(); }
                public function getStats(): array { return ["mine" => $this->sent] + parent::getStats(); }
            }
            $bus = new Bus(' . $port . ');
            $bus->on("start", fn () => say("ready"));
            $bus->start();
            say("stats", array_slice(array_keys($bus->getStats()), 0, 2));');
        $server->next('ready');
        $client = $this->script('
            class Device extends HeartbeatClient {
                public array $got = [];
                public function __construct(int $port, private string $name) {
                    parent::__construct("127.0.0.1", $port, ["node_id" => $name]);
                    $this->on("register", fn () => $this->send("hello"));
                    $this->on("data", function (string $payload) { $this->got[] = $payload; });
                }
                public function send(string $data, int $channelId = 0): bool { return parent::send("$this->name: $data", $channelId); }
                public function getNodeId(): ?string { return "<" . parent::getNodeId() . ">"; }
            }
            $device = new Device(' . $port . ', "d1");
            $device->connect();
            drive(fn () => $device->got !== []);
            say("got", $device->got, $device->getNodeId(), $device->isConnected());
            $device->disconnect();
            drive(fn () => !$device->isConnected());');
        self::assertSame([['RE: D1: HELLO'], '<d1>', true], $client->next('got'));
        self::assertSame(0, $client->exitCode());
        self::assertSame([['d1'], 1, 1], $server->next('stopping'));
        self::assertSame([['mine', 'server']], $server->next('stats'));
        self::assertSame(0, $server->exitCode());
    }
}
