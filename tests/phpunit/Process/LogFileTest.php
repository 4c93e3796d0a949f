<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{Peer, PhpProcess, Port, TestCase, TestServer, WorkermanApp};

/** 'log_file': one descriptor however often it is named, and a file that somebody moves or removes is opened anew. */
final class LogFileTest extends TestCase
{
    private string $file;

    protected function setUp(): void
    {
        $this->file = PhpProcess::folder() . '/engine.log';
    }

    private function lines(?string $file = null): string
    {
        return (string) @file_get_contents($file ?? $this->file);
    }

    /** Makes the engine write lines until the condition holds. */
    private function untilLogged(TestServer $server, callable $condition, string $what): void
    {
        $peer = $server->connect();
        $this->until(function () use ($peer, $condition): bool {
            $peer->send(99)->expectSilence();
            return $condition();
        }, $what, 20);
    }

    public function test_two_hundred_clients_and_servers_leave_one_descriptor(): void
    {
        $process = $this->script(sprintf('
            for ($i = 0; $i < 200; $i++) {
                $client = new HeartbeatClient("127.0.0.1", 1, ["auto_reconnect" => false, "log_file" => %1$s]);
                $client->connect();
                HeartbeatClient::run();
            }
            for ($i = 0; $i < 20; $i++) {
                $server = new HeartbeatServer("127.0.0.1", %2$d, ["loop" => "manual", "log_file" => $i %% 2 ? %1$s : %1$s . ".other", "bus" => false]);
                $server->start();
                $server->stop();
            }
            $open = array_map(fn ($name) => @readlink("/proc/self/fd/$name"), scandir("/proc/self/fd"));
            say("open", count(preg_grep("/engine\.log/", $open)));', var_export($this->file, true), Port::free()));
        self::assertSame(0, $process->exitCode(60), $process->transcript());
        self::assertSame([1], $process->next('open'));
        self::assertGreaterThanOrEqual(10, substr_count($this->lines(), 'Connection error'));
    }

    public function test_a_file_that_was_moved_or_removed_is_opened_anew(): void
    {
        $server = $this->server(['log_file' => $this->file, 'worker_count' => 1]);
        $this->untilLogged($server, fn () => $this->lines() !== '', 'the first line is there');
        rename($this->file, "$this->file.1");
        $this->untilLogged($server, fn () => $this->lines() !== '', 'lines are in a new file of the name');
        $old = $this->lines("$this->file.1");
        unlink($this->file);
        $this->untilLogged($server, fn () => $this->lines() !== '', 'and again after it was removed');
        self::assertSame($old, $this->lines("$this->file.1"), 'the old one is left alone');
        self::assertSame('', $server->process->errors());
    }

    public function test_where_it_cannot_be_opened_anew_the_old_one_is_written_on(): void
    {
        mkdir($folder = PhpProcess::folder() . '/logs');
        $server = $this->server(['log_file' => "$folder/engine.log", 'worker_count' => 1]);
        $this->untilLogged($server, fn () => $this->lines("$folder/engine.log") !== '', 'the first line is there');
        rename($folder, "$folder.moved");
        $length = strlen($this->lines("$folder.moved/engine.log"));
        self::assertFalse($server->ask('return Heartbus\reopen_logs();'));
        self::assertStringContainsString('Cannot open the log file anew', $this->lines("$folder.moved/engine.log"));
        $this->untilLogged($server, fn () => substr_count(substr($this->lines("$folder.moved/engine.log"), $length), 'type: 99') > 0, 'lines are in the old one');
        rename("$folder.moved", $folder);
    }

    public function test_reopen_logs_does_it_at_once(): void
    {
        $server = $this->server(['log_file' => $this->file, 'worker_count' => 1]);
        $server->connect()->send(99)->expectSilence();
        rename($this->file, "$this->file.1");
        self::assertTrue($server->ask('return Heartbus\reopen_logs();'));
        self::assertSame('', $this->lines());
        $server->connect()->send(98)->expectSilence();
        self::assertStringContainsString('type: 98', $this->lines());
        self::assertStringNotContainsString('type: 98', $this->lines("$this->file.1"));
    }

    public function test_without_a_file_reopen_logs_finds_stderr(): void
    {
        $process = $this->script('
            say("reopened", Heartbus\reopen_logs());
            fclose(STDERR);
            say("without", Heartbus\reopen_logs());');
        self::assertSame(0, $process->exitCode());
        self::assertSame([true], $process->next('reopened'));
        self::assertSame([false], $process->next('without'));
    }

    public function test_a_name_that_is_relative_means_the_same_file_wherever_the_script_goes(): void
    {
        $folder = PhpProcess::folder();
        $server = $this->server(['log_file' => 'relative.log', 'worker_count' => 1], '', ['cwd' => $folder]);
        $server->ask('chdir("/");');
        $server->connect()->send(99)->expectSilence();
        rename("$folder/relative.log", "$folder/relative.log.1");
        self::assertTrue($server->ask('return Heartbus\reopen_logs();'));
        self::assertFileExists("$folder/relative.log");
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_reload_of_workerman_s_opens_it_anew_in_the_engine_s_process(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', "
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 1, 'log_file' => '$this->file', 'bus' => '$app->folder/bus.sock']);
            \$server->on('start', fn () => say('start', getmypid()));
            \$server->start();");
        $process = $app->php('server.php', 'start');
        $process->next('start', 20);
        $peer = Peer::connect($port);
        $peer->send(99)->expectSilence();
        self::assertStringContainsString('type: 99', $this->lines());
        rename($this->file, "$this->file.1");
        $app->command('server.php', 'reload');
        // The new file is there before anything is logged.
        $this->until(fn () => is_file($this->file), 'the file is opened anew', 20);
        $process->next('start', 20);
        $peer->send(98)->expectSilence();
        self::assertStringContainsString('type: 98', $this->lines());
        $process->signal(SIGINT);
        self::assertSame(0, $process->exitCode(30));
    }
}
