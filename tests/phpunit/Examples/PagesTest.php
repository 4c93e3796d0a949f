<?php

namespace Heartbus\Tests\Examples;

use Heartbus\Tests\{JavaScript, PhpProcess, Port, TestCase};

/** The examples that are pages, in a browser, as a person uses them. */
final class PagesTest extends TestCase
{
    private const FOLDER = __DIR__ . '/../../../php-examples';

    public function test_people_chat_see_who_is_there_and_go_on_when_the_server_was_away(): void
    {
        JavaScript::needBrowser();
        [$port, $web] = [Port::free(), Port::free()];
        $server = $this->example('chat/server', '--port', $port, '--web', "127.0.0.1:$web");
        $this->until(fn () => str_contains($server->output(), "http://127.0.0.1:$web"), 'it says where the page is');
        $script = JavaScript::start('chat.mjs', "http://127.0.0.1:$web/", JavaScript::browserFolder(), ...$this->screenshot('chat'));
        $script->untilItSays('stop');
        // Its web server goes with it, and is there anew.
        $server->kill();
        $this->example('chat/server', '--port', $port, '--web', "127.0.0.1:$web");
        $script->tell('again');
        self::assertSame('OK', $script->result());
    }

    public function test_devices_come_move_and_go_on_the_map(): void
    {
        JavaScript::needBrowser();
        [$port, $web] = [Port::free(), Port::free()];
        $server = $this->example('map/server', '--port', $port, '--web', "127.0.0.1:$web", '--devices', 0);
        $this->until(fn () => str_contains($server->output(), "http://127.0.0.1:$web"), 'it says where the page is');
        $town = getenv('SCREENSHOTS') ? 23 : 4;
        $this->example('map/devices', $town, '--port', $port, '--name', 'town', '--steady');
        $lone = $this->example('map/devices', 1, '--port', $port, '--name', 'lone', '--steady');
        $script = JavaScript::start('map.mjs', "http://127.0.0.1:$web/", JavaScript::browserFolder(), $town + 1, ...$this->screenshot('map'));
        $script->untilItSays('gone');
        $lone->kill();
        $this->example('map/devices', 1, '--port', $port, '--name', 'late', '--steady');
        self::assertSame('OK', $script->result());
    }

    public function test_the_map_brings_devices_of_its_own_which_end_with_it(): void
    {
        [$port, $web] = [Port::free(), Port::free()];
        $server = $this->example('map/server', '--port', $port, '--web', "127.0.0.1:$web", '--devices', 3);
        $this->until(fn () => count($this->children($server->pid())) === 2, 'a web server and the devices are there');
        $children = $this->children($server->pid());
        $server->signal(SIGINT);
        self::assertSame(0, $server->exitCode());
        self::assertSame([], array_filter($children, fn (int $pid) => is_dir("/proc/$pid")));
    }

    public function test_the_web_server_gives_the_page_and_the_client_and_nothing_else(): void
    {
        [$port, $web] = [Port::free(), Port::free()];
        $server = $this->example('chat/server', '--port', $port, '--web', "127.0.0.1:$web");
        $this->until(fn () => str_contains($server->output(), "http://127.0.0.1:$web"), 'it says where the page is');
        foreach (['/' => 'text/html', '/chat.js' => 'text/javascript', '/chat.css' => 'text/css', '/heartbus/index.js' => 'text/javascript',
            '/settings.json' => 'application/json'] as $path => $type) {
            [$status, $head, $body] = $this->get($web, $path);
            self::assertSame(200, $status, $path);
            self::assertStringContainsString("content-type: $type", strtolower($head));
            self::assertStringContainsString("script-src 'self'", $head);
            self::assertNotSame('', $body);
        }
        self::assertSame(['port' => $port], json_decode($this->get($web, '/settings.json')[2], true));
        foreach (['/server.php', '/../server.php', '/heartbus/../server.php', '/page.php', '/nothing.js', '/heartbus/', '/chat.js/x', '/%2e%2e/server.php'] as $path) {
            self::assertSame(404, $this->get($web, $path)[0], $path);
        }
        // A second one cannot have the place.
        $second = $this->example('chat/server', '--port', Port::free(), '--web', "127.0.0.1:$web");
        self::assertSame(1, $second->exitCode(20));
        self::assertStringContainsString('--web', $second->errors());
    }

    /** @return array{int, string, string} */
    private function get(int $port, string $path): array
    {
        $stream = stream_socket_client("tcp://127.0.0.1:$port");
        stream_set_timeout($stream, 10);
        fwrite($stream, "GET $path HTTP/1.0\r\nHost: h\r\n\r\n");
        [$head, $body] = explode("\r\n\r\n", stream_get_contents($stream), 2);
        return [(int) explode(' ', $head)[1], $head, $body];
    }

    /** @return list<int> */
    private function children(int $pid): array
    {
        return array_map('intval', preg_split('/\s+/', trim((string) @file_get_contents("/proc/$pid/task/$pid/children")), -1, PREG_SPLIT_NO_EMPTY));
    }

    /** A picture for the pages is taken where SCREENSHOTS names a folder. @return list<string> */
    private function screenshot(string $name): array
    {
        return getenv('SCREENSHOTS') ? [getenv('SCREENSHOTS') . "/$name.png"] : [];
    }

    private function example(string $script, string|int ...$arguments): PhpProcess
    {
        return PhpProcess::file(self::FOLDER . "/$script.php", $arguments);
    }
}
