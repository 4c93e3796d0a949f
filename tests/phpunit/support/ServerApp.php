<?php

namespace Heartbus\Tests;

use Heartbus\Bus;

/** A HeartbeatServer under Workerman, as applications have it: the master, the engine's process, PHP workers, one bus socket. */
final class ServerApp
{
    /**
     * For start(): every message is noted in the order of the callbacks, whichever process they run in, with what event()
     * says and the version that version.php had when the worker began.
     */
    public const NOTE = <<<'PHP'
        function note(HeartbeatServer $server, Node $node, string $payload): void {
            static $notes = null;
            $notes ??= fopen("notes", "a");
            ["sequence" => $sequence, "redelivered" => $again] = $server->event();
            // One write to the end of the file: lines of different processes stand in the order in which they were written.
            fwrite($notes, json_encode([$node->id, $payload, $sequence, $again, getmypid(), $GLOBALS["version"]]) . "\n");
        }
        $server->on("start", function () { $GLOBALS["version"] = require getcwd() . "/version.php"; say("start", getmypid(), $GLOBALS["version"]); });
        $server->on("data", fn (Node $node, string $payload) => note($server, $node, $payload));
        PHP;

    private ?Bus $bus = null;

    private function __construct(public readonly WorkermanApp $app, public readonly PhpProcess $process, public readonly int $port, public readonly string $socket)
    {
    }

    /**
     * @param array<string, mixed> $config of the server
     * @param string $script PHP that runs before the start, with `$server` in scope
     */
    public static function start(string $workerman, array $config = [], string $script = self::NOTE): self
    {
        $app = WorkermanApp::make($workerman);
        $server = self::at($app, Port::free(), $config, $script);
        $workers = $config['php_workers'] ?? 1;
        for ($worker = max(1, $workers); $worker > 0; $worker--) {
            $server->process->next('ready');
        }
        if ($workers > 0) {
            // A worker is ready when it has said so to the engine, which hears it a little later.
            Wait::until(fn () => $server->counter('dispatch_workers') === $workers, 'the engine knows the workers', 20, fn () => $server->process->transcript());
        }
        return $server;
    }

    /** Without waiting for anything. */
    public static function at(WorkermanApp $app, int $port, array $config, string $script): self
    {
        $socket = $config['bus'] ?? "$app->folder/bus.sock";
        $config += ['worker_count' => 2, 'bus' => $socket];
        $app->write('version.php', '<?php return 1;');
        $app->write('server.php', sprintf("\$server = new HeartbeatServer('127.0.0.1', %d, %s);\n%s\nserve(\$server);", $port, var_export($config, true), $script));
        return new self($app, $app->php('server.php', 'start'), $port, (string) $socket);
    }

    public function node(string $id): Peer
    {
        $peer = Peer::connect($this->port);
        $peer->register($id);
        return $peer;
    }

    public function next(string $topic, float $seconds = 20): array
    {
        return $this->process->next($topic, $seconds);
    }

    public function command(string ...$arguments): string
    {
        return $this->app->command('server.php', ...$arguments);
    }

    public function bus(): Bus
    {
        return $this->bus ??= Bus::connect($this->socket, 10.0);
    }

    /** One of the engine's counters. */
    public function counter(string $name): int
    {
        return $this->bus()->stats()['engine'][$name];
    }

    /** The pid of the process that has the engine. */
    public function engine(): int
    {
        return $this->bus()->stats()['server']['pid'];
    }

    /** @return list<int> the pids of the processes that run the callbacks */
    public function phpWorkers(): array
    {
        return array_values(array_diff($this->app->workers(), [$this->engine()]));
    }

    public function version(int $version): void
    {
        $this->app->write('version.php', "<?php return $version;");
    }

    /** What NOTE has noted. @return list<array{0: string, 1: string, 2: int, 3: bool, 4: int, 5: int}> node, payload, sequence, redelivered, pid, version */
    public function notes(): array
    {
        $lines = @file("{$this->app->folder}/notes", FILE_IGNORE_NEW_LINES) ?: [];
        return array_map(fn (string $line) => json_decode($line, flags: JSON_THROW_ON_ERROR), $lines);
    }

    /** Waits until every event has been told and acknowledged. */
    public function untilAllIsTold(float $seconds = 60): void
    {
        Wait::until(function (): bool {
            $engine = $this->bus()->stats()['engine'];
            return $engine['dispatch_queued_events'] === 0 && $engine['dispatch_in_flight_events'] === 0;
        }, 'every event is told', $seconds, fn () => $this->process->transcript());
    }
}
