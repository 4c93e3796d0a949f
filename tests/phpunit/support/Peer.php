<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * The other end of one TCP connection, speaking v1 by hand: a raw client, or what a raw server accepted. It stays open until
 * the test closes it or ends: one that a test lets go of must not close at a moment that PHP chooses.
 */
final class Peer
{
    /** @var array<int, self> */
    private static array $open = [];
    private string $buffer = '';
    private bool $ended = false;

    /** @param resource $stream */
    public function __construct(private $stream)
    {
        stream_set_blocking($stream, false);
        self::$open[spl_object_id($this)] = $this;
    }

    public static function closeAll(): void
    {
        array_map(fn (self $peer) => $peer->close(), self::$open);
    }

    public static function connect(int $port, string $host = '127.0.0.1', string $from = '0'): self
    {
        $host = str_contains($host, ':') ? "[$host]" : $host;
        $stream = @stream_socket_client("tcp://$host:$port", $code, $message, 5, STREAM_CLIENT_CONNECT,
            stream_context_create(['socket' => ['tcp_nodelay' => true] + ($from === '0' ? [] : ['bindto' => "$from:0"])]));
        Assert::assertIsResource($stream, "connecting to $host port $port: $message");
        return new self($stream);
    }

    /** Connects again and again until a PING is answered: who listens may be a probe that closes at once. */
    public static function served(int $port): self
    {
        $peer = null;
        Wait::until(function () use ($port, &$peer): bool {
            if ($peer === null || $peer->hasEnded()) {
                $peer?->close();
                $stream = @stream_socket_client("tcp://127.0.0.1:$port", timeout: 5);
                $peer = $stream ? (new self($stream))->send(Frame::PING) : null;
            }
            return $peer !== null && $peer->peek(0.01) !== '' && $peer->receive()?->type === Frame::PONG;
        }, "port $port is served", 20);
        return $peer;
    }

    /** Sends bytes as they are. Returns how many were taken before the other side closed or the time was over. */
    public function bytes(string $bytes, float $seconds = 10): int
    {
        $deadline = microtime(true) + $seconds;
        $sent = 0;
        while ($sent < strlen($bytes) && microtime(true) < $deadline) {
            $taken = @fwrite($this->stream, substr($bytes, $sent, 1 << 20));
            if ($taken === false) {
                break;
            }
            $sent += $taken;
            if ($taken === 0) {
                usleep(500);
            }
        }
        return $sent;
    }

    public function send(int $type, string $payload = '', int $channel = 0): self
    {
        $this->bytes(Frame::bytes($type, $payload, $channel));
        return $this;
    }

    /** Registers and returns the reply, decoded. */
    public function register(string $nodeId, mixed $metadata = []): array
    {
        $this->bytes(Frame::registration($nodeId, $metadata));
        return $this->expect(Frame::REGISTER)->json();
    }

    /** Sends a heartbeat and sees it answered. */
    public function beat(int $channel = 0): Frame
    {
        $this->bytes(Frame::heartbeat($channel));
        return $this->expect(Frame::HEARTBEAT_RES);
    }

    /** Subscribes and returns the answer, decoded. */
    public function subscribe(string $filter, array $since = []): array
    {
        return $this->send(Frame::SUBSCRIBE, json_encode(['filter' => $filter] + $since))->expect(Frame::SUBSCRIBE)->json();
    }

    /** The next frame, which must be a message of a topic. @return array{0: string, 1: string} topic and data */
    public function message(): array
    {
        $message = $this->expect(Frame::MESSAGE)->json();
        return [$message['topic'], $message['data']];
    }

    /** The next frame; null once the other side has closed. */
    public function receive(float $seconds = 10): ?Frame
    {
        $deadline = microtime(true) + $seconds;
        while (($frame = $this->parse()) === null) {
            if ($this->ended) {
                Assert::assertSame('', $this->buffer, 'the connection ended inside of a frame');
                return null;
            }
            $left = $deadline - microtime(true);
            if ($left <= 0) {
                Assert::fail("no frame and no end of the connection within $seconds s");
            }
            $this->fill($left);
        }
        return $frame;
    }

