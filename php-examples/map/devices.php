<?php

/**
 * Simulated devices: each is a node with a connection of its own, drives through the streets of a made-up town and sends where it is twice a second.
 * They come and go: most say goodbye, some fall silent and are missed.
 */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;

require __DIR__ . '/../options.php';

const USAGE = <<<'TEXT'
Usage: php devices.php [N] [options]

Drives N devices (24) over the map of server.php until Ctrl-C.

  --host H     server (127.0.0.1)
  --port P     its port (9501)
  --name T     what their ids begin with (device)
  --steady     all stay: nobody comes and goes
  --attached   ends when its input does
  --help       this text

TEXT;

const SIZE = 1000;
/** Streets lead north and east, so far from each other. */
const BLOCK = 100;
const STEP = 0.5;
const KINDS = ['bus' => 45, 'van' => 35, 'bike' => 20];

[$options, $words] = read_options(USAGE, ['host' => '127.0.0.1', 'port' => 9501, 'name' => 'device', 'steady' => false, 'attached' => false]);
$size = filter_var($words[0] ?? '24', FILTER_VALIDATE_INT, ['options' => ['min_range' => 1, 'max_range' => 10000]]);
count($words) <= 1 && $size !== false || refuse_usage('N is one whole number, 1 to 10,000', USAGE);
require_extension();

/** One device: where it is, where it goes, and whether it is on the road. */
final class Device
{
    private ?HeartbeatClient $client = null;
    private bool $isOnline = false;
    /** When it leaves, or comes back. */
    private float $until = 0.0;
    private float $x;
    private float $y;
    /** @var array{0: int, 1: int} */
    private array $heading = [1, 0];

    public function __construct(private string $id, private string $kind, private array $options)
    {
        $this->x = BLOCK * random_int(1, SIZE / BLOCK - 1);
        $this->y = BLOCK * random_int(1, SIZE / BLOCK - 1);
        $this->turn();
    }

    public function step(float $now): void
    {
        if ($this->client === null) {
            $now >= $this->until && $this->come($now);
            return;
        }
        $this->drive(KINDS[$this->kind] * STEP);
        if ($this->isOnline) {
            $this->client->send(json_encode([round($this->x, 1), round($this->y, 1)]));
        }
        if ($now >= $this->until) {
            $this->leave($now);
        }
    }

    private function come(float $now): void
    {
        // Only heartbeats are a sign of life: one without falls silent, however much it sends.
        $isWeak = !$this->options['steady'] && random_int(1, 8) === 1;
        $this->client = new HeartbeatClient($this->options['host'], $this->options['port'], [
            'node_id' => $this->id,
            'metadata' => ['kind' => $this->kind],
            'heartbeat_interval' => $isWeak ? 60 : 1,
            'auto_reconnect' => !$isWeak,
            'reconnect_interval' => 1,
            'log_level' => 'off',
        ]);
        $this->until = $this->options['steady'] ? INF : $now + random_int(20, 90);
        $this->client->on('register', function (): void {
            $this->isOnline = true;
        });
        $this->client->on('close', function () use ($isWeak): void {
            $this->isOnline = false;
            $isWeak && $this->leave(microtime(true));
        });
        $this->client->connect();
    }

    private function leave(float $now): void
    {
        $this->client?->disconnect();
        $this->client = null;
        $this->isOnline = false;
        $this->until = $now + random_int(4, 15);
    }

    /** Along the street, and at a crossing perhaps around the corner. */
    private function drive(float $way): void
    {
        do {
            [$dx, $dy] = $this->heading;
            $along = $dx !== 0 ? $this->x : $this->y;
            $crossing = $dx + $dy > 0 ? BLOCK * floor($along / BLOCK + 1) : BLOCK * ceil($along / BLOCK - 1);
            $part = min($way, abs($crossing - $along));
            $way -= $part;
            $isThere = abs($crossing - $along) === $part;
            $along = $isThere ? $crossing : $along + ($dx + $dy) * $part;
            [$this->x, $this->y] = $dx !== 0 ? [$along, $this->y] : [$this->x, $along];
            $isThere && $this->turn();
        } while ($way > 0);
    }

    private function turn(): void
    {
        [$dx, $dy] = $this->heading;
        $ways = array_filter([[$dx, $dy], [$dx, $dy], [$dy, $dx], [-$dy, -$dx]], function (array $way): bool {
            [$x, $y] = [$this->x + BLOCK * $way[0], $this->y + BLOCK * $way[1]];
            return min($x, $y) >= BLOCK && max($x, $y) <= SIZE - BLOCK;
        });
        $this->heading = $ways === [] ? [-$dx, -$dy] : $ways[array_rand($ways)];
    }
}

$devices = [];
for ($number = 1; $number <= $size; $number++) {
    $devices[] = new Device(sprintf('%s-%02d', $options['name'], $number), array_keys(KINDS)[$number % count(KINDS)], $options);
}
stream_set_blocking(STDIN, false);
$next = microtime(true);
while (!$options['attached'] || !feof(STDIN)) {
    $options['attached'] && fread(STDIN, 64);
    foreach ($devices as $device) {
        $device->step($next);
    }
    $next = max($next + STEP, microtime(true) - STEP);
    do {
        HeartbeatClient::poll(max(0.001, min(STEP, $next - microtime(true))));
    } while (microtime(true) < $next);
}
