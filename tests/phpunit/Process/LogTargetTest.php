<?php

namespace Heartbus\Tests\Process;

use Heartbus\Tests\{Peer, PhpProcess, Port, TestCase, WorkermanApp};

/** Where the engine's lines go: to what the application has as stderr, to its file, and never into anything else that it has open. */
final class LogTargetTest extends TestCase
{
    private const LINE = '/^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[[A-Z]+\] /m';

    /** A connection with the lowest free number, and the other end of it, which hears what is written there. */
    private const DATABASE = '
        $lowest = fopen("/dev/null", "r");
        $listener = stream_socket_server("tcp://127.0.0.1:0");
        fclose($lowest);
        $database = stream_socket_client("tcp://" . stream_socket_get_name($listener, false));
        $heard = stream_socket_accept($listener);
        stream_set_blocking($heard, false);';

    public function test_a_client_writes_nothing_into_the_connection_that_got_the_number_of_a_closed_stderr(): void
    {
        $process = $this->script('fclose(STDERR);' . self::DATABASE . '
            say("number 2 is", fstat($database)["ino"] === stat("/proc/self/fd/2")["ino"]);
            $client = new HeartbeatClient("127.0.0.1", 1, ["auto_reconnect" => false]);
            $client->send("x");
            $client->connect();
            HeartbeatClient::run();
            $client->ping();
            say("heard", stream_get_contents($heard));');
        self::assertSame(0, $process->exitCode(), $process->transcript());
        self::assertSame([true], $process->next('number 2 is'));
        self::assertSame([''], $process->next('heard'));
        self::assertSame('', $process->errors());
    }

    public function test_a_stderr_that_a_callback_closes_is_written_to_no_more_and_neither_is_what_comes_in_its_place(): void
    {
        $server = $this->server(['worker_count' => 1]);
        $server->node('a')->send(99);
        $this->until(fn () => str_contains($server->process->errors(), 'Unknown message type: 99'), 'the first line');
        $server->ask('fclose(STDERR);' . self::DATABASE . '$GLOBALS["kept"] = [$listener, $database, $heard]; return readlink("/proc/self/fd/2");');
        // From the engine's thread, and from PHP's.
        $server->node('b')->send(98)->expectSilence();
        self::assertFalse($server->ask('return $server->sendTo("a", "\xFF");'));
        $server->node('c')->send(97)->expectSilence();
        self::assertSame('', $server->ask('return stream_get_contents($GLOBALS["kept"][2]);'));
        self::assertStringNotContainsString('type: 98', $server->process->errors());
        self::assertSame(0, $server->process->ask('return count(array_filter(scandir("/proc/self/fd"), fn ($name) => @readlink("/proc/self/fd/$name") === "' . $this->file($server->process) . '"));'),
            'nobody who waits for the end of stderr waits for us');
    }

    /** What stderr of a test's process is. */
    private function file(PhpProcess $process): string
    {
        return (new \ReflectionProperty($process, 'errors'))->getValue($process);
    }

    public function test_a_script_that_opens_another_stderr_finds_the_lines_there(): void
    {
        $file = PhpProcess::folder() . '/another.log';
        $server = $this->server(['worker_count' => 1]);
        $server->ask("fclose(STDERR); \$GLOBALS['STDERR'] = fopen('$file', 'a');");
        $server->node('a')->send(99)->expectSilence();
        $this->until(function () use ($server, $file): bool {
            $server->connect()->send(99)->expectSilence();
            return str_contains(file_get_contents($file), 'Unknown message type: 99');
        }, 'a line is in the new file');
        self::assertSame('', $server->process->errors());
    }

    public function test_a_file_of_the_application_s_that_got_number_2_is_left_alone(): void
    {
        $file = PhpProcess::folder() . '/orders.csv';
        $process = $this->script("
            fclose(STDERR);
            \$orders = fopen('$file', 'a');
            \$client = new HeartbeatClient('127.0.0.1', 1, ['auto_reconnect' => false]);
            \$client->send('x');
            \$client->connect();
            HeartbeatClient::run();");
        self::assertSame(0, $process->exitCode());
        self::assertSame('', file_get_contents($file));
    }

    /** @dataProvider closedFromTheBeginning */
    public function test_without_a_stderr_from_the_beginning_lines_go_nowhere(string $closed): void
    {
        $folder = PhpProcess::folder();
        // The first file of these that gets number 2 has it in PHP's eyes as STDERR, of which the constant is there all the same.
        $process = $this->script("
            for (\$i = 0; \$i < 4; \$i++) { \$own[] = fopen('$folder/first.csv', 'a'); \$own[] = fopen('$folder/second.csv', 'a'); }
            \$client = new HeartbeatClient('127.0.0.1', 1, ['auto_reconnect' => false]);
            \$client->send('x');
            \$client->connect();
            HeartbeatClient::run();
            if ((\$child = pcntl_fork()) === 0) { (new HeartbeatClient('127.0.0.1', 1))->send('x'); exit(0); }
            pcntl_waitpid(\$child, \$status);
            file_put_contents('$folder/done', 'number 2 is ' . readlink('/proc/self/fd/2'));", [], ['wrap' => ['bash', '-c', "exec \"\$@\" $closed", 'bash']]);
        self::assertSame(0, $process->exitCode());
        self::assertStringStartsWith('number 2 is /', file_get_contents("$folder/done"));
        self::assertSame(['', ''], [file_get_contents("$folder/first.csv"), file_get_contents("$folder/second.csv")]);
    }

