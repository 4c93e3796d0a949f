<?php

/**
 * The command line of the examples (`--name value`, `--name=value`, `--flag`, plain words, `--help`), and what they print.
 * Knows nothing about Heartbus.
 */

/**
 * Reads the arguments, or ends the script: with 0 after --help, with 2 and the usage after something unknown.
 *
 * @param string $usage the text of --help; its first line is the summary of the command line
 * @param array<string, int|float|string|bool> $defaults what a value may be is told by its default; false is a flag
 * @return array{0: array<string, int|float|string|bool>, 1: list<string>} the options and the plain words
 */
function read_options(string $usage, array $defaults): array
{
    $options = $defaults;
    $words = [];
    $arguments = array_slice($_SERVER['argv'], 1);
    while ($arguments !== []) {
        $argument = array_shift($arguments);
        if ($argument === '--help') {
            echo $usage;
            exit(0);
        }
        if (!str_starts_with($argument, '--')) {
            $words[] = $argument;
            continue;
        }
        [$name, $value] = explode('=', substr($argument, 2), 2) + [1 => null];
        $default = $defaults[$name] ?? refuse_usage("unknown option --$name", $usage);
        if ($default === false) {
            $options[$name] = $value === null ? true : refuse_usage("--$name takes no value", $usage);
            continue;
        }
        $value ??= array_shift($arguments) ?? refuse_usage("--$name needs a value", $usage);
        $options[$name] = match (true) {
            is_int($default) => filter_var($value, FILTER_VALIDATE_INT, FILTER_NULL_ON_FAILURE)
                ?? refuse_usage("--$name needs a whole number, not '$value'", $usage),
            is_float($default) => is_numeric($value) ? (float) $value : refuse_usage("--$name needs a number, not '$value'", $usage),
            default => $value,
        };
    }
    return [$options, $words];
}

function refuse_usage(string $complaint, string $usage): never
{
    fwrite(STDERR, "$complaint\n\n$usage");
    exit(2);
}

/** The extension, or an end with advice. */
function require_extension(): void
{
    if (!extension_loaded('heartbus')) {
        fwrite(STDERR, "The heartbus extension is not loaded. Build it with `make build`, then:\n"
            . '  php -d extension=' . dirname(__DIR__) . '/build/heartbus.so ' . $_SERVER['argv'][0] . "\n");
        exit(1);
    }
}

/** A line that replaces itself on a terminal, and plain lines anywhere else. */
final class StatusLine
{
    private bool $inPlace;
    private string $shown = '';

    public function __construct()
    {
        $this->inPlace = stream_isatty(STDOUT);
    }

    public function show(string $text): void
    {
        if ($this->inPlace) {
            // Wrapping off while we write: on a narrow terminal the line is cut, not spread over two.
            echo "\r\033[?7l$text\033[K\033[?7h";
        } elseif ($text !== $this->shown) {
            echo "$text\n";
        }
        $this->shown = $text;
    }

    /** Leaves the last line where it is and goes to a new one. */
    public function end(): void
    {
        if ($this->inPlace && $this->shown !== '') {
            echo "\n";
        }
        $this->shown = '';
    }
}

/** Without what could steer a terminal or turn its text around; lines stay lines. For whatever a stranger wrote. */
function printable(string $text): string
{
    return preg_replace('/[^\P{Cc}\n]|[\x{61c}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}]/u', '', $text) ?? 'what is no UTF-8';
}

/** The first complaints in words, the rest as numbers. */
function complain(string $text): void
{
    static $said = 0;
    if (++$said <= 5) {
        fwrite(STDERR, "$text\n");
    }
}

/** A bar of ten characters. */
function bar(float $part): string
{
    $full = (int) (10 * min(max($part, 0), 1));
    return str_repeat('█', $full) . str_repeat('░', 10 - $full);
}

/** Memory of a process, ours unless told otherwise, in MB as the kernel sees it: PHP's own counters do not know the engine's share. */
function resident_megabytes(int|string $pid = 'self'): float
{
    preg_match('/^VmRSS:\s+(\d+) kB/m', (string) @file_get_contents("/proc/$pid/status"), $found);
    return (int) ($found[1] ?? 0) / 1024;
}
