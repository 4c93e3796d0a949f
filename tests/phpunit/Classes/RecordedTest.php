<?php

namespace Heartbus\Tests\Classes;

use Heartbus\Tests\Replay;
use Heartbus\Tests\TestCase;

/** What the original library gave for random calls, held against what the extension gives. */
final class RecordedTest extends TestCase
{
    /** @dataProvider tables */
    public function test_random_calls_give_what_the_original_gave(string $table): void
    {
        $cases = json_decode(file_get_contents(__DIR__ . "/../recorded/$table.json"), true, flags: JSON_THROW_ON_ERROR);
        self::assertNotEmpty($cases);
        $differences = [];
        foreach ($cases as $number => ['calls' => $calls, 'results' => $expected]) {
            // Some results are times, and some wait for one: a pause does not come three times in the same place.
            for ($tries = 0; $tries < 3 && ($difference = self::difference($calls, $expected)) !== null; $tries++) {
            }
            $difference === null || $differences[] = "case $number, $difference";
        }
        self::assertSame('', implode("\n", array_slice($differences, 0, 10)), count($differences) . ' of ' . count($cases) . ' cases differ');
    }

    private static function difference(array $calls, array $expected): ?string
    {
        $results = (new Replay())->run($calls);
        // Through JSON, as the record went.
        $results = json_decode(json_encode($results, JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION), true);
        foreach ($expected as $place => $result) {
            if ($results[$place] !== $result) {
                return "call $place: " . json_encode([$calls[$place] ?? 'left', 'expected' => $result, 'got' => $results[$place]]);
            }
        }
        return null;
    }

    public static function tables(): array
    {
        $names = array_map(fn (string $file) => basename($file, '.json'), glob(__DIR__ . '/../recorded/*.json'));
        return array_combine($names, array_map(fn (string $name) => [$name], $names));
    }
}
