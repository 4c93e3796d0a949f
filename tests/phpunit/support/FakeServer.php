<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/** A server played by the test itself, frame by frame: half-open, silent, rude, or the original PHP library's. */
final class FakeServer
{
    /** @param resource $listener */
    private function __construct(private $listener, public readonly int $port)
    {
    }

    public static function listen(?int $port = null): self
    {
        $port ??= Port::free();
        $listener = stream_socket_server("tcp://127.0.0.1:$port", $code, $message);
        Assert::assertIsResource($listener, $message);
        return new self($listener, $port);
    }

    public function accept(float $seconds = 10): Peer
    {
        $stream = @stream_socket_accept($this->listener, $seconds);
        Assert::assertIsResource($stream, "no client connected within $seconds s");
        return new Peer($stream);
    }

    /** Whether a client is waiting to be accepted, after at most this long. */
    public function isCalled(float $seconds): bool
    {
        $read = [$this->listener];
        $write = $except = null;
        return (bool) stream_select($read, $write, $except, (int) $seconds, (int) (fmod($seconds, 1) * 1e6));
    }

    /** Accepts a client and answers its REGISTER. @return array{0: Peer, 1: array} the connection and what the REGISTER said */
    public function register(int $channel = 7, float $seconds = 10): array
    {
        $peer = $this->accept($seconds);
        $request = $peer->expect(Frame::REGISTER)->json();
        $peer->send(Frame::REGISTER, json_encode(['node_id' => $request['node_id'], 'metadata' => ['channel_id' => $channel, 'status' => 'ok',
            'server_time' => microtime(true)], 'timestamp' => microtime(true), 'channel_id' => $channel]));
        return [$peer, $request];
    }

    /** Nobody listens any more: not only closed, because processes that were started meanwhile hold copies. */
    public function close(): void
    {
        stream_socket_shutdown($this->listener, STREAM_SHUT_RDWR);
        fclose($this->listener);
    }
}
