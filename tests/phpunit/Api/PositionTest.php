<?php

namespace Heartbus\Tests\Api;

use Heartbus\{Position, Publication};
use Heartbus\Tests\TestCase;

/** `Heartbus\Position` and `Heartbus\Publication` as values. */
final class PositionTest extends TestCase
{
    /** @dataProvider waysToKeepIt */
    public function test_a_position_comes_back_whole_from_wherever_an_application_keeps_it(callable $keep, callable $restore): void
    {
        foreach ([new Position(), new Position(12, 1764000000000000), new Position(epoch: PHP_INT_MAX, offset: PHP_INT_MAX)] as $position) {
            $kept = $restore($keep($position));
            self::assertInstanceOf(Position::class, $kept);
            self::assertSame([$position->offset, $position->epoch], [$kept->offset, $kept->epoch]);
            self::assertEquals($position, $kept);
        }
    }

    public static function waysToKeepIt(): array
    {
        return [
            'a text' => [strval(...), Position::fromString(...)],
            'serialize()' => [serialize(...), unserialize(...)],
            'var_export()' => [fn (Position $position) => var_export($position, true), fn (string $code) => eval("return $code;")],
            'JSON' => [json_encode(...), fn (string $json) => new Position(...json_decode($json, true))],
            'clone' => [fn (Position $position) => clone $position, fn (Position $position) => $position],
        ];
    }

    public function test_a_text_is_the_offset_and_the_epoch(): void
    {
        self::assertSame('12@1764000000000000', (string) new Position(12, 1764000000000000));
        self::assertInstanceOf(\Stringable::class, new Position());
        self::assertSame([0, 0], [(new Position())->offset, (new Position())->epoch]);
    }

    /** @dataProvider noPositions */
    public function test_what_is_no_position_is_refused(callable $make, string $class = \InvalidArgumentException::class): void
    {
        $this->expectException($class);
        $make();
    }

    public static function noPositions(): array
    {
        return [
            'before the beginning' => [fn () => new Position(-1, 5)],
            'before all epochs' => [fn () => new Position(5, -1)],
            'no number' => [fn () => new Position('x', 1), \TypeError::class],
            'an empty text' => [fn () => Position::fromString('')],
            'half a text' => [fn () => Position::fromString('12@')],
            'a sign' => [fn () => Position::fromString('-1@2')],
            'a space' => [fn () => Position::fromString(' 1@2')],
            'more than PHP counts' => [fn () => Position::fromString('1@9223372036854775808')],
            'no UTF-8' => [fn () => Position::fromString("1@\xff")],
            'half a serialized one' => [fn () => unserialize('O:17:"Heartbus\Position":1:{s:6:"offset";i:3;}')],
            'a negative serialized one' => [fn () => unserialize('O:17:"Heartbus\Position":2:{s:6:"offset";i:-3;s:5:"epoch";i:1;}')],
            'half an exported one' => [fn () => Position::__set_state(['epoch' => 1])],
            'one that changes' => [function () { $position = new Position(1, 2); $position->offset = 3; }, \Error::class],
            'one that is made again' => [fn () => (new Position(1, 2))->__construct(3, 4), \Error::class],
            'one that is read again' => [fn () => (new Position(1, 2))->__unserialize(['offset' => 3, 'epoch' => 4]), \Error::class],
            'one with more' => [function () { $position = new Position(1, 2); $position->more = 3; }, \Error::class],
        ];
    }

    public function test_a_publication_is_what_became_of_it_and_tests_may_make_one(): void
    {
        $publication = new Publication(position: $position = new Position(1, 2), reach: 3);
        self::assertSame([$position, 3], [$publication->position, $publication->reach]);
        self::assertNull((new Publication(null, 0))->position);
        $this->expectException(\TypeError::class);
        $this->expectExceptionMessage('Heartbus\Publication::__construct(): Argument #1 ($position) must be of type ?Heartbus\Position, stdClass given');
        new Publication(new \stdClass(), 0);
    }
}