    /** The next frame, which must be of this type. */
    public function expect(int $type, float $seconds = 10): Frame
    {
        $frame = $this->receive($seconds);
        Assert::assertNotNull($frame, "a frame of type $type was expected, but the connection was closed");
        Assert::assertSame($type, $frame->type, "a frame of type $type was expected, with it came: {$frame->payload}");
        return $frame;
    }

    public function expectError(int $code, string $message): void
    {
        Assert::assertSame(['message' => $message, 'code' => $code], $this->expect(Frame::ERROR)->json());
    }

    public function expectClosed(float $seconds = 10): void
    {
        $frame = $this->receive($seconds);
        Assert::assertNull($frame, 'the end of the connection was expected, not a frame: ' . ($frame->payload ?? ''));
    }

    /** Nothing was answered so far: a PING sent now is the next thing that is. */
    public function expectSilence(): void
    {
        $this->send(Frame::PING);
        $this->expect(Frame::PONG);
    }

    /** Whatever is there to read now, without waiting for frames. Returns what has arrived and was not parsed yet. */
    public function peek(float $seconds = 0): string
    {
        $this->fill($seconds);
        return $this->buffer;
    }

    public function hasEnded(): bool
    {
        do {
            $before = strlen($this->buffer);
            $this->fill(0);
        } while (strlen($this->buffer) > $before);
        return $this->ended;
    }

    public function close(): void
    {
        @fclose($this->stream);
        unset(self::$open[spl_object_id($this)]);
    }

    /** Says that we will send no more; we can still read. */
    public function finish(): void
    {
        stream_socket_shutdown($this->stream, STREAM_SHUT_WR);
    }

    /** Ends the connection with a reset, like a machine that lost it. */
    public function reset(): void
    {
        socket_set_option(socket_import_stream($this->stream), SOL_SOCKET, SO_LINGER, ['l_onoff' => 1, 'l_linger' => 0]);
        $this->close();
    }

    /** Reads what is there, waiting for at most this long. A read with a timeout, not a select, which ends at descriptor 1024. */
    private function fill(float $seconds): void
    {
        if ($this->ended) {
            return;
        }
        if ($seconds > 0) {
            stream_set_blocking($this->stream, true);
            stream_set_timeout($this->stream, (int) $seconds, (int) (fmod($seconds, 1) * 1e6));
        }
        $bytes = @fread($this->stream, 1 << 16);
        stream_set_blocking($this->stream, false);
        if ($bytes === false || ($bytes === '' && feof($this->stream))) {
            $this->ended = true;
        } else {
            $this->buffer .= $bytes;
        }
    }

    private function parse(): ?Frame
    {
        if (strlen($this->buffer) < 7) {
            return null;
        }
        ['magic' => $magic, 'type' => $type, 'length' => $length] = unpack('nmagic/Ctype/Nlength', $this->buffer);
        if ($magic === 0xAB13) {
            return $this->parseV2();
        }
        Assert::assertSame(0xAB12, $magic, 'what arrived is no frame: ' . bin2hex(substr($this->buffer, 0, 32)));
        if (strlen($this->buffer) < 7 + $length) {
            return null;
        }
        $body = json_decode(substr($this->buffer, 7, $length), true, flags: JSON_THROW_ON_ERROR);
        Assert::assertSame(['channel_id', 'payload'], array_keys($body));
        $this->buffer = substr($this->buffer, 7 + $length);
        return new Frame($type, $body['payload'], $body['channel_id']);
    }

    private function parseV2(): ?Frame
    {
        if (strlen($this->buffer) < 12) {
            return null;
        }
        ['type' => $type, 'flags' => $flags, 'length' => $length, 'channel' => $channel] = unpack('nmagic/Ctype/Cflags/Nlength/Nchannel', $this->buffer);
        Assert::assertSame(0, $flags);
        if (strlen($this->buffer) < 12 + $length) {
            return null;
        }
        $payload = substr($this->buffer, 12, $length);
        $this->buffer = substr($this->buffer, 12 + $length);
        return new Frame($type, $payload, $channel, 2);
    }
}
