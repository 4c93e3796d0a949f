<?php

namespace Heartbus\Tests\Classes;

use Heartbus\Tests\Signatures;
use Heartbus\Tests\TestCase;
use ReflectionClass;

/** Every class and function as the original's Reflection shows it (recorded), and what is there beyond it. */
final class SignaturesTest extends TestCase
{
    private const BEYOND = [
        'Channel\MessageRouter' => ['matchRoute()' => '(string $key): ?int'],
        'Node\Node' => ['$bytesWaiting' => 'int'],
        'Node\NodeManager' => ['iterateNodes()' => '(int $pageSize = 1000): Generator'],
        'Utils\Logger' => ['setLogger()' => '(?object $logger): void'],
    ];

    /** @dataProvider subjects */
    public function test_names_types_and_defaults_are_the_originals(string $subject): void
    {
        $expected = [...self::original()[$subject], ...self::BEYOND[$subject] ?? []];
        self::assertEqualsCanonicalizing(self::lines($expected), self::lines(Signatures::all()[$subject]));
    }

    public static function subjects(): array
    {
        return array_combine(array_keys(self::original()), array_map(fn (string $subject) => [$subject], array_keys(self::original())));
    }

    private static function original(): array
    {
        return json_decode(file_get_contents(__DIR__ . '/../recorded/signatures/original.json'), true, flags: JSON_THROW_ON_ERROR);
    }

    private static function lines(array $members): array
    {
        return array_map(fn (string $name, string $signature) => "$name $signature", array_keys($members), $members);
    }

    public function test_named_arguments_work(): void
    {
        $channel = new \PfinalClub\AsyncioHeartbeat\Channel\Channel(nodeId: 'n', id: 4, maxQueueSize: 1);
        self::assertTrue($channel->trySend(dropOldest: true, data: 'x'));
        self::assertSame([4, 'n'], [$channel->id, $channel->nodeId]);
        self::assertSame('1.5 KB', hb_format_bytes(precision: 1, bytes: 1536));
    }

    public function test_every_class_can_be_extended(): void
    {
        foreach (Signatures::CLASSES as $class) {
            self::assertFalse((new ReflectionClass("PfinalClub\\AsyncioHeartbeat\\$class"))->isFinal(), $class);
        }
    }
}
