<?php

namespace Heartbus\Tests\Api;

use Heartbus\Tests\TestCase;
use LogicException;
use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Protocol\{HeartbeatProtocol, Message};
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;
use ReflectionClass;
use ReflectionMethod;
use ReflectionNamedType;
use ReflectionParameter;

/** The classes as Reflection sees them: names of parameters matter (named arguments), types and defaults too. */
final class SignaturesTest extends TestCase
{
    private const MESSAGE = [
        '__construct(int $type, string $payload = \'\', int $channelId = 0)',
        'createData(string $payload, int $channelId = 0): self static',
        'createError(string $message, int $code = 0): self static',
        'createHeartbeatRequest(): self static',
        'createHeartbeatResponse(): self static',
        'createRegister(string $nodeId, array $metadata = []): self static',
        'decode(string $buffer): ?self static',
        'encode(): string',
        'getPackageLength(string $buffer): int static',
        'getTypeName(): string',
        'toArray(): array',
    ];

    private const PROTOCOL = [
        'calculateTimeout(int $heartbeatInterval): int static',
        'getInfo(): array static',
        'isValidMessageType(int $type): bool static',
        'validateMessage(PfinalClub\AsyncioHeartbeat\Protocol\Message $message): bool static',
    ];

    private const NODE = [
        '__construct(string $id, string $ip, int $port, int $connectionId)',
        'getLifetime(): float',
        'getMetadata(string $key, mixed $default = null): mixed',
        'getSecondsSinceLastHeartbeat(): float',
        'getSummary(): string',
        'isOnline(): bool',
        'isTimeout(float $timeoutSeconds): bool',
        'markOffline(): void',
        'markOnline(): void',
        'setMetadata(string $key, mixed $value): void',
        'toArray(): array',
        'updateHeartbeat(): void',
        'updateMessage(): void',
    ];

    private const CLIENT = [
        '__construct(string $host = \'127.0.0.1\', int $port = 9501, array $config = [])',
        'connect(): void',
        'disconnect(): void',
        'getChannelId(): ?int',
        'getNodeId(): ?string',
        'getStats(): array',
        'isConnected(): bool',
        'on(string $event, callable $callback): void',
        'ping(): bool',
        'send(string $data, int $channelId = 0): bool',
    ];

    private const SERVER = [
        '__construct(string $host = \'0.0.0.0\', int $port = 9501, array $config = [])',
        'getChannelScheduler(): PfinalClub\AsyncioHeartbeat\Channel\ChannelScheduler',
        'getNodeManager(): PfinalClub\AsyncioHeartbeat\Node\NodeManager',
        'getStats(): array',
        'onMessage(Workerman\Connection\TcpConnection $connection, string $data): void',
        'start(): void',
    ];

    /** What servers and the bus have in common. */
    private const TOPICS = [
        'broadcast(string $data, array $except = []): int',
        'join(string $nodeId, string $topic): bool',
        'leave(string $nodeId, string $topic): bool',
        'members(string $topic, ?int $page = null, int $limit = 100): array',
        'publish(string $topic, string $data, array $except = []): Heartbus\Publication',
        'subscribers(string $topic): int',
        'topics(?int $page = null, int $limit = 100): array',
        'topicsOf(string $nodeId): array',
        'unsubscribeNode(string $nodeId, string $filter): bool',
    ];

    /** @dataProvider classes */
    public function test_the_methods_are_those_of_the_php_library(string $class, array $expected, array $beyond): void
    {
        $signatures = [];
        foreach ((new ReflectionClass($class))->getMethods(ReflectionMethod::IS_PUBLIC) as $method) {
            $signatures[] = self::signature($method);
        }
        $expected = [...$expected, ...getenv('HEARTBUS_REFERENCE') ? [] : $beyond];
        self::assertSame([], array_diff($expected, $signatures), 'these are missing; what is there: ' . implode("\n", $signatures));
    }

    public static function classes(): array
    {
        return [
            [Message::class, self::MESSAGE, []],
            [HeartbeatProtocol::class, self::PROTOCOL, []],
            [Node::class, self::NODE, []],
            [HeartbeatClient::class, self::CLIENT, [
                'addNode(string $nodeId, array $metadata = []): bool',
                'heartbeat(string $nodeId): bool',
                'poll(float $timeout = 0.0): int static',
                'publish(string $topic, string $data, int $number = 0): bool',
                'removeNode(string $nodeId): bool',
                'run(): void static',
                'sendFrom(string $nodeId, string $data): bool',
                'subscribe(string $topic, callable $callback, ?Heartbus\Position $since = null): bool',
                'unsubscribe(string $topic): bool',
            ]],
            [HeartbeatServer::class, self::SERVER, [
                ...self::TOPICS,
                'disconnect(string $nodeId): bool',
                'event(): array',
                'on(string $event, callable $callback): void',
                'sendTo(string $nodeId, string $data, int $channelId = 0): bool',
                'stop(): void',
                'subscribe(string $filter, ?callable $callback = null): void',
                'unsubscribe(string $filter): bool',
            ]],
        ];
    }

