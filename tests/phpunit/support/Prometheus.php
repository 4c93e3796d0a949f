<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/** Prometheus' own parser of its text format: the Python package prometheus_client. */
final class Prometheus
{
    private const PROGRAM = <<<'PYTHON'
        import json, sys
        from prometheus_client.parser import text_string_to_metric_families as families
        print(json.dumps({f.name: [f.type, [[s.name, s.labels, str(s.value)] for s in f.samples]] for f in families(sys.stdin.read())}))
        PYTHON;

    /**
     * Fails when the text is not valid; the test is incomplete where there is no parser.
     *
     * @return array<string, array{string, list<array{string, array<string, string>, string}>}> by the name of the family,
     *         without `_total`: its kind, and the name, labels and value of each sample
     */
    public static function parse(string $text): array
    {
        // Debian's own, for which its packages are; another python3 may stand before it in the path.
        $python = getenv('PYTHON') ?: (is_executable('/usr/bin/python3') ? '/usr/bin/python3' : 'python3');
        exec(escapeshellcmd($python) . ' -c "import prometheus_client" 2>/dev/null', $_, $missing);
        if ($missing) {
            Assert::markTestIncomplete('Not checked with Prometheus\' own parser: the Python package prometheus_client is not installed');
        }
        $input = tmpfile();
        fwrite($input, $text);
        rewind($input);
        $process = proc_open([$python, '-c', self::PROGRAM], [$input, ['pipe', 'w'], ['pipe', 'w']], $pipes);
        [$out, $errors] = [stream_get_contents($pipes[1]), stream_get_contents($pipes[2])];
        Assert::assertSame([0, ''], [proc_close($process), $errors]);
        return json_decode($out, true, flags: JSON_THROW_ON_ERROR);
    }
}
