<?php

namespace Heartbus\Tests\Views;

use Heartbus\Tests\{Frame, Library, PhpProcess, Port, TestCase, WallClock, WorkermanApp};

/** 'log' => 'logger': the engine's messages arrive in Utils\Logger, on PHP's thread. */
final class LoggerTest extends TestCase
{
    private const TELLING_LOGGER = '
        PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
            public function log($level, $message, array $context = []): void { say("log", $level, $message, $context); }
        });';

    public function test_the_server_s_messages_have_the_texts_levels_and_contexts_of_the_php_library(): void
    {
        $server = $this->server(['log' => 'logger', 'worker_count' => 1, 'max_connections' => 3, 'heartbeat_timeout' => 30,
            'rate_limit_capacity' => 3, 'rate_limit_refill_rate' => 0.001], self::TELLING_LOGGER);
        $a = $server->node('a', ['k' => 'v']);
        $a->send(Frame::UNREGISTER)->expectSilence();
        $a->send(Frame::PING)->expectError(429, 'Rate limit exceeded');
        $b = $server->node('b');
        $c = $server->connect();
        $c->bytes(Frame::heartbeat() . Frame::bytes(99) . Frame::body(Frame::DATA, '[1'));
        $c->expectError(500, 'Failed to process message: Invalid message payload');
        $server->connect()->expectError(503, 'Server is full or connection limit reached');
        $b->close();
        $this->until(fn () => $server->stats()['connections']['active_connections'] === 2, 'b is gone');
        $server->ask('$server->getNodeManager()->setHeartbeatTimeout(0.3);');
        $d = $server->node('d');
        $d->expectClosed();
        $c->bytes("\xAB\x12\x03");
        $c->finish();
        $c->expectClosed();
        self::assertSame(0, $server->stop());

        $log = $server->process->said('log');
        $ids = fn (string $message): array => array_column(array_values(array_filter($log, fn (array $line) => $line[1] === $message)), 2);
        [$first, $second, $third, $fourth] = array_column($ids('Connection established'), 'connection_id');
        foreach ($log as [, , &$context]) {
            $context = array_map(fn (mixed $value) => is_int($value) && $value >= 32768 ? 'port' : $value, $context);
            if (isset($context['last_heartbeat'])) {
                self::assertIsFloat($context['last_heartbeat']);
                self::assertGreaterThanOrEqual(0.3, $context['last_heartbeat']);
                $context['last_heartbeat'] = 'seconds';
            }
            $context['trace'] = isset($context['trace']) ? preg_replace('/:\d+$/', ':port', $context['trace']) : null;
            $context = array_filter($context, fn (mixed $value) => $value !== null);
        }
        unset($context);
        $peer = fn (int $id): array => ['connection_id' => $id, 'ip' => '127.0.0.1', 'port' => 'port'];
        self::assertSame([
            ['info', 'HeartbeatServer starting', ['host' => '127.0.0.1', 'port' => $server->port, 'workers' => 1, 'protocol' => 'tcp']],
            ['info', 'Worker started', ['worker_id' => 0, 'pid' => $server->process->pid()]],
            ['info', 'Connection established', $peer($first)],
            ['info', 'Node registered', ['node_id' => 'a', 'connection_id' => $first, 'channel_id' => 1]],
            ['info', 'Node unregistered', ['node_id' => 'a', 'connection_id' => $first]],
            ['warning', 'Rate limit exceeded', ['ip' => '127.0.0.1']],
            ['info', 'Connection established', $peer($second)],
            ['info', 'Node registered', ['node_id' => 'b', 'connection_id' => $second, 'channel_id' => 2]],
            ['info', 'Connection established', $peer($third)],
            ['warning', 'Heartbeat from unregistered connection', ['connection_id' => $third]],
            ['warning', 'Unknown message type: 99', []],
            ['error', 'Failed to handle message: Invalid message payload', ['trace' => "connection $third of 127.0.0.1:port"]],
            ['error', 'Failed to add connection: Server is full or connection limit reached', ['ip' => '127.0.0.1', 'port' => 'port', 'error_code' => 503]],
            ['info', 'Node disconnected', ['node_id' => 'b', 'connection_id' => $second]],
            ['info', 'Connection established', $peer($fourth)],
            ['info', 'Node registered', ['node_id' => 'd', 'connection_id' => $fourth, 'channel_id' => 3]],
            ['warning', 'Node timeout', ['node_id' => 'd', 'last_heartbeat' => 'seconds']],
            ['warning', 'Invalid message format', []],
            ['info', 'Worker stopping', ['worker_id' => 0]],
        ], $log);
    }

    public function test_without_a_level_stderr_gets_warnings_and_the_logger_what_its_own_level_lets_through(): void
    {
        $server = $this->server();
        $server->node('a')->send(99)->expectSilence();
        $this->until(fn () => str_contains($server->process->errors(), '[WARNING] Unknown message type: 99'), 'the warning');
        self::assertStringNotContainsString('[INFO]', $server->process->errors());

        $server = $this->server(['log' => 'logger', 'max_connections' => 100], self::TELLING_LOGGER . 'PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLevel(2);');
        $server->node('a')->send(99)->expectSilence();
        $this->until(fn () => $server->process->said('log') !== [], 'the warning');
        self::assertSame([['warning', 'Unknown message type: 99', []]], $server->process->said('log'));
        // php.ini alone: no line of the application changes.
        $server = $this->server([], self::TELLING_LOGGER, ['ini' => ['heartbus.log=logger']]);
        $this->until(fn () => in_array('Worker started', array_column($server->process->said('log'), 1)), 'the start is logged');
        self::assertSame('', $server->process->errors());
    }

    public function test_a_file_gets_lines_in_the_format_of_the_php_library(): void
    {
        $file = \Heartbus\Tests\PhpProcess::folder() . '/engine.log';
        $server = $this->server(['log_file' => $file, 'log_level' => 'info']);
        $server->node("a\n{\"é");
        $this->until(fn () => preg_match('/^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[INFO\] Node registered \{"node_id":"a\\\\n\{\\\\"\\\\u00e9","connection_id":1,"channel_id":1\}$/m',
            file_get_contents($file)) === 1, 'the node is one line of the file');
        self::assertSame('', $server->process->errors());
    }

    public function test_the_numbers_are_logged_now_and_then(): void
    {
        $server = $this->server(['log' => 'logger', 'stats_interval' => 0.2], self::TELLING_LOGGER);
        $node = $server->node('a');
        $node->beat();
        $stats = fn (): array => array_column(array_filter($server->process->said('log'), fn (array $line) => $line[1] === 'Server stats'), 2);
        $this->until(function () use ($stats, &$numbers): bool {
            $all = $stats();
            $numbers = end($all);
            return $numbers !== false && $numbers['nodes']['total_heartbeats'] === 1;
        }, 'the beat is in the numbers');
        self::assertSame(['nodes', 'channels', 'connections', 'memory'], array_keys($numbers));
        $shown = $server->stats();
        foreach (['nodes', 'channels', 'connections'] as $part) {
            // As getStats() shows them, but for the queues, which are PHP's.
            $same = array_diff_key($shown[$part], ['total_send_queue' => 0, 'total_recv_queue' => 0]);
            self::assertEqualsCanonicalizing(array_keys($same), array_keys($numbers[$part]));
            self::assertEquals($same, $numbers[$part]);
        }
        self::assertSame(['current', 'peak', 'current_formatted', 'peak_formatted'], array_keys($numbers['memory']));
        self::assertGreaterThan(1 << 20, $numbers['memory']['current']);
        self::assertSame(hb_format_bytes($numbers['memory']['peak']), $numbers['memory']['peak_formatted']);
        $this->until(fn () => count($stats()) > 2, 'they come again');
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_under_workerman_they_arrive_in_the_logger_of_the_engine_s_worker(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $port = Port::free();
        $app->write('server.php', self::TELLING_LOGGER . "
            (new HeartbeatServer('127.0.0.1', $port, ['log' => 'logger', 'worker_count' => 1]))->start();");
        $process = $app->php('server.php', 'start');
        $said = fn (string $message): bool => in_array($message, array_column($process->said('log'), 1));
        $this->until(fn () => $said('HeartbeatServer starting') && $said('Worker started'), 'the start is logged');
        $peer = \Heartbus\Tests\Peer::connect($port);
        $peer->register('a');
        $this->until(fn () => $said('Connection established') && $said('Node registered'), 'the node is logged');
        $peer->close();
        $this->until(fn () => $said('Node disconnected'), 'its end is logged');
        $process->signal(SIGINT);
        self::assertSame(0, $process->exitCode(15));
        self::assertTrue($said('Worker stopping'), $process->transcript());
        self::assertSame('', $process->errors());
    }

    public function test_nobody_waits_for_whoever_does_not_read_the_log(): void
    {
        $unread = ['wrap' => ['bash', '-c', 'exec "$@" 2> >(exec sleep 600)', 'bash']];
        $server = $this->server(['log_level' => 'info', 'worker_count' => 1], '', $unread);
        $peer = $server->connect();
        // Twice as many lines as the pipe holds.
        $peer->bytes(str_repeat(Frame::registration('a') . Frame::bytes(Frame::UNREGISTER), 900));
        for ($i = 0; $i < 900; $i++) {
            $peer->expect(Frame::REGISTER);
        }
        $peer->expectSilence();
        self::assertSame(0, $server->stop());
    }

    public function test_a_flood_of_nonsense_is_a_few_lines_and_a_count(): void
    {
        $since = microtime(true);
        $server = $this->server(['worker_count' => 1]);
        $peer = $server->connect();
        $peer->bytes(str_repeat(Frame::bytes(99), 20_000));
        $peer->expectSilence();
        $this->until(fn () => $this->told($server->process, 'WARNING', 'Unknown message type')[1] === 20_000, 'every one is a line or counted');
        // Ten per second, the first and the last of which may have begun before and end later.
        $lines = $this->told($server->process, 'WARNING', 'Unknown message type')[0];
        self::assertLessThanOrEqual(10 * (microtime(true) - $since + 2), $lines);
    }

    public function test_what_the_application_does_in_a_loop_is_a_few_lines_and_a_count(): void
    {
        $since = microtime(true);
        $server = $this->server(['worker_count' => 1]);
        $peers[] = $server->node('a');
        $server->ask('for ($i = 0; $i < 20000; $i++) { $server->sendTo("a", "\xFF"); }', 30);
        // Nothing else is written here: the counts come by themselves.
        $this->until(fn () => $this->told($server->process, 'ERROR', 'Failed to send data')[1] === 20_000, 'every one is a line or counted');
        $lines = $this->told($server->process, 'ERROR', 'Failed to send data')[0];
        self::assertLessThanOrEqual(10 * (microtime(true) - $since + 2), $lines);
        self::assertGreaterThanOrEqual(10, $lines);
    }

    public function test_the_lines_of_a_process_without_a_server_are_counted_at_its_end(): void
    {
        $process = $this->script('$client = new HeartbeatClient("127.0.0.1", 1); for ($i = 0; $i < 5000; $i++) { $client->ping(); }');
        self::assertSame(0, $process->exitCode());
        [$lines, $told] = $this->told($process, 'ERROR', 'Cannot ping');
        self::assertSame(5000, $told);
        self::assertGreaterThanOrEqual(10, $lines);
        self::assertLessThan(1000, $lines);
    }

    /** How many lines of a kind there are, and how many there would be with those that were left out. */
    private function told(PhpProcess $process, string $level, string $message): array
    {
        preg_match_all('/\[' . $level . '\] Log messages left out \{"of":"' . $message . '","count":(\d+)\}$/m', $process->errors(), $found);
        $lines = substr_count($process->errors(), "[$level] $message: ");
        return [$lines, $lines + array_sum($found[1])];
    }

    public function test_engine_messages_reach_a_psr_logger_with_level_and_context(): void
    {
        $server = $this->server(['log' => 'logger', 'log_level' => 'info'], '
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
                public function log($level, $message, array $context = []): void { say("log", $level, $message, $context); }
            });');
        $peers[] = $server->node('a');
        self::assertFalse($server->ask('return $server->sendTo("a", "\xFF");'));
        $this->until(fn () => in_array('error', array_column($server->process->said('log'), 0)), 'the refusal is logged');
        self::assertStringNotContainsString('Failed to send data', $server->process->errors());
        foreach ($server->process->said('log') as [$level, $message, $context]) {
            self::assertContains($level, ['debug', 'info', 'warning', 'error']);
            self::assertNotSame('', $message);
            self::assertIsArray($context);
        }
    }

    public function test_a_real_psr_3_logger_gets_them_as_well(): void
    {
        $server = $this->server(['log' => 'logger', 'log_level' => 'error'], Library::autoload('PSR-3') . '
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class extends Psr\Log\AbstractLogger {
                public function log($level, string|Stringable $message, array $context = []): void { say($level, (string) $message); }
            });');
        $peers[] = $server->node('a');
        self::assertFalse($server->ask('return $server->sendTo("a", "\xFF");'));
        self::assertStringStartsWith('Failed to send data', $server->next('error')[0]);
    }

    public function test_they_are_lines_in_the_logger_s_own_buffer(): void
    {
        $server = $this->server(['log' => 'logger', 'log_level' => 'error']);
        $peers[] = $server->node('a');
        $server->ask('return $server->sendTo("a", "\xFF");');
        $buffer = fn () => $server->ask('return PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->getBuffer();');
        $this->until(fn () => $buffer() !== [], 'the line is there');
        self::assertMatchesRegularExpression('/^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[ERROR\] Failed to send data: /', $buffer()[0]);
    }

    public function test_without_it_they_go_to_stderr_and_wrong_values_are_refused(): void
    {
        $server = $this->server(['log_level' => 'error']);
        $peers[] = $server->node('a');
        $server->ask('return $server->sendTo("a", "\xFF");');
        self::assertStringContainsString('[ERROR] Failed to send data', $server->process->errors());
        self::assertSame([], $server->ask('return PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->getBuffer();'));
        $this->expectExceptionMessage("log must be one of 'stderr', 'logger'");
        new \PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer('127.0.0.1', 9501, ['log' => 'nowhere']);
    }

    public function test_a_logger_that_sends_its_lines_through_the_client_is_not_told_of_its_own_troubles(): void
    {
        $process = $this->script(Library::autoload('PSR-3') . '
            $client = new HeartbeatClient("127.0.0.1", 1, ["log" => "logger", "reconnect_interval" => 60]);
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class($client) extends Psr\Log\AbstractLogger {
                public function __construct(private HeartbeatClient $client) {}
                public function log($level, string|Stringable $message, array $context = []): void { say("log", (string) $message); $this->client->send((string) $message); }
            });
            $client->connect();
            for ($i = 0; $i < 5; $i++) { HeartbeatClient::poll(0.1); }
            say("returned");');
        self::assertSame(0, $process->exitCode(20), $process->transcript());
        $process->next('returned');
        $messages = array_column($process->said('log'), 0);
        self::assertNotSame([], preg_grep('/^Connection error/', $messages));
        self::assertSame([], preg_grep('/^Cannot send/', $messages));
        // They are lines instead, one for each that could not be sent.
        self::assertSame(count($messages), substr_count($process->errors(), '[ERROR] Cannot send: Not connected to server'), $process->transcript());
    }

    public function test_a_slow_logger_with_much_to_read_leaves_the_others_their_turns(): void
    {
        $server = $this->server(['log' => 'logger', 'log_level' => 'info', 'worker_count' => 1], '
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
                public function log($level, $message, array $context = []): void { usleep(1000); say("log"); }
            });
            $server->every(0.01, fn () => say("timer"));');
        $peer = $server->connect();
        $peer->bytes(str_repeat(Frame::registration('a') . Frame::bytes(Frame::UNREGISTER), 300));
        $this->until(fn () => count($server->process->said('log')) >= 600, 'all is handed over', 30);
        $said = array_column($server->process->history(), 0);
        $logged = array_keys($said, 'log');
        $between = array_slice($said, $logged[100], $logged[500] - $logged[100]);
        self::assertGreaterThan(10, count(array_keys($between, 'timer')));
    }

    public function test_the_times_of_lines_are_those_of_php_s_time_zone(): void
    {
        $server = $this->server(['worker_count' => 1], 'date_default_timezone_set("Asia/Shanghai");');
        // The line of an engine thread, and of PHP's.
        $lines = function (string $text) use ($server): array {
            $server->connect()->send(99)->expectSilence();
            $server->ask('return $server->sendTo("a", "\xFF");');
            preg_match_all("/^\[(.*)\] \[[A-Z]+\] $text/m", $server->process->errors(), $found);
            return $found[1];
        };
        $peers[] = $server->node('a');
        foreach (['Asia/Shanghai', 'America/St_Johns', 'UTC'] as $name) {
            $server->ask("date_default_timezone_set('$name');");
            // The engine hears of it in the next turn of the loop.
            $server->ask('return null;');
            foreach (['Unknown message type', 'Failed to send data'] as $text) {
                $before = time();
                $told = $lines($text);
                $moment = \DateTimeImmutable::createFromFormat('Y-m-d H:i:s', end($told), new \DateTimeZone($name))->getTimestamp();
                self::assertGreaterThanOrEqual($before - 1, $moment, "$text in $name");
                self::assertLessThanOrEqual(time(), $moment, "$text in $name");
            }
        }
    }

    public function test_in_a_zone_with_summer_time_the_hour_is_right_all_year(): void
    {
        $clock = WallClock::make();
        $server = $this->server(['worker_count' => 1], 'date_default_timezone_set("Europe/Berlin");', ['env' => $clock->environment()]);
        $seen = [];
        foreach ([0, 90, 180, 270, 390, -100] as $days) {
            $clock->set($days * 86400);
            $before = $server->ask('return date("Y-m-d H:i:s");');
            $server->connect()->send(99)->expectSilence();
            $after = $server->ask('return date("Y-m-d H:i:s");');
            preg_match_all('/^\[(.*)\] \[WARNING\] Unknown message type/m', $server->process->errors(), $found);
            self::assertTrue($before <= end($found[1]) && end($found[1]) <= $after, "$days days from now: $before, " . end($found[1]) . ", $after");
            $seen[] = $server->ask('return date("I");');
        }
        self::assertSame(['0', '1'], array_values(array_unique([min($seen), max($seen)])), 'in both halves of the year');
    }

    public function test_a_logger_that_is_too_slow_loses_the_oldest_and_is_told_how_many(): void
    {
        $gate = PhpProcess::folder() . '/gate';
        $server = $this->server(['log' => 'logger', 'log_level' => 'info', 'worker_count' => 1], '
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
                public function log($level, $message, array $context = []): void { $GLOBALS["lines"][] = $message; }
            });
            $server->on("data", function () { say("busy"); while (!file_exists(' . var_export($gate, true) . ')) { usleep(1000); } });');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x');
        $server->next('busy');
        // 1,800 lines, and no kind of them more often than it may be in a second.
        $peer->bytes(str_repeat(Frame::registration('b') . Frame::bytes(Frame::UNREGISTER), 900));
        for ($i = 0; $i < 900; $i++) {
            $peer->expect(Frame::REGISTER);
        }
        $peer->expectSilence();
        touch($gate);
        $dropped = 'return array_values(preg_grep("/ log messages were dropped/", $GLOBALS["lines"] ?? []));';
        $this->until(fn () => $server->ask($dropped) !== [], 'that is told');
        self::assertGreaterThanOrEqual(800, (int) $server->ask($dropped)[0]);
        self::assertLessThan(900, (int) $server->ask($dropped)[0]);
        $this->until(fn () => $server->ask('return count(preg_grep("/^Node (registered|unregistered)$/", $GLOBALS["lines"]));') >= 990, 'all that was kept is handed over');
    }

    public function test_a_logger_that_throws_ends_start_like_a_callback_and_what_waits_at_the_end_is_written(): void
    {
        $port = Port::free();
        $process = $this->script("
            PfinalClub\\AsyncioHeartbeat\\Utils\\Logger::getInstance()->setLogger(new class {
                public function log(\$level, \$message, array \$context = []): void { throw new DomainException(\$message); }
            });
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'log' => 'logger', 'log_level' => 'error']);
            \$server->on('register', function () use (\$server) { for (\$i = 0; \$i < 3; \$i++) { \$server->sendTo('a', \"\\xFF\"); } });
            \$server->on('start', fn () => say('ready'));
            try { \$server->start(); } catch (DomainException \$e) { say('caught', \$e->getMessage()); }");
        $process->next('ready');
        $peer = \Heartbus\Tests\Peer::connect($port);
        $peer->register('a');
        self::assertStringStartsWith('Failed to send data', $process->next('caught')[0]);
        self::assertSame(0, $process->exitCode());
        self::assertSame(2, substr_count($process->errors(), '[ERROR] Failed to send data'));
    }

    public function test_a_forked_child_neither_hangs_nor_hands_over_the_parent_s_messages(): void
    {
        $server = $this->server(['log' => 'logger', 'log_level' => 'debug']);
        $peers[] = $server->node('a');
        self::assertSame(0, $server->ask('
            if (($pid = pcntl_fork()) === 0) { $client = new HeartbeatClient("127.0.0.1", 1); $client->send("x"); exit(0); }
            pcntl_waitpid($pid, $status);
            return pcntl_wexitstatus($status);'));
    }
}