    public static function closedFromTheBeginning(): array
    {
        $streams = ['2>&-', '1>&- 2>&-', '0<&- 2>&-', '0<&- 1>&- 2>&-'];
        return array_combine($streams, array_map(fn (string $closed) => [$closed], $streams));
    }

    public function test_a_log_file_that_nobody_reads_or_that_is_none_is_refused_and_left_as_it_is(): void
    {
        $folder = PhpProcess::folder();
        posix_mkfifo("$folder/pipe", 0600);
        mkdir("$folder/folder");
        file_put_contents("$folder/target", "what was there\n");
        symlink("$folder/target", "$folder/link");
        foreach (['pipe' => 'No such device or address', 'folder' => 'Is a directory'] as $name => $why) {
            $process = $this->script("
                try { (new HeartbeatServer('127.0.0.1', " . Port::free() . ", ['loop' => 'manual', 'bus' => false, 'log_file' => '$folder/$name']))->start(); }
                catch (Heartbus\Exception\ConfigException \$e) { say('refused', \$e->getMessage()); }");
            self::assertStringStartsWith("Cannot open log_file $folder/$name: $why", $process->next('refused')[0], 'at once, and without a reader');
            self::assertSame(0, $process->exitCode());
        }
        $process = $this->script("(new HeartbeatClient('127.0.0.1', 1, ['log_file' => '$folder/link']))->send('x');");
        self::assertSame(0, $process->exitCode());
        self::assertMatchesRegularExpression('/^what was there\n\[.*Cannot send: Not connected to server\n$/', file_get_contents("$folder/target"), 'added to what a link leads to');
        self::assertTrue(is_link("$folder/link") && is_dir("$folder/folder") && filetype("$folder/pipe") === 'fifo');
    }

    /** @dataProvider settings */
    public function test_a_client_s_settings_hold_from_its_first_word_on(array $config, array $ini, string $expected): void
    {
        $folder = PhpProcess::folder();
        $file = "$folder/client.log";
        $config = array_map(fn (string $value) => str_replace('FILE', $file, $value), $config);
        $process = $this->script('
            $client = new HeartbeatClient("127.0.0.1", 1, ' . var_export($config, true) . ');
            $client->send("x");
            $client->ping();
            for ($i = 0; $i < 3; $i++) { $client->addNode("n$i"); }
            say("buffer", PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->getBuffer());',
            [], ['ini' => array_map(fn (string $setting) => str_replace('FILE', $file, $setting), $ini)]);
        self::assertSame(0, $process->exitCode(), $process->transcript());
        $places = ['file' => (string) @file_get_contents($file), 'stderr' => $process->errors()];
        foreach ($places as $place => $lines) {
            $matches = preg_match('/^\[[^]]+\] \[ERROR\] Cannot send: Not connected to server\n\[[^]]+\] \[ERROR\] Cannot ping: Not connected to server\n$/', $lines);
            self::assertSame($place === $expected, $matches === 1, "$place: $lines");
            $place === $expected || self::assertSame('', $lines);
        }
    }

    public static function settings(): array
    {
        return [
            'none: stderr' => [[], [], 'stderr'],
            'log_file' => [['log_file' => 'FILE'], [], 'file'],
            'log_level off' => [['log_level' => 'off'], [], 'nowhere'],
            'php.ini, a file' => [[], ['heartbus.log_file=FILE'], 'file'],
            'php.ini, off' => [[], ['heartbus.log_level=off'], 'nowhere'],
            'php.ini, off in quotes' => [[], ['heartbus.log_level="off"'], 'nowhere'],
            'php.ini, an error' => [[], ['heartbus.log_level=error'], 'stderr'],
            'its own before php.ini' => [['log_level' => 'error'], ['heartbus.log_level=off'], 'stderr'],
            'a wrong one is left to connect()' => [['log_level' => 'loud'], [], 'stderr'],
        ];
    }

    public function test_before_connect_a_client_s_words_reach_the_php_logger_that_it_asks_for(): void
    {
        $process = $this->script('
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
                public function log($level, $message, array $context = []): void { say("log", $level, $message); }
            });
            $client = new HeartbeatClient("127.0.0.1", 1, ["log" => "logger", "log_level" => "error", "auto_reconnect" => false]);
            $client->send("x");
            $client->connect();
            HeartbeatClient::run();');
        self::assertSame(0, $process->exitCode(), $process->transcript());
        self::assertSame(['error', 'Cannot send: Not connected to server'], $process->said('log')[0]);
        self::assertSame('', $process->errors());
    }

