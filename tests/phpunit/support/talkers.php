<?php

/** The process of a Crowd: talkers.php PORT SIZE SECONDS-PER-ROUND. */

namespace Heartbus\Tests;

require __DIR__ . '/Frame.php';
require __DIR__ . '/prelude.php';

final class Talker
{
    private string $unread = '';
    private string $unsent;
    public int $beats = 0;
    /** @var array<int, int> how many frames of each type have come */
    public array $came = [];
    public bool $isClosed = false;

    /** @param resource $stream */
    public function __construct(private $stream, string $id)
    {
        stream_set_blocking($stream, false);
        $this->unsent = Frame::registration($id);
    }

    public function say(int $number): void
    {
        $this->unsent .= Frame::bytes(Frame::DATA, (string) $number);
    }

    public function beat(): void
    {
        $this->unsent .= Frame::heartbeat();
        $this->beats++;
    }

    public function turn(): void
    {
        if ($this->unsent !== '' && !$this->isClosed) {
            $this->unsent = substr($this->unsent, (int) @fwrite($this->stream, $this->unsent));
        }
        $read = $this->isClosed ? '' : @fread($this->stream, 65536);
        $this->isClosed = $this->isClosed || $read === false || $read === '' && feof($this->stream);
        $this->unread .= $read;
        while (strlen($this->unread) >= 7 && strlen($this->unread) >= 7 + ($header = unpack('nmagic/Ctype/Nlength', $this->unread))['length']) {
            $this->came[$header['type']] = ($this->came[$header['type']] ?? 0) + 1;
            $this->unread = substr($this->unread, 7 + $header['length']);
        }
    }
}

$crowd = new class((int) $argv[2]) {
    public bool $isTalking = true;
    private int $rounds = 0;
    /** @var list<Talker> */
    private array $talkers = [];

    public function __construct(private int $size)
    {
    }

    public function join(int $port): void
    {
        for ($number = 0; $number < $this->size; $number++) {
            $this->talkers[] = new Talker(stream_socket_client("tcp://127.0.0.1:$port", timeout: 30), "n$number");
            $this->talkers[$number]->turn();
        }
        while ($this->count(Frame::REGISTER) < $this->size) {
            $this->turn();
            usleep(1000);
        }
    }

    public function speak(): void
    {
        if ($this->isTalking) {
            $this->rounds++;
            foreach ($this->talkers as $number => $talker) {
                $talker->say($this->rounds);
                ($this->rounds + $number) % 5 === 0 && $talker->beat();
            }
        }
    }

    public function turn(): void
    {
        array_map(fn (Talker $talker) => $talker->turn(), $this->talkers);
    }

    private function count(int $type): int
    {
        return array_sum(array_map(fn (Talker $talker) => $talker->came[$type] ?? 0, $this->talkers));
    }

    public function totals(): array
    {
        return [
            'rounds' => $this->rounds,
            'beats' => array_sum(array_map(fn (Talker $talker) => $talker->beats, $this->talkers)),
            'answers' => $this->count(Frame::HEARTBEAT_RES),
            'closed' => count(array_filter($this->talkers, fn (Talker $talker) => $talker->isClosed)),
            'errors' => $this->count(Frame::ERROR),
        ];
    }
};

['hard openfiles' => $descriptors] = posix_getrlimit();
posix_setrlimit(POSIX_RLIMIT_NOFILE, $descriptors, $descriptors);
stream_set_blocking(STDIN, false);
$crowd->join((int) $argv[1]);
\say('joined');
for ($next = microtime(true);;) {
    if (microtime(true) >= $next) {
        $next = microtime(true) + (float) $argv[3];
        $crowd->speak();
    }
    $crowd->turn();
    \answer(['crowd' => $crowd]);
    usleep(5000);
}
