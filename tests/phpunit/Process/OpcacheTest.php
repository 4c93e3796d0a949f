<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{Frame, TestCase};

/** The extension under opcache with its JIT: hot callbacks, hot value classes. */
final class OpcacheTest extends TestCase
{
    private const JIT = ['opcache.enable_cli=1', 'opcache.jit=tracing', 'opcache.jit_buffer_size=64M', 'opcache.jit_hot_func=2', 'opcache.jit_hot_loop=2'];

    protected function setUp(): void
    {
        if (!extension_loaded('Zend OPcache')) {
            self::markTestSkipped('PHP has no opcache here');
        }
    }

    public function test_the_jit_is_on_and_messages_and_nodes_stay_right_in_hot_loops(): void
    {
        $process = $this->script('
            say("jit", opcache_get_status()["jit"]["on"]);
            $wrong = 0;
            function once(int $i): bool {
                $message = Message::decode((new Message(3, "payload $i é", $i))->encode());
                $message->channelId += 1;
                $node = new Node("n$i", "127.0.0.1", $i, $i);
                $node->updateHeartbeat();
                $node->setMetadata("k", $i);
                $node->heartbeatCount++;
                return $message->payload === "payload $i é" && $message->channelId === $i + 1 && $message->type === 3
                    && $node->heartbeatCount === 2 && $node->getMetadata("k") === $i && $node->id === "n$i";
            }
            for ($i = 0; $i < 50000; $i++) { $wrong += !once($i); }
            say("wrong", $wrong);', [], ['ini' => self::JIT]);
        self::assertSame([true], $process->next('jit'));
        self::assertSame([0], $process->next('wrong', 30));
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_server_s_hot_callbacks_stay_right(): void
    {
        $server = $this->server([], '
            $server->on("data", function (Node $node, string $payload, int $channel) use ($server) {
                if (!$server->sendTo($node->id, strrev($payload), $channel)) { throw new Exception("not sent"); }
            });', ['ini' => self::JIT]);
        $peer = $server->node('a');
        for ($i = 0; $i < 20_000; $i += 200) {
            $peer->bytes(implode('', array_map(fn (int $n) => Frame::bytes(Frame::DATA, "message $n"), range($i, $i + 199))));
            for ($n = $i; $n < $i + 200; $n++) {
                self::assertSame(strrev("message $n"), $peer->expect(Frame::DATA)->payload);
            }
        }
        self::assertSame(0, $server->stop());
    }

    public function test_exit_and_exceptions_in_hot_callbacks_end_as_they_should(): void
    {
        foreach (['exit(7);' => 7, 'throw new Exception("hot");' => 255] as $end => $code) {
            $server = $this->server([], "\$server->on('data', function (Node \$node, string \$payload) { if (\$payload === '999') { $end } });", ['ini' => self::JIT]);
            $peer = $server->node('a');
            $peer->bytes(implode('', array_map(fn (int $n) => Frame::bytes(Frame::DATA, (string) $n), range(0, 1100))));
            self::assertSame($code, $server->process->exitCode(10));
        }
    }
}
