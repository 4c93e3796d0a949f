<?php

/**
 * How fast it is, on this machine, with a server in a process of its own: heartbeats, messages into PHP, echoes through PHP.
 *
 * Heartbeats and messages come from raw sockets with ready-made frames, because a client that makes each of its frames
 * would be what is measured. Echoes go through HeartbeatClient, as an application's do.
 */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Protocol\Message;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/options.php';
require __DIR__ . '/processes.php';

const USAGE = <<<'TEXT'
Usage: php benchmark.php [options]

Measures heartbeats, messages to PHP, and echo round trips, against a server that it starts.

  --seconds S   how long each part is measured, after half a second that does not count (3)
  --bytes N     length of a message (64)
  --serve W     be the server of a part: heartbeats, messages or echoes; needs --port
  --host H      address to serve on (127.0.0.1)
  --port P      port to serve on (0)
  --help        this text

TEXT;

const WARM_UP = 0.5;
/** How many seconds longer a busy machine may take until the first answer. */
const PATIENCE = 10.0;
/** Raw connections, and how many frames each has under way: it sends so many, and so many more when they are answered. */
const CONNECTIONS = 8;
const BLOCK = 200;
/** What a node sends to be told how many messages PHP has had from it. */
const QUESTION = 'how many?';

[$options, $words] = read_options(USAGE, ['seconds' => 3.0, 'bytes' => 64, 'serve' => '', 'host' => '127.0.0.1', 'port' => 0]);
$words === [] || refuse_usage("unknown argument '$words[0]'", USAGE);
$options['bytes'] >= 1 && $options['seconds'] > 0 || refuse_usage('--bytes and --seconds are greater than 0', USAGE);
require_extension();
if ($options['serve'] !== '') {
    serve($options);
    exit(0);
}
end_in_order();

printf("Heartbus %s, PHP %s, %s, load before the start %.1f. Messages of %d bytes.\n", phpversion('heartbus'), PHP_VERSION, processor(),
    sys_getloadavg()[0], $options['bytes']);
echo "The server and what keeps it busy share these cores. A part takes " . WARM_UP . ' + ' . $options['seconds'] . " s.\n\n";

$message = str_repeat('x', $options['bytes']);
$parts = [
    ['heartbeats', 'heartbeats', fn (Part $part) => $part->flood(Message::createHeartbeatRequest()->encode(), perAnswer: 1)],
    ['messages to PHP', 'messages', fn (Part $part) => $part->flood(Message::createData($message)->encode(), perAnswer: BLOCK, question: QUESTION)],
    ['echoes, 1 client', 'echoes', fn (Part $part) => $part->echo($message, 1)],
    ['echoes, 64 clients', 'echoes', fn (Part $part) => $part->echo($message, 64)],
];
echo <<<'TEXT'
                                      CPU of the server  of the load      round trip
                       per second    for each    in all       in all      p50      p90      p99      max

TEXT;
$line = new StatusLine();
foreach ($parts as [$name, $serves, $measure]) {
    stream_isatty(STDOUT) && $line->show("$name...");
    $part = new Part($serves, $options['seconds']);
    $measure($part);
    $part->end();
    $line->show(sprintf('%-18s %14s %8.2f µs %7.0f %% %10.0f %%', $name, number_format($part->perSecond()), $part->microsecondsEach(),
        $part->serverLoad(), $part->ownLoad()) . implode(array_map(duration(...), $part->percentiles())));
    $line->end();
}
printf("\n100 %% is one core; where the load takes about that much, it was the load that could not do more, not the server.\n"
    . "Heartbeats and messages come %d at a time on each of %d connections. One by one, each costs more: stress_test.php shows it.\n", BLOCK, CONNECTIONS);

/** One measurement: a server, something that keeps it busy, and what both have done between the warm-up and the end. */
final class Part
{
    private ServerProcess $server;
    private int $operations = 0;
    /** @var list<int> nanoseconds */
    private array $times = [];
    /** @var array{at: float, operations: int, server: float, own: float} when the warm-up was over, and at the end */
    private array $before, $after;

    public function __construct(string $serves, private float $seconds)
    {
        $this->server = new ServerProcess(__FILE__, '127.0.0.1', '--serve', $serves);
    }

    /**
     * Sends blocks of one frame on several connections, each block when the one before is answered.
     *
     * @param int $perAnswer how many frames one answer stands for
     * @param ?string $question what to ask at the end of a block, where frames are not answered one by one
     */
    public function flood(string $frame, int $perAnswer, ?string $question = null): void
    {
        $block = str_repeat($frame, BLOCK) . ($question === null ? '' : Message::createData($question)->encode());
        $sockets = $unanswered = $tails = [];
        for ($number = 0; $number < CONNECTIONS; $number++) {
            $socket = stream_socket_client("tcp://127.0.0.1:{$this->server->port}");
            fwrite($socket, Message::createRegister("flood-$number")->encode());
            while (Message::decode($tails[$number] = ($tails[$number] ?? '') . fread($socket, 8192)) === null) {
                feof($socket) && fail('The server closed a connection');
            }
            $sockets[$number] = $socket;
            $tails[$number] = '';
            $unanswered[$number] = BLOCK;
            fwrite($socket, $block);
        }
        $answer = pack('nC', Message::MAGIC, $question === null ? Message::TYPE_HEARTBEAT_RES : Message::TYPE_DATA);
        $this->measure(function () use ($sockets, $block, $answer, $perAnswer, &$unanswered, &$tails): void {
            $read = $sockets;
            $write = $except = null;
            stream_select($read, $write, $except, 1);
            foreach ($read as $number => $socket) {
                $bytes = $tails[$number] . fread($socket, 65536);
                feof($socket) && fail('The server closed a connection');
                $answered = substr_count($bytes, $answer) * $perAnswer; // a body is ASCII: the magic number is only where a frame begins
                $tails[$number] = substr($bytes, -(strlen($answer) - 1));
                $this->operations += $answered;
                if (($unanswered[$number] -= $answered) === 0) {
                    $unanswered[$number] = BLOCK;
                    fwrite($socket, $block);
                }
            }
        });
    }

