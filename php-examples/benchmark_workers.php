<?php

/**
 * What it costs that the callbacks run in other processes than the engine: events to a PHP worker, calls from a page, memory
 * of a worker, and what a second worker brings where callbacks are work. Needs Workerman, which runs the workers.
 */

use Heartbus\Bus;
use Heartbus\Exception\HeartbusException;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Protocol\Message;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;
use Workerman\Worker;

require __DIR__ . '/options.php';
require __DIR__ . '/processes.php';

const USAGE = <<<'TEXT'
Usage: php benchmark_workers.php [options]

Measures an engine with PHP workers beside it, against servers that it starts.

  --events N    events that are told in the first part (500000)
  --bytes N     length of their messages (64)
  --calls N     calls that are timed in the second part (2000)
  --burn U      microseconds of CPU that a callback of the last part takes (100)
  --seconds S   how long the callbacks of the last part have to do, on one worker (2)
  --help        this text

TEXT;

/** What makes a worker wait for the start signal, and what it answers to with the time it took. */
const WAIT = 'wait';
const LAST = 'last';

[$options, $words] = read_options(USAGE, ['events' => 500_000, 'bytes' => 64, 'calls' => 2000, 'burn' => 100, 'seconds' => 2.0,
    'folder' => '', 'workers' => 1, 'rounds' => 0, 'host' => '127.0.0.1', 'port' => 0]);
$words === [] || $words === ['start'] || refuse_usage("unknown argument '$words[0]'", USAGE);
min($options['events'], $options['bytes'], $options['calls'], $options['burn']) >= 1 && $options['seconds'] > 0 || refuse_usage('all numbers are greater than 0', USAGE);
require_extension();
if (is_file($autoload = __DIR__ . '/../vendor/autoload.php')) {
    require_once $autoload;
}
if (!class_exists(Worker::class)) {
    fwrite(STDERR, "Workerman is not installed: composer require workerman/workerman\n");
    exit(1);
}
if ($words !== []) {
    serve($options);
    exit(0);
}
end_in_order();
printf("Heartbus %s, PHP %s, load before the start %.1f\n\n", phpversion('heartbus'), PHP_VERSION, sys_getloadavg()[0]);
$fleet = new Fleet(1);
$fleet->nodes(8);
measure_events($fleet, $options);
measure_calls($fleet, $options['calls']);
unset($fleet);
measure_memory();
measure_scaling($options);

/** Events that wait already: nothing but the engine and the worker is busy then. */
function measure_events(Fleet $fleet, array $options): void
{
    $fleet->send(WAIT, 1);
    $fleet->until(fn () => is_file("$fleet->folder/waits"), 'the worker waits');
    $fleet->send(str_repeat('x', $options['bytes']), $options['events']);
    $fleet->send(LAST, 1);
    $before = cpu_seconds($fleet->engine());
    touch("$fleet->folder/go");
    $fleet->until(fn () => is_file("$fleet->folder/result"), 'all are told');
    [$events, $seconds, $cpu] = json_decode(file_get_contents("$fleet->folder/result"), true);
    $events === $options['events'] + 1 || fail("$events events were told of " . ($options['events'] + 1));
    printf("events to one worker, %d bytes: %s per second; CPU for each: worker %.2f µs, engine %.2f µs\n", $options['bytes'],
        number_format($events / $seconds), 1e6 * $cpu / $events, 1e6 * (cpu_seconds($fleet->engine()) - $before) / $events);
}