    public function test_what_is_beyond_the_php_library_has_names_that_named_arguments_can_use(): void
    {
        if (getenv('HEARTBUS_REFERENCE')) {
            self::markTestSkipped('the PHP library has no such classes');
        }
        $signatures = fn (string $class): array => array_map(self::signature(...), (new ReflectionClass($class))->getMethods(ReflectionMethod::IS_PUBLIC));
        self::assertEqualsCanonicalizing([
            ...self::TOPICS,
            'connect(?string $socket = null, float $timeout = 1.0): self static',
            'disconnect(string $nodeId): bool',
            'getEventStream() static',
            'getSocket(): string',
            'isOnline(string $nodeId): bool',
            'metrics(): string',
            'node(string $nodeId): ?PfinalClub\AsyncioHeartbeat\Node\Node',
            'nodes(array $filter = [], ?int $page = null, int $limit = 100): array',
            'poll(float $timeout = 0.0): int static',
            'run(): void static',
            'sendTo(string $nodeId, string $data, int $channelId = 0): bool',
            'sendToMany(array $nodeIds, string $data): int',
            'setMetadata(string $nodeId, array $metadata): bool',
            'stats(): array',
            'subscribe(string $filter, callable $callback, ?Heartbus\Position $since = null, ?callable $gap = null): void',
            'unsubscribe(string $filter): bool',
        ], $signatures(\Heartbus\Bus::class));
        self::assertSame(['run(array $config = []): void static'], $signatures(\Heartbus\Host::class));
        foreach ([\Heartbus\Bus::class, \Heartbus\Host::class, \Heartbus\Position::class, \Heartbus\Publication::class] as $class) {
            self::assertTrue((new ReflectionClass($class))->isFinal(), $class);
        }
    }

    public function test_the_properties_are_those_of_the_php_library(): void
    {
        $properties = fn (string $class): array => array_map(
            fn ($property) => ($property->isReadOnly() ? 'readonly ' : '') . $property->getType() . ' $' . $property->getName(),
            (new ReflectionClass($class))->getProperties(\ReflectionProperty::IS_PUBLIC));
        self::assertEqualsCanonicalizing(['int $type', 'string $payload', 'int $channelId'], $properties(Message::class));
        self::assertEqualsCanonicalizing(['readonly string $id', 'readonly string $ip', 'readonly int $port', 'readonly int $connectionId',
            'float $lastHeartbeatTime', 'int $heartbeatCount', 'string $status', 'array $metadata', 'float $createdAt', 'int $totalMessages',
            'float $lastMessageTime', 'int $bytesWaiting'], $properties(Node::class));
    }

    public function test_none_of_the_classes_is_final(): void
    {
        foreach ([Message::class, HeartbeatProtocol::class, Node::class, HeartbeatClient::class, HeartbeatServer::class] as $class) {
            self::assertFalse((new ReflectionClass($class))->isFinal(), $class);
        }
    }

    public function test_on_message_is_there_and_says_what_to_use_in_its_place(): void
    {
        if (getenv('HEARTBUS_REFERENCE')) {
            self::markTestSkipped('the PHP library reads its connections in PHP');
        }
        $this->expectException(LogicException::class);
        $this->expectExceptionMessage("onMessage() cannot be called; subscribe with on('data', ...)");
        // No TcpConnection is at hand where there is no Workerman: what is passed does not matter.
        (new ReflectionMethod(HeartbeatServer::class, 'onMessage'))->invoke(new HeartbeatServer('127.0.0.1', 9600), null, 'frame');
    }

    private static function signature(ReflectionMethod $method): string
    {
        $type = fn (?ReflectionNamedType $type): string => $type === null ? ''
            : ($type->allowsNull() && !in_array($type->getName(), ['mixed', 'null'], true) ? '?' : '')
                . ($type->getName() === $method->class ? 'self' : $type->getName());
        $parameters = array_map(fn (ReflectionParameter $parameter): string => $type($parameter->getType()) . ' $' . $parameter->getName()
            . ($parameter->isDefaultValueAvailable() ? ' = ' . self::export($parameter->getDefaultValue()) : ''), $method->getParameters());
        $returns = $type($method->getReturnType());
        return $method->name . '(' . implode(', ', $parameters) . ')' . ($returns === '' ? '' : ": $returns") . ($method->isStatic() ? ' static' : '');
    }

    private static function export(mixed $value): string
    {
        return match (true) {
            $value === [] => '[]',
            $value === null => 'null',
            default => var_export($value, true),
        };
    }
}