    /** Clients with one message each on its way: as soon as it is back, it goes out again. */
    public function echo(string $message, int $size): void
    {
        for ($number = 0; $number < $size; $number++) {
            $client = new HeartbeatClient('127.0.0.1', $this->server->port, ['log_level' => 'off']);
            $sentAt = 0;
            $send = function () use ($client, $message, &$sentAt): void {
                $sentAt = hrtime(true);
                $client->send($message) || fail('A message was not taken');
            };
            $client->on('register', $send);
            $client->on('data', function (string $payload) use ($message, $send, &$sentAt): void {
                $this->times[] = hrtime(true) - $sentAt;
                $this->operations++;
                $payload === $message || fail('What came back was not what was sent');
                $send();
            });
            $client->on('close', fn () => fail('A connection was lost'));
            $client->connect();
            $clients[] = $client;
            unset($sentAt); // each has its own
        }
        $this->measure(fn () => HeartbeatClient::poll(1));
        foreach ($clients as $client) {
            $client->on('data', fn () => null);
            $client->on('close', fn () => null);
            $client->disconnect();
        }
        HeartbeatClient::run();
    }

    private function measure(callable $turn): void
    {
        $this->repeat($turn, WARM_UP);
        $this->times = [];
        $this->before = $this->now();
        $this->repeat($turn, $this->seconds);
        $this->after = $this->now();
    }

    /** Ends the server, which must have had nothing to complain about. */
    public function end(): void
    {
        $said = $this->server->stop();
        $said === '' || fail("The server said:\n$said");
    }

    /** For so long, and then until something has come back. */
    private function repeat(callable $turn, float $seconds): void
    {
        [$before, $end] = [$this->operations, microtime(true) + $seconds];
        while (($now = microtime(true)) < $end || ($this->operations === $before && $now < $end + PATIENCE)) {
            $turn();
        }
        $this->operations > $before || fail('Nothing came back');
    }

    private function now(): array
    {
        return ['at' => microtime(true), 'operations' => $this->operations, 'server' => $this->server->cpuSeconds(), 'own' => cpu_seconds()];
    }

    private function gone(string $what): float
    {
        return $this->after[$what] - $this->before[$what];
    }

    public function perSecond(): float
    {
        return $this->gone('operations') / $this->gone('at');
    }

    public function microsecondsEach(): float
    {
        return 1e6 * $this->gone('server') / max(1, $this->gone('operations'));
    }

    /** In percent of one core. */
    public function serverLoad(): float
    {
        return 100 * $this->gone('server') / $this->gone('at');
    }

    public function ownLoad(): float
    {
        return 100 * $this->gone('own') / $this->gone('at');
    }

    /** @return list<float> seconds that 50, 90, 99 and 100 % of the round trips took at most; none if they were not timed */
    public function percentiles(): array
    {
        sort($this->times);
        $last = count($this->times) - 1;
        return $last < 0 ? [] : array_map(fn (float $part): float => $this->times[(int) round($part * $last)] / 1e9, [0.5, 0.9, 0.99, 1.0]);
    }
}

/** The other process: a server that has nothing to do but what is measured. */
function serve(array $options): void
{
    $server = new HeartbeatServer($options['host'], $options['port'], ['loop' => 'native', 'max_connections' => 100]);
    $counts = [];
    match ($options['serve']) {
        'heartbeats' => null, // the engine answers them; PHP has no part in it
        'messages' => $server->on('data', function (Node $node, string $payload) use ($server, &$counts): void {
            if ($payload !== QUESTION) {
                $counts[$node->id] = ($counts[$node->id] ?? 0) + 1;
            } elseif ($counts[$node->id] % BLOCK === 0) {
                $server->sendTo($node->id, (string) $counts[$node->id]);
            } else {
                fwrite(STDERR, "messages of $node->id are missing: {$counts[$node->id]} came\n");
            }
        }),
        'echoes' => $server->on('data', function (Node $node, string $payload, int $channelId) use ($server): void {
            $server->sendTo($node->id, $payload, $channelId);
        }),
        default => refuse_usage("--serve heartbeats, messages or echoes, not '{$options['serve']}'", USAGE),
    };
    $server->start();
}

function fail(string $text): never
{
    fwrite(STDERR, "$text.\n");
    exit(1);
}

/** In nine columns; sprintf() would count the bytes of µ. */
function duration(float $seconds): string
{
    return $seconds < 0.001 ? sprintf('%6.0f µs', $seconds * 1e6) : sprintf('%6.1f ms', $seconds * 1e3);
}

/** How many cores there are, and of what kind. */
function processor(): string
{
    $known = (string) @file_get_contents('/proc/cpuinfo');
    preg_match('/^model name\s*: (.+)$/m', $known, $model);
    return max(1, preg_match_all('/^processor\s*:/m', $known)) . ' × ' . ($model[1] ?? 'an unknown processor');
}
