<?php

namespace Heartbus\Tests\Views;

use Heartbus\Tests\{Library, Port, TestCase};

/** 'log' => 'logger': the engine's messages arrive in Utils\Logger, on PHP's thread. */
final class LoggerTest extends TestCase
{
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

    public function test_a_logger_that_is_too_slow_loses_the_oldest_and_is_told_how_many(): void
    {
        $server = $this->server(['log' => 'logger', 'log_level' => 'error'], '
            PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
                public function log($level, $message, array $context = []): void { $GLOBALS["lines"][] = $message; }
            });');
        $peers[] = $server->node('a');
        $server->ask('for ($i = 0; $i < 1500; $i++) { $server->sendTo("a", "\xFF"); }');
        $this->until(fn () => $server->ask('return count($GLOBALS["lines"] ?? []);') === 1001, 'all is handed over');
        self::assertStringStartsWith('500 log messages were dropped', $server->ask('return $GLOBALS["lines"][0];'));
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