    public function test_a_daemon_does_not_keep_the_stderr_of_whoever_started_it(): void
    {
        $file = PhpProcess::write('
            $client = new HeartbeatClient("127.0.0.1", 1);
            $client->send("a line before the fork");
            if (pcntl_fork() > 0) { exit; }
            fclose(STDIN); fclose(STDOUT); fclose(STDERR);
            posix_setsid();
            $client->ping();
            file_put_contents(' . var_export($pid = PhpProcess::folder() . '/daemon.pid', true) . ', getmypid());
            sleep(30);');
        $command = ['php', '-d', 'extension=' . PhpProcess::extension(), $file];
        $starter = proc_open($command, [['file', '/dev/null', 'r'], ['file', '/dev/null', 'w'], ['pipe', 'w']], $pipes);
        try {
            $this->until(fn () => (int) @file_get_contents($pid) > 0, 'the daemon runs', 20);
            stream_set_timeout($pipes[2], 20);
            $said = stream_get_contents($pipes[2]);
            self::assertFalse(stream_get_meta_data($pipes[2])['timed_out'], 'the end of stderr was waited for');
            self::assertMatchesRegularExpression('/^\[.*\] \[ERROR\] Cannot send: Not connected to server\n$/', $said);
        } finally {
            posix_kill((int) @file_get_contents($pid) ?: proc_get_status($starter)['pid'], SIGKILL);
            proc_close($starter);
        }
    }

    /** @return array<string, array{0: string, 1: string, 2: string}> Workerman, its stdoutFile, and where lines are expected */
    public static function daemons(): array
    {
        $sets = [];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            $sets["$name, into its stdoutFile"] = [$folder, 'stdout.log', 'stdout.log'];
            $sets["$name, into its log where stdout goes nowhere"] = [$folder, '/dev/null', 'workerman.log'];
        }
        return $sets;
    }

    /** @dataProvider daemons */
    public function test_in_a_daemon_of_workerman_s_lines_are_where_workerman_writes(string $workerman, string $stdoutFile, string $expected): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('daemon.php', "
            Worker::\$stdoutFile = " . var_export($stdoutFile === '/dev/null' ? $stdoutFile : "$app->folder/$stdoutFile", true) . ";
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 1, 'php_workers' => 0, 'bus' => false]);
            \$server->on('start', function () {" . self::DATABASE . '
                $GLOBALS["kept"] = [$listener, $database, $heard];
                $GLOBALS["client"] = new HeartbeatClient("127.0.0.1", 1, ["auto_reconnect" => false]);
                $GLOBALS["client"]->send("x");
                $GLOBALS["client"]->connect();
            });
            $server->every(0.05, function () { ($heard = stream_get_contents($GLOBALS["kept"][2])) === "" || file_put_contents("heard", $heard, FILE_APPEND); });
            $server->start();');
        self::assertSame(0, $app->php('daemon.php', 'start', '-d')->exitCode(30));
        $peer = Peer::served($port);
        $peer->send(99);
        $lines = fn (): string => (string) @file_get_contents("$app->folder/$expected");
        foreach (['[ERROR] Cannot send: Not connected to server', '[ERROR] Connection error', '[WARNING] Unknown message type: 99'] as $line) {
            $this->until(fn () => str_contains($lines(), $line), "'$line' is in $expected", 20);
        }
        $app->command('daemon.php', 'stop');
        $this->until(fn () => $app->master() === 0, 'it ends', 30);
        self::assertFileDoesNotExist("$app->folder/heard", 'the engine spoke to a data base');
    }
}
