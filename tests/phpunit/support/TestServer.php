<?php

namespace Heartbus\Tests;

/** A HeartbeatServer in a process of its own, on a free port, ready to accept. */
final class TestServer
{
    private function __construct(public readonly PhpProcess $process, public readonly int $port, private readonly string $host)
    {
    }

    /**
     * @param array<string, mixed> $config of the server
     * @param string $script PHP that runs before the start, with `$server` in scope
     * @param array $options of PhpProcess, and 'host'
     */
    public static function start(array $config = [], string $script = '', array $options = []): self
    {
        $port = Port::free();
        $host = $options['host'] ?? '127.0.0.1';
        // Several servers run beside each other here, most with two nodes: two threads show everything four would.
        $config += ['loop' => 'native', 'worker_count' => 2, 'bus' => PhpProcess::folder() . "/$port.sock"];
        $process = PhpProcess::run(sprintf("\$server = new HeartbeatServer(%s, %d, %s);\n%s\nserve(\$server);", var_export($host, true), $port,
            var_export($config, true), $script), [], $options);
        $server = new self($process, $port, $host);
        $process->next('ready');
        return $server;
    }

    public function connect(): Peer
    {
        return Peer::connect($this->port, $this->host === '0.0.0.0' ? '127.0.0.1' : $this->host);
    }

    /** A connection that is registered. */
    public function node(string $id, mixed $metadata = []): Peer
    {
        $peer = $this->connect();
        $peer->register($id, $metadata);
        return $peer;
    }

    public function stats(): array
    {
        return $this->process->ask('return $server->getStats();');
    }

    /** One of the engine's counters. */
    public function counter(string $name): int
    {
        return $this->stats()['engine'][$name];
    }

    public function next(string $topic, float $seconds = 10): array
    {
        return $this->process->next($topic, $seconds);
    }

    public function ask(string $code, float $seconds = 10): mixed
    {
        return $this->process->ask($code, $seconds);
    }

    /** Stops it as Ctrl-C does. Returns the exit code. */
    public function stop(int $signal = SIGINT): int
    {
        $this->process->signal($signal);
        return $this->process->exitCode(20);
    }
}
