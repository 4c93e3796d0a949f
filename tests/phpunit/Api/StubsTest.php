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
        // Less what is inside of a value.
        preg_match_all('/(\w+)\?:/', preg_replace('/array\{[^{}]*\}/', '', $found[1]), $keys);
        return $keys[1];
    }

    /** @return array<string, array{0: string, 1: list<string>}> */
    public static function events(): array
    {
        $server = new \PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer();
        try {
            $server->on('none', fn () => 1);
        } catch (\InvalidArgumentException $refusal) {
            preg_match('/there are: ([^)]+)\)/', $refusal->getMessage(), $found);
        }
        return [
            'a server' => ['PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer::on', explode(', ', $found[1])],
            'a client' => ['PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient::on', self::ofClient()],
        ];
    }

    /**
     * A client takes any name, and says of one that it does not know, once, that there is none.
     *
     * @return list<string>
     */
    private static function ofClient(): array
    {
        $page = file_get_contents(dirname(__DIR__, 3) . '/README.md');
        [, $table] = explode("| Client: `on(...)` |", $page, 2);
        preg_match_all('/^\| ((?:`[\w.]+`(?:, )?)+) \|/m', explode("\n\n", $table, 2)[0], $rows);
        preg_match_all('/`([\w.]+)`/', implode(' ', $rows[1]), $names);
        return $names[1];
    }

    /** @dataProvider events */
    public function test_the_words_on_on_have_every_event_with_the_arguments_of_the_readme(string $method, array $events): void
    {
        $docs = require dirname(__DIR__, 3) . '/php-ext/stubs/docs.php';
        self::assertGreaterThan(8, count($events));
        $page = file_get_contents(dirname(__DIR__, 3) . '/README.md');
        foreach ($events as $event) {
            self::assertSame(1, preg_match('/(?<![\w.])' . preg_quote($event) . '\s+\(([^)]*)\)/', $docs[$method], $told), $event);
            $whose = str_contains($method, 'Server') ? 'Server' : 'Client';
            $table = explode("\n\n", explode("| $whose: `on(...)` |", $page, 2)[1], 2)[0];
            self::assertSame(1, preg_match('/^\| (?:`[\w.]+`, )*`' . preg_quote($event) . '`(?:, `[\w.]+`)* \| ([^|]+) \|/m', $table, $row), "$event in the README");
            $arguments = substr_count($row[1], '$');
            self::assertSame($arguments, $told[1] === '' ? 0 : substr_count($told[1], ',') - substr_count($told[1], 'code: int}') + 1, "the arguments of $event");
        }
        if (preg_match("/@param ((?:'[\w.]+'\|?)+) \\\$event/", $docs[$method], $type)) {
            preg_match_all("/'([\w.]+)'/", $type[1], $names);
            self::assertEqualsCanonicalizing($events, $names[1]);
        } else {
            self::assertStringContainsString('Client', $method, 'a server refuses other events');
        }
        $pages = ['docs/MIGRATION.md', 'docs/MIGRATION.zh-CN.md'];
        foreach (str_contains($method, 'Server') ? $pages : [] as $name) {
            $text = file_get_contents(dirname(__DIR__, 3) . "/$name");
            self::assertSame(1, preg_match('/`on\(\)`[^`]{1,20}(`connect`[^)）]+)[)）]/u', $text, $list), $name);
            preg_match_all('/`([\w.]+)`/', $list[1], $names);
            self::assertEqualsCanonicalizing($events, $names[1], $name);
        }
    }

    public function test_a_client_has_every_event_of_the_readme(): void
    {
        $events = var_export([...self::ofClient(), 'no.such'], true);
        $process = $this->script("foreach ($events as \$event) { (\$client ??= new HeartbeatClient('127.0.0.1', 1))->on(\$event, fn () => 1); } say('done');");
        $process->next('done');
        self::assertSame(0, $process->exitCode());
        preg_match_all("/A client has no event '([^']+)'/", $process->errors(), $unknown);
        self::assertSame(['no.such'], $unknown[1]);
    }

    public function test_every_call_of_the_bus_names_what_it_may_throw(): void
    {
        $docs = require dirname(__DIR__, 3) . '/php-ext/stubs/docs.php';
        foreach ((new \ReflectionClass(\Heartbus\Bus::class))->getMethods(\ReflectionMethod::IS_PUBLIC) as $method) {
            // What asks no server.
            if (in_array($method->getName(), ['getSocket', 'unsubscribe', 'run', 'poll', 'getEventStream'], true)) {
                continue;
            }
            foreach (['IoException', 'TimeoutException', 'ClosedException', 'ProtocolException'] as $exception) {
                self::assertStringContainsString("@throws \\Heartbus\\Exception\\$exception ", $docs["Heartbus\\Bus::{$method->getName()}"] ?? '', $method->getName());
            }
        }
    }
}
