<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Bus;
use Heartbus\Tests\{Frame, PhpProcess, Port, TestCase, TestServer};

/** Pages push to connected clients: php-examples/push.php behind nginx and PHP-FPM, and behind PHP's own web server. */
final class WebTest extends TestCase
{
    private const EXAMPLES = __DIR__ . '/../../../php-examples';

    private string $socket;
    private int $port;

    protected function setUp(): void
    {
        $this->socket = PhpProcess::folder() . '/bus.sock';
        $this->port = Port::free();
    }

    public function test_a_page_of_php_fpm_behind_nginx_pushes_to_a_client(): void
    {
        $fpm = current(glob('/usr/sbin/php-fpm' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION)) ?: null;
        if ($fpm === null || !is_executable('/usr/sbin/nginx')) {
            self::markTestSkipped('nginx and PHP-FPM are not installed (Debian: nginx-light, php-fpm)');
        }
        $server = $this->serve(posix_getuid() === 0 ? ['bus_group' => 'www-data'] : []);
        $fpmProcess = $this->runFpm($fpm);
        $this->runNginx();
        $this->pages($server);

        // The process keeps its connection from page to page, and starts no thread for it.
        [$child] = preg_split('/\s+/', file_get_contents("/proc/{$fpmProcess->pid()}/task/{$fpmProcess->pid()}/children"), -1, PREG_SPLIT_NO_EMPTY);
        self::assertCount(1, glob("/proc/$child/task/*"));
        self::assertSame(2, Bus::connect($this->socket, 10.0)->stats()['engine']['bus_clients'], 'the page and this test');
        if (posix_getuid() === 0) {
            self::assertSame(posix_getpwnam('www-data')['uid'], fileowner("/proc/$child"));
        }
    }

    public function test_a_page_of_php_s_own_web_server_pushes_to_a_client(): void
    {
        $server = $this->serve();
        PhpProcess::file('-S', ["127.0.0.1:$this->port", $this->copyPages() . '/push.php'], ['ini' => ["heartbus.socket=$this->socket"]]);
        $this->until(fn () => ($probe = @stream_socket_client("tcp://127.0.0.1:$this->port")) && fclose($probe), 'it listens');
        $this->pages($server);
        self::assertSame(2, Bus::connect($this->socket, 10.0)->stats()['engine']['bus_clients'], 'the page and this test');
    }

    private function serve(array $config = []): TestServer
    {
        return TestServer::start($config + ['bus' => $this->socket]);
    }

    private function pages(TestServer $server): void
    {
        $peer = $server->node('a');
        foreach (['first', 'second', 'Grüße'] as $text) {
            self::assertSame([200, ['sent' => true]], $this->get(['node' => 'a', 'text' => $text]));
            self::assertSame($text, $peer->expect(Frame::DATA)->payload);
        }
        self::assertSame([404, ['error' => 'nobody is not online']], $this->get(['node' => 'nobody', 'text' => 'x']));
        self::assertSame([400, ['error' => 'node and text are needed']], $this->get(['node' => 'a']));
        $peer->expectSilence();

        // The server goes away and comes again: the pages say so, and find it.
        self::assertSame(0, $server->stop());
        [$status, $answer] = $this->get(['node' => 'a', 'text' => 'x']);
        self::assertSame([503, true], [$status, str_contains($answer['error'], $this->socket)]);
        $again = $this->serve(posix_getuid() === 0 ? ['bus_group' => 'www-data'] : []);
        $peer = $again->node('a');
        self::assertSame([200, ['sent' => true]], $this->get(['node' => 'a', 'text' => 'again']));
        self::assertSame('again', $peer->expect(Frame::DATA)->payload);
    }

    /** @return array{0: int, 1: mixed} the status and the decoded answer */
    private function get(array $parameters): array
    {
        $body = file_get_contents("http://127.0.0.1:$this->port/push.php?" . http_build_query($parameters), false,
            stream_context_create(['http' => ['ignore_errors' => true, 'timeout' => 30]]));
        preg_match('/^HTTP\S+ (\d+)/', $http_response_header[0], $status);
        return [(int) $status[1], json_decode((string) $body, true) ?? $body];
    }

    private function runFpm(string $binary): PhpProcess
    {
        $folder = PhpProcess::folder();
        $user = posix_getuid() === 0 ? ['user = www-data', 'group = www-data'] : [];
        file_put_contents("$folder/fpm.conf", implode("\n", ['[global]', "error_log = $folder/fpm.log", 'daemonize = no', '[www]', ...$user,
            "listen = $folder/fpm.sock", 'listen.mode = 0666', 'pm = static', 'pm.max_children = 1', "php_admin_value[heartbus.socket] = $this->socket", '']));
        $process = $this->program($binary, '-n', '-d', 'extension=' . PhpProcess::extension(), '-d', 'display_errors=1', '-y', "$folder/fpm.conf");
        $this->until(fn () => ($probe = @stream_socket_client("unix://$folder/fpm.sock")) && fclose($probe), 'PHP-FPM listens');
        return $process;
    }

    private function runNginx(): void
    {
        $folder = PhpProcess::folder();
        $pages = $this->copyPages();
        $temporary = implode('', array_map(fn (string $kind) => "{$kind}_temp_path $folder/nginx_$kind;\n", ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']));
        file_put_contents("$folder/nginx.conf", "
            daemon off;
            master_process off;
            pid $folder/nginx.pid;
            error_log stderr;
            events {}
            http {
                access_log off;
                $temporary
                server {
                    listen 127.0.0.1:$this->port;
                    location / {
                        fastcgi_pass unix:$folder/fpm.sock;
                        fastcgi_param SCRIPT_FILENAME $pages" . '$fastcgi_script_name;
                        fastcgi_param QUERY_STRING $query_string;
                        fastcgi_param REQUEST_METHOD $request_method;
                    }
                }
            }');
        $this->program('/usr/sbin/nginx', '-c', "$folder/nginx.conf", '-e', 'stderr');
        $this->until(fn () => ($probe = @stream_socket_client("tcp://127.0.0.1:$this->port")) && fclose($probe), 'nginx listens');
    }

    /** Copies, which the pages' user can read wherever the project lies, and which wait for a busy machine. */
    private function copyPages(): string
    {
        $pages = PhpProcess::folder() . '/pages';
        mkdir($pages);
        foreach (['push.php', 'options.php'] as $page) {
            file_put_contents("$pages/$page", str_replace('Bus::connect()', 'Bus::connect(null, 10.0)', file_get_contents(self::EXAMPLES . "/$page")));
        }
        return $pages;
    }

    /** A program that is not PHP, as a process that ends with the test. */
    private function program(string $program, string ...$arguments): PhpProcess
    {
        return PhpProcess::run('pcntl_exec($argv[1], array_slice($argv, 2));', [$program, ...$arguments]);
    }
}
