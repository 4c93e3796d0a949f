<?php

namespace Heartbus\Tests\Processes;

use Heartbus\{Bus, Host};
use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, TestCase};

/** `Heartbus\Host`: a server without PHP code. */
final class HostTest extends TestCase
{
    private string $socket;
    private int $port;

    protected function setUp(): void
    {
        $this->socket = PhpProcess::folder() . '/bus.sock';
        $this->port = Port::free();
    }

    public function test_it_serves_until_a_signal_comes_and_returns(): void
    {
        foreach ([SIGINT, SIGTERM] as $signal) {
            $process = $this->host();
            $peer = Peer::connect($this->port);
            $peer->register('a');
            $peer->beat();
            $bus = Bus::connect($this->socket, 10.0);
            self::assertTrue($bus->sendTo('a', 'hello'));
            self::assertSame('hello', $peer->expect(Frame::DATA)->payload);
            $stats = $bus->stats();
            self::assertSame([$process->pid(), $this->port, 'alone'], [$stats['server']['pid'], $stats['server']['port'], $stats['server']['name']]);
            $process->signal($signal);
            $peer->expectError(503, 'Server is shutting down');
            $peer->expectClosed();
            $process->next('returned');
            self::assertSame(0, $process->exitCode());
            self::assertSame('', $process->errors());
            self::assertFileDoesNotExist($this->socket);
        }
    }

    public function test_messages_that_nobody_hears_cost_no_queue(): void
    {
        $this->host();
        $peer = Peer::connect($this->port);
        $peer->register('a');
        for ($number = 0; $number < 1000; $number++) {
            $peer->send(Frame::DATA, 'x');
        }
        $peer->expectSilence();
        $engine = Bus::connect($this->socket, 10.0)->stats()['engine'];
        self::assertSame([1000, 0, 0, 0], [$engine['data_in'], $engine['inbox_queued_events'], $engine['dispatch_queued_events'], $engine['reads_paused_by_host']]);
    }

    public function test_wrong_configurations_are_told(): void
    {
        $port = Port::free();
        $refusals = [
            "['port' => 0]" => 'Invalid port: 0',
            "['host' => '*', 'port' => $port]" => 'Invalid host: *',
            "['port' => $port, 'heartbeat_timeout' => 0.5]" => 'heartbeat_timeout must be >= 1 second',
            "['port' => $port, 'php_workers' => 2]" => "'php_workers' => 2 or more needs Workerman",
        ];
        foreach ($refusals as $config => $text) {
            $process = $this->script("try { Heartbus\Host::run($config); } catch (RuntimeException \$e) { say('refused', \$e->getMessage()); }");
            self::assertStringContainsString($text, $process->next('refused')[0]);
            self::assertSame(0, $process->exitCode());
        }
    }

    public function test_it_has_no_objects(): void
    {
        self::assertTrue((new \ReflectionClass(Host::class))->isFinal());
        self::assertFalse((new \ReflectionClass(Host::class))->isInstantiable());
    }

    private function host(): PhpProcess
    {
        $process = $this->script("Heartbus\Host::run(['host' => '127.0.0.1', 'port' => $this->port, 'bus' => '$this->socket', 'name' => 'alone', 'worker_count' => 2]);
            say('returned');");
        $this->until(fn () => file_exists($this->socket), 'it has its socket');
        Peer::served($this->port)->close();
        return $process;
    }
}
