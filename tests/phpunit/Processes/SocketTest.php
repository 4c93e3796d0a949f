<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Bus;
use Heartbus\Exception\IoException;
use Heartbus\Tests\{Frame, PhpProcess, Port, ServerApp, TestCase, TestServer, Wait};

/** Where the bus socket is, who finds it there, and what becomes of a server whose socket somebody removes. */
final class SocketTest extends TestCase
{
    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_workers_that_come_after_the_socket_was_removed_are_told_everything(string $workerman): void
    {
        $server = ServerApp::start($workerman);
        [$before] = $server->next('start');
        $peer = $server->node('a');
        unlink($server->socket);
        $server->command('reload');
        [$after] = $server->next('start');
        self::assertNotSame($before, $after);
        $peer->send(Frame::DATA, 'after the cleaning');
        $this->until(fn () => array_column($server->notes(), 1) === ['after the cleaning'], 'the new worker hears');
        self::assertFileExists($server->socket);
        self::assertStringContainsString($server->socket, file_get_contents('/proc/net/unix'), 'the kernel knows the file as one in use');
        self::assertStringContainsString('[WARNING] The bus socket was removed: it is there again', $server->process->errors());
        $peer->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_worker_that_cannot_reach_its_engine_says_so_and_misses_nothing(string $workerman): void
    {
        $app = \Heartbus\Tests\WorkermanApp::make($workerman);
        mkdir("$app->folder/sockets");
        $server = ServerApp::at($app, Port::free(), ['bus' => "$app->folder/sockets/bus.sock"], ServerApp::NOTE);
        $server->process->next('ready');
        $server->next('start');
        $peer = $server->node('a');
        rename("$app->folder/sockets", "$app->folder/moved");
        $server->command('reload');
        $says = fn (string $text): bool => str_contains($server->process->errors(), $text);
        $this->until(fn () => $says('[ERROR] A PHP worker cannot reach its engine: it is told nothing'), 'the worker says so', 20);
        $this->until(fn () => $says('[ERROR] The bus socket was removed and cannot be made again'), 'the engine says so', 20);
        $peer->send(Frame::DATA, 'meanwhile');
        $peer->beat();
        // Said once, however often it is tried.
        Wait::pass(1.5);
        self::assertSame(1, substr_count($server->process->errors(), 'A PHP worker cannot reach its engine'));
        self::assertSame(1, substr_count($server->process->errors(), 'cannot be made again'));
        mkdir("$app->folder/sockets");
        $server->next('start');
        $this->until(fn () => array_column($server->notes(), 1) === ['meanwhile'], 'it is told what waited');
        self::assertTrue($says('[WARNING] A PHP worker has its engine again'));
    }

    public function test_a_worker_takes_no_events_of_another_server(): void
    {
        // The worker of a server whose socket path another server has: it must not attach there.
        $other = $this->server();
        $socket = PhpProcess::folder() . "/$other->port.sock";
        foreach (\Heartbus\Tests\WorkermanApp::installations() as [$workerman]) {
            $app = \Heartbus\Tests\WorkermanApp::make($workerman);
            $server = ServerApp::at($app, Port::free(), ['bus' => $socket], ServerApp::NOTE);
            self::assertSame(255, $server->process->exitCode(30));
            self::assertStringContainsString("$socket is in use by another server", $server->process->output() . $server->process->errors());
        }
        $other->node('a')->beat();
    }

    public function test_a_second_server_of_the_same_name_says_so_and_names_both_sockets(): void
    {
        $name = 'heartbus-tests-' . getmypid();
        $first = TestServer::start(['name' => $name, 'bus' => null]);
        $usual = $first->ask('return Heartbus\Bus::connect("' . $name . '", 10.0)->getSocket();');
        // Explicitly in another of the usual folders, as a server of another environment has it.
        $folder = PhpProcess::folder() . '/service';
        mkdir($folder);
        $second = TestServer::start(['name' => $name, 'bus' => null], '', ['env' => ['RUNTIME_DIRECTORY' => $folder]]);
        $line = current(preg_grep('/Two servers have the same name/', explode("\n", $second->process->errors())));
        self::assertStringContainsString('[WARNING]', (string) $line);
        self::assertStringContainsString("\"socket\":\"$folder/$name.sock\",\"other\":\"$usual\"", str_replace('\/', '/', (string) $line));
        self::assertSame('', $first->process->errors());
        // Who says which is answered by that one.
        self::assertSame($second->process->pid(), Bus::connect("$folder/$name.sock", 10.0)->stats()['server']['pid']);
        self::assertSame($first->process->pid(), Bus::connect($name, 10.0)->stats()['server']['pid']);
    }

    public function test_a_server_that_cannot_start_says_why_and_nothing_of_its_namesake(): void
    {
        $name = 'heartbus-tests-' . getmypid();
        $first = TestServer::start(['name' => $name, 'bus' => null]);
        $folder = PhpProcess::folder() . '/service';
        mkdir($folder);
        $second = $this->script("
            try {
                (new HeartbeatServer('127.0.0.1', $first->port, ['name' => '$name', 'loop' => 'native']))->start();
            } catch (Heartbus\\Exception\\IoException \$refusal) {
                say('refused', \$refusal->getMessage());
            }", [], ['env' => ['RUNTIME_DIRECTORY' => $folder]]);
        self::assertSame(["Cannot listen on 127.0.0.1:$first->port: Address already in use"], $second->next('refused'));
        self::assertSame(0, $second->exitCode());
        self::assertStringNotContainsString('Two servers have the same name', $second->errors());
    }

    public function test_a_service_s_own_folder_is_taken_and_looked_into_first(): void
    {
        $name = 'heartbus-tests-' . getmypid();
        [$own, $other] = [PhpProcess::folder() . '/heartbus', PhpProcess::folder() . '/other'];
        mkdir($own);
        mkdir($other);
        $environment = ['env' => ['RUNTIME_DIRECTORY' => "$other:$own"]];
        $server = TestServer::start(['name' => $name, 'bus' => null], '', $environment);
        self::assertFileExists("$own/$name.sock", 'of several the one that is named after us');
        self::assertSame([], glob("$other/*"));
        $ask = "try { say('found', Heartbus\Bus::connect('$name', 10.0)->getSocket()); } catch (Heartbus\Exception\IoException \$e) { say('found', \$e->getMessage()); }";
        self::assertSame(["$own/$name.sock"], $this->script($ask, [], $environment)->next('found'));
        self::assertStringStartsWith('No Heartbus server at ', $this->script($ask)->next('found')[0]);
        self::assertSame(0, $server->stop());
        self::assertSame([], glob("$own/*"));
    }

    public function test_a_folder_that_is_none_hides_no_server_and_is_no_second_one(): void
    {
        $name = 'heartbus-tests-' . getmypid();
        file_put_contents($file = PhpProcess::folder() . '/file', '');
        $environment = ['env' => ['RUNTIME_DIRECTORY' => $file, 'XDG_RUNTIME_DIR' => $file]];
        $server = TestServer::start(['name' => $name, 'bus' => null], '', $environment);
        $process = $this->script("say('found', Heartbus\\Bus::connect('$name', 10.0)->stats()['server']['pid']);", [], $environment);
        self::assertSame([$server->process->pid()], $process->next('found'));
        self::assertSame('', $server->process->errors());
    }

    public function test_another_user_s_folders_in_the_environment_hide_no_server(): void
    {
        $this->needRoot();
        $name = 'heartbus-tests-' . getmypid() . '-2';
        mkdir($folder = PhpProcess::folder() . '/of-root', 0700);
        chmod(PhpProcess::folder(), 0711);
        $this->serverOf('nobody', $name, ['RUNTIME_DIRECTORY' => "$folder/service", 'XDG_RUNTIME_DIR' => $folder]);
        $socket = '/tmp/heartbus-' . posix_getpwnam('nobody')['uid'] . "/$name.sock";
        $this->until(fn () => file_exists($socket), 'the socket is there');
        self::assertSame($socket, Bus::connect($name, 10.0)->getSocket());
        self::assertStringNotContainsString('Two servers', file_get_contents(PhpProcess::folder() . '/nobody.out'));
    }

    public function test_a_user_s_server_is_not_where_logging_out_removes_it_and_root_finds_it(): void
    {
        $this->needRoot();
        $name = 'heartbus-tests-' . getmypid();
        $session = PhpProcess::folder() . '/session';
        mkdir($session);
        chown($session, 'nobody');
        chmod(PhpProcess::folder(), 0711);
        $nobody = posix_getpwnam('nobody')['uid'];
        $server = $this->serverOf('nobody', $name, ['XDG_RUNTIME_DIR' => $session]);
        $socket = "/tmp/heartbus-$nobody/$name.sock";
        $this->until(fn () => file_exists($socket), 'the socket is there');
        self::assertSame([], glob("$session/*"));
        self::assertSame($socket, Bus::connect($name, 10.0)->getSocket());
        self::assertSame($name, Bus::connect($name, 10.0)->stats()['server']['name']);
        // One connection, however often it is looked for.
        self::assertSame(1, Bus::connect($name, 10.0)->stats()['engine']['bus_clients']);

        // Of two that are named alike root has to say which.
        $second = $this->serverOf('www-data', $name);
        $other = '/tmp/heartbus-' . posix_getpwnam('www-data')['uid'] . "/$name.sock";
        $this->until(fn () => file_exists($other), 'the second socket is there');
        $ask = $this->script("try { Heartbus\Bus::connect('$name', 10.0); } catch (Throwable \$e) { say('refused', \$e::class, \$e->getMessage()); }");
        [$class, $message] = $ask->next('refused');
        self::assertSame(IoException::class, $class);
        self::assertStringContainsString("Several servers are named $name", $message);
        self::assertStringContainsString($socket, $message);
        self::assertStringContainsString($other, $message);
        proc_terminate($second);
        $this->until(fn () => !file_exists($other), 'the second is gone');
        $ask = $this->script("say('found', Heartbus\Bus::connect('$name', 10.0)->getSocket());");
        self::assertSame([$socket], $ask->next('found'));

        // Whoever's folder others may write into is not trusted.
        chmod("/tmp/heartbus-$nobody", 0777);
        try {
            $ask = $this->script("try { Heartbus\Bus::connect('$name', 10.0); } catch (Throwable \$e) { say('refused', \$e->getMessage()); }");
            self::assertStringStartsWith('No Heartbus server at ', $ask->next('refused')[0]);
        } finally {
            chmod("/tmp/heartbus-$nobody", 0711);
        }
        proc_terminate($server);
        $this->until(fn () => !file_exists($socket), 'the server is gone');
    }

    public function test_who_looks_for_a_server_in_vain_is_told_of_others(): void
    {
        $name = 'heartbus-tests-' . getmypid();
        $server = TestServer::start(['name' => $name, 'bus' => null]);
        $socket = $server->ask("return Heartbus\Bus::connect('$name', 10.0)->getSocket();");
        $this->expectException(IoException::class);
        $this->expectExceptionMessageMatches('#No Heartbus server at .*nobody-of-.*\(others: .*' . preg_quote($socket) . '#');
        Bus::connect("nobody-of-$name");
    }

    public function test_a_connection_found_by_name_follows_the_server_to_another_folder(): void
    {
        $name = 'heartbus-tests-' . getmypid();
        $folder = PhpProcess::folder() . '/service';
        mkdir($folder);
        $process = $this->script("
            while (fgets(STDIN) !== false) {
                try { say('socket', Heartbus\Bus::connect('$name', 10.0)->stats()['server']['socket']); }
                catch (Heartbus\Exception\HeartbusException \$e) { say('socket', \$e::class); }
            }", [], ['env' => ['RUNTIME_DIRECTORY' => $folder]]);
        $ask = function () use ($process): string {
            $process->tell('ask');
            return $process->next('socket')[0];
        };
        $first = TestServer::start(['name' => $name, 'bus' => null]);
        $usual = $ask();
        self::assertStringEndsWith("/$name.sock", $usual);
        $first->stop();
        self::assertSame('Heartbus\Exception\IoException', $ask());
        $second = TestServer::start(['name' => $name, 'bus' => null], '', ['env' => ['RUNTIME_DIRECTORY' => $folder]]);
        self::assertSame("$folder/$name.sock", $ask());
        self::assertNotSame($usual, "$folder/$name.sock");
        unset($second);
    }

    /** @return resource a server of another user's, on its own loop */
    private function serverOf(string $user, string $name, array $environment = [])
    {
        $extension = PhpProcess::folder() . '/heartbus.so';
        is_file($extension) || copy(PhpProcess::extension(), $extension);
        $code = sprintf('(new PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer("127.0.0.1", %d, ["name" => "%s", "loop" => "native", "worker_count" => 1]))->start();',
            Port::free(), $name);
        $entry = posix_getpwnam($user);
        // A run that is killed takes its processes along.
        $command = ['setpriv', '--pdeathsig', 'KILL', "--reuid={$entry['uid']}", "--regid={$entry['gid']}", '--clear-groups', PHP_BINARY, '-n', '-d', "extension=$extension", '-r', $code];
        $process = proc_open($command, [['file', '/dev/null', 'r'], ['file', PhpProcess::folder() . "/$user.out", 'a'], ['file', PhpProcess::folder() . "/$user.out", 'a']],
            $pipes, '/', $environment + getenv());
        self::assertIsResource($process);
        return $this->others[] = $process;
    }

    /** @var list<resource> */
    private array $others = [];

    protected function tearDown(): void
    {
        foreach ($this->others as $process) {
            proc_terminate($process, SIGKILL);
            proc_close($process);
        }
        $this->others = [];
        parent::tearDown();
    }

    private function needRoot(): void
    {
        if (posix_getuid() !== 0 || !posix_getpwnam('nobody') || !posix_getpwnam('www-data')) {
            self::markTestSkipped('only root can be somebody else');
        }
    }
}
