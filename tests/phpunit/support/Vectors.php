<?php

namespace Heartbus\Tests;

use RuntimeException;

/** Reads tests/vectors/v1.txt and v2.txt; each file's head explains its format. */
final class Vectors
{
    /**
     * The rows whose expected result is one of these kinds, as arguments for a test: the bytes, then the result's own
     * words (numbers as int, the payload as bytes).
     *
     * @return iterable<string, list<int|string>>
     */
    public static function rows(string ...$kinds): iterable
    {
        return self::read('v1', $kinds);
    }

    /** The same of v2. @return iterable<string, list<int|string>> */
    public static function v2(string ...$kinds): iterable
    {
        return self::read('v2', $kinds);
    }

    /** @param list<string> $kinds */
    private static function read(string $dialect, array $kinds): iterable
    {
        $file = dirname(__DIR__, 2) . "/vectors/$dialect.txt";
        foreach (file($file, FILE_IGNORE_NEW_LINES) ?: throw new RuntimeException("no vectors in $file") as $number => $line) {
            if ($line === '' || $line[0] === '#') {
                continue;
            }
            [$bytes, $meaning, $result] = explode(' | ', $line);
            $words = explode(' ', $result);
            $kind = array_shift($words);
            if (in_array($kind, $kinds, true)) {
                $row = [self::hex($bytes)];
                foreach ($words as $position => $word) {
                    $isNumber = $kind === 'too-long' || ($position < 2 && $kind !== 'magic');
                    $row[] = $isNumber ? (int) $word : ($kind === 'magic' ? $word : self::hex($word));
                }
                yield sprintf('line %d: %s', $number + 1, $meaning) => $row;
            }
        }
    }

    private static function hex(string $hex): string
    {
        return $hex === '-' ? '' : hex2bin($hex);
    }
}
