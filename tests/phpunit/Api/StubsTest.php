<?php

namespace Heartbus\Tests\Api;

use Heartbus\Tests\TestCase;

/** What editors are told of configurations is what the README has. */
final class StubsTest extends TestCase
{
    /** @return array<string, array{0: string, 1: string}> */
    public static function configurations(): array
    {
        return ['a server' => ['Server', 'PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer::__construct'],
            'a client' => ['Client', 'PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient::__construct']];
    }

    /** @dataProvider configurations */
    public function test_the_shape_of_a_configuration_has_the_keys_of_the_readme(string $whose, string $method): void
    {
        foreach (['README.md' => "\n$whose:\n\n", 'README.zh-CN.md' => $whose === 'Server' ? "\n服务端：\n\n" : "\n客户端：\n\n"] as $page => $heading) {
            $text = file_get_contents(dirname(__DIR__, 3) . "/$page");
            $table = explode("\n\n", explode($heading, substr($text, strpos($text, '| `heartbeat_timeout` |') - 200), 2)[1] ?? '')[0];
            preg_match_all('/^\| (`[^|]+) \|/m', $table, $rows);
            preg_match_all('/`(\w+)`/', implode(' ', $rows[1]), $keys);
            self::assertGreaterThan(10, count($keys[1]), $page);
            self::assertEqualsCanonicalizing($keys[1], $this->shape($method), $page);
        }
    }

    /** @return list<string> */
    private function shape(string $method): array
    {
        $docs = require dirname(__DIR__, 3) . '/php-ext/stubs/docs.php';
        self::assertSame(1, preg_match('/@param array\{(.+)\} \$config/', $docs[$method], $found));
        preg_match_all('/(\w+)\?:/', $found[1], $keys);
        return $keys[1];
    }

    public function test_every_call_of_the_bus_names_what_it_may_throw(): void
    {
        $docs = require dirname(__DIR__, 3) . '/php-ext/stubs/docs.php';
        foreach ((new \ReflectionClass(\Heartbus\Bus::class))->getMethods(\ReflectionMethod::IS_PUBLIC) as $method) {
            if ($method->getName() === 'getSocket') {
                continue;
            }
            foreach (['IoException', 'TimeoutException', 'ClosedException', 'ProtocolException'] as $exception) {
                self::assertStringContainsString("@throws \\Heartbus\\Exception\\$exception ", $docs["Heartbus\\Bus::{$method->getName()}"] ?? '', $method->getName());
            }
        }
    }
}