/** A page of PHP-FPM: a process that has no connection yet, or one that has. */
function measure_calls(Fleet $fleet, int $calls): void
{
    $bus = $fleet->bus();
    $times = [];
    for ($call = 0; $call < $calls; $call++) {
        $since = hrtime(true);
        $bus->sendTo('n0', 'push') || fail('a push was not taken');
        $times[] = hrtime(true) - $since;
        $fleet->read();
    }
    print_times('sendTo(), connection kept', $times);

    // A process has one connection for a path, and keeps sixteen: by seventeen names in turn each is a new one.
    for ($name = 0; $name < 17; $name++) {
        symlink($fleet->socket, "$fleet->folder/name$name");
    }
    $times = [];
    for ($call = 0; $call < $calls; $call++) {
        $path = "$fleet->folder/name" . $call % 17;
        $since = hrtime(true);
        Bus::connect($path)->sendTo('n0', 'push') || fail('a push was not taken');
        $times[] = hrtime(true) - $since;
        $fleet->read();
    }
    print_times('connect() and sendTo()', $times);

    $times = [];
    if (!function_exists('pcntl_fork')) {
        echo "connect() and sendTo() of a new process: not measured, PHP has no pcntl here\n";
        return;
    }
    for ($call = 0; $call < $calls; $call++) {
        [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        if (pcntl_fork() === 0) {
            $since = hrtime(true);
            $isSent = Bus::connect($fleet->socket)->sendTo('n0', 'push');
            fwrite($theirs, ($isSent ? hrtime(true) - $since : 0) . "\n");
            posix_kill(getmypid(), SIGKILL); // without the parent's destructors
        }
        fclose($theirs);
        $times[] = (int) fgets($ours) ?: fail('a push was not taken');
        fclose($ours);
        pcntl_wait($status);
        $fleet->read();
    }
    print_times('connect() and sendTo() of a new process', $times);
}

/** @param list<int> $times nanoseconds */
function print_times(string $what, array $times): void
{
    sort($times);
    $at = fn (float $part): float => $times[(int) round($part * (count($times) - 1))] / 1000;
    printf("%s: p50 %.0f µs, p99 %.0f µs, max %.0f µs\n", $what, $at(0.5), $at(0.99), $at(1.0));
}

function measure_memory(): void
{
    $more = 16;
    foreach ([1, 1 + $more] as $workers) {
        $fleet = new Fleet($workers);
        $fleet->nodes(100);
        $engines[] = resident_megabytes($fleet->engine());
        $own = array_map(proportional_megabytes(...), $fleet->workers());
        unset($fleet);
    }
    printf("memory of an attached worker: %.0f KB in the engine, %.1f MB of its own\n", ($engines[1] - $engines[0]) * 1024 / $more, array_sum($own) / count($own));
}

/** Callbacks that are work: the same work for one worker and for two, however much else the machine has to do. */
function measure_scaling(array $options): void
{
    $since = hrtime(true);
    for ($rounds = 0; hrtime(true) - $since < 200_000_000; $rounds += 1000) {
        work(1000);
    }
    $rounds = max(1, (int) ($rounds * $options['burn'] * 1000 / (hrtime(true) - $since)));
    $events = (int) ceil($options['seconds'] * 1e6 / $options['burn']);
    foreach ([1, 2] as $workers) {
        $fleet = new Fleet($workers, $rounds);
        $fleet->nodes(64);
        $since = microtime(true);
        $fleet->send('work', $events);
        $fleet->until(fn () => $fleet->isQuiet(), 'all is done');
        $rates[] = $rate = $events / (microtime(true) - $since);
        printf("callbacks of %d µs, %d %s: %s per second\n", $options['burn'], $workers, $workers === 1 ? 'worker' : 'workers', number_format($rate));
        unset($fleet);
    }
    printf("two workers do %.2f times the work of one\n", $rates[1] / $rates[0]);
}

/** A server with its workers, in processes of its own, and nodes that talk to it: raw sockets with ready-made frames. */
final class Fleet
{
    private const PATIENCE = 120.0;

    public readonly string $folder;
    public readonly string $socket;
    private ServerProcess $server;
    private ?Bus $bus = null;
    /** @var list<resource> */
    private array $sockets = [];

    public function __construct(int $size, int $rounds = 0)
    {
        $this->folder = sys_get_temp_dir() . '/heartbus-benchmark-' . getmypid() . '-' . bin2hex(random_bytes(4));
        mkdir($this->folder, 0700);
        $this->socket = "$this->folder/bus.sock";
        $this->server = new ServerProcess(__FILE__, '127.0.0.1', 'start', '--folder', $this->folder, '--workers', (string) $size, '--rounds', (string) $rounds);
        try {
            $this->until(fn () => $this->bus()->stats()['engine']['dispatch_workers'] === $size, 'the workers are there');
        } catch (HeartbusException $error) {
            fail("The server is gone: {$error->getMessage()}.\n" . $this->server->stop());
        }
    }

    public function __destruct()
    {
        $this->server->stop();
        array_map('unlink', glob("$this->folder/*"));
        rmdir($this->folder);
    }

    public function bus(): Bus
    {
        return $this->bus ??= Bus::connect($this->socket, 10.0);
    }

    public function engine(): int
    {
        return $this->bus()->stats()['server']['pid'];
    }

    /** @return list<int> the pids of the PHP workers */
    public function workers(): array
    {
        return array_values(array_map('intval', file("$this->folder/workers")));
    }

    public function nodes(int $count): void
    {
        for ($number = 0; $number < $count; $number++) {
            $this->sockets[$number] = stream_socket_client("tcp://127.0.0.1:{$this->server->port}");
            fwrite($this->sockets[$number], Message::createRegister("n$number")->encode());
            fread($this->sockets[$number], 8192) ?: fail('The server closed a connection');
            stream_set_blocking($this->sockets[$number], false);
        }
    }

    /** Lets the nodes send so many messages together, and waits until they have arrived. */
    public function send(string $message, int $count): void
    {
        $arrived = $this->arrived();
        $frame = Message::createData($message)->encode();
        for ($left = $count, $next = 0; $left > 0; $left -= $now, $next++) {
            $now = min($left, max(1, min(1000, intdiv($count, count($this->sockets)))));
            $socket = $this->sockets[$next % count($this->sockets)];
            stream_set_blocking($socket, true);
            fwrite($socket, str_repeat($frame, $now));
            stream_set_blocking($socket, false);
        }
        $this->until(fn () => $this->arrived() === $arrived + $count, 'all messages have arrived');
    }

    /** Takes what the nodes were sent. */
    public function read(): void
    {
        array_map(fn ($socket) => fread($socket, 65536), $this->sockets);
    }

    public function isQuiet(): bool
    {
        $engine = $this->bus()->stats()['engine'];
        $engine['dispatch_refused'] === 0 || fail('There was no room for all events');
        return $engine['dispatch_queued_events'] === 0 && $engine['dispatch_in_flight_events'] === 0;
    }

    private function arrived(): int
    {
        return $this->bus()->stats()['engine']['data_in'];
    }

    public function until(callable $condition, string $what): void
    {
        for ($deadline = microtime(true) + self::PATIENCE; !$condition(); usleep(1000)) {
            microtime(true) < $deadline || fail("It took too long until $what.\n" . $this->server->stop());
            clearstatcache();
        }
    }
}

/** The other processes: a server whose workers count, or work. */
function serve(array $options): void
{
    $folder = $options['folder'];
    Worker::$pidFile = "$folder/workerman.pid";
    Worker::$logFile = "$folder/workerman.log";
    $server = new HeartbeatServer($options['host'], $options['port'], ['loop' => 'workerman', 'php_workers' => $options['workers'], 'bus' => "$folder/bus.sock",
        'inbox_events' => 10_000_000, 'inbox_bytes' => 1 << 40]);
    $server->on('start', fn () => file_put_contents("$folder/workers", getmypid() . "\n", FILE_APPEND));
    $events = $since = $cpu = 0;
    $server->on('data', $options['rounds'] > 0 ? fn () => work($options['rounds']) : function (Node $node, string $payload) use ($folder, &$events, &$since, &$cpu): void {
        if ($payload === WAIT) {
            touch("$folder/waits");
            while (!is_file("$folder/go")) {
                usleep(1000);
                clearstatcache();
            }
            [$since, $cpu] = [hrtime(true), cpu_seconds()];
            return;
        }
        $events++;
        if ($payload === LAST) {
            file_put_contents("$folder/part", json_encode([$events, (hrtime(true) - $since) / 1e9, cpu_seconds() - $cpu]));
            rename("$folder/part", "$folder/result");
        }
    });
    $server->start();
}

function work(int $rounds): void
{
    for ($text = 'work'; $rounds > 0; $rounds--) {
        $text = md5($text);
    }
}

function fail(string $text): never
{
    fwrite(STDERR, "$text.\n");
    exit(1);
}

/** Memory of a process, with its share of what it has in common with others. */
function proportional_megabytes(int $pid): float
{
    preg_match('/^Pss:\s+(\d+) kB/m', (string) @file_get_contents("/proc/$pid/smaps_rollup"), $found);
    return (int) ($found[1] ?? 0) / 1024;
}
