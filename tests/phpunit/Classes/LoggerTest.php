<?php

namespace Heartbus\Tests\Classes;

use Error;
use Heartbus\Tests\{Library, TestCase};
use PfinalClub\AsyncioHeartbeat\Utils\Logger;
use TypeError;

final class LoggerTest extends TestCase
{
    private const STAMP = '\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]';
    private string $file;

    protected function setUp(): void
    {
        $this->file = tempnam(sys_get_temp_dir(), 'log');
        $logger = Logger::getInstance();
        $logger->setLevel(Logger::LEVEL_INFO);
        $logger->enable();
        $logger->setLogFile(null);
        $logger->setBufferSize(100);
        $logger->setLogger(null);
        $logger->clearBuffer();
    }

    protected function tearDown(): void
    {
        $this->setUp();
        @unlink($this->file);
        parent::tearDown();
    }

    public function test_there_is_one_logger_and_no_other(): void
    {
        self::assertSame(Logger::getInstance(), Logger::getInstance());
        self::assertSame([0, 1, 2, 3], [Logger::LEVEL_DEBUG, Logger::LEVEL_INFO, Logger::LEVEL_WARNING, Logger::LEVEL_ERROR]);
        $this->expectException(Error::class);
        new Logger();
    }

    public function test_lines_go_to_the_output_and_the_buffer(): void
    {
        $logger = Logger::getInstance();
        $this->expectOutputRegex('/^' . self::STAMP . ' \[INFO\] plain\n' . self::STAMP . ' \[WARNING\] with \{"a":"\\\\u00e9\\\\\/","n":\[1\]\}\n' . self::STAMP . ' \[ERROR\] e\n$/');
        $logger->debug('not at this level');
        $logger->info('plain');
        $logger->warning('with', ['a' => 'é/', 'n' => [1]]);
        hb_log('e', 'error');
        self::assertCount(3, $logger->getBuffer());
        self::assertMatchesRegularExpression('/^' . self::STAMP . ' \[INFO\] plain$/', $logger->getBuffer()[0]);
        $logger->clearBuffer();
        self::assertSame([], $logger->getBuffer());
    }

    public function test_a_message_is_one_line_whoever_wrote_it_and_a_logger_gets_it_as_it_is(): void
    {
        $hostile = "node a\n[ERROR] forged\r\t\e[2J\u{9b}\u{202e}\0 é \xd6\xd0";
        $shown = 'node a\n[ERROR] forged\r\t\u001b[2J\u009b\u202e\u0000 é ' . "\xd6\xd0";
        $this->expectOutputRegex('/^' . self::STAMP . ' \[INFO\] ' . preg_quote($shown) . ' \{"id":"a\\\\n\\\\u202e"\}\n$/D');
        $logger = Logger::getInstance();
        $logger->setLogFile($this->file);
        $logger->info($hostile, ['id' => "a\n\u{202e}"]);
        self::assertSame(1, substr_count(file_get_contents($this->file), "\n"));
        self::assertStringContainsString($shown, $logger->getBuffer()[0]);
        $psr = new class {
            public array $got = [];
            public function log($level, $message, array $context = []): void { $this->got[] = $message; }
        };
        $logger->setLogger($psr);
        $logger->info($hostile);
        self::assertSame([$hostile], $psr->got);
    }

    public function test_levels_and_the_switch(): void
    {
        $logger = Logger::getInstance();
        $logger->setLevel(Logger::LEVEL_ERROR);
        $logger->warning('no');
        $logger->error('yes');
        $logger->disable();
        $logger->error('no');
        $logger->enable();
        $logger->setLevel(Logger::LEVEL_DEBUG);
        hb_log('dbg', 'debug');
        hb_log('odd', 'no such level');
        $this->expectOutputRegex('/^\S+ \S+ \[ERROR\] yes\n\S+ \S+ \[DEBUG\] dbg\n\S+ \S+ \[INFO\] odd\n$/');
    }

    public function test_a_full_buffer_loses_its_older_half(): void
    {
        $logger = Logger::getInstance();
        $logger->setBufferSize(4);
        foreach (range(1, 4) as $number) {
            $logger->info("m$number");
        }
        self::assertSame([0, 1], array_keys($logger->getBuffer()));
        self::assertStringEndsWith('m3', $logger->getBuffer()[0]);
        foreach ([1, 0, -3] as $size) {
            $logger->setBufferSize($size);
            $logger->info('x');
            $logger->info('y');
            self::assertLessThanOrEqual(1, count($logger->getBuffer()));
        }
        $this->setOutputCallback(fn () => '');
    }

    public function test_the_buffer_holds_a_hundred_lines_unless_told_otherwise(): void
    {
        // In a process of its own: here setUp() has set the size.
        $process = $this->script('
            $logger = PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance();
            foreach (range(1, 99) as $number) { $logger->info("m$number"); }
            $before = count($logger->getBuffer());
            $logger->info("m100");
            say("buffer", $before, count($logger->getBuffer()), substr($logger->getBuffer()[0], -3));');
        self::assertSame([99, 50, 'm51'], $process->next('buffer'));
    }

    public function test_a_file_gets_each_line_once(): void
    {
        $this->setOutputCallback(fn () => '');
        $logger = Logger::getInstance();
        $logger->info('before there was a file');
        $logger->flush();
        self::assertCount(1, $logger->getBuffer());
        $logger->setLogFile($this->file);
        $logger->info('into the file');
        $logger->flush();
        $logger->flush();
        self::assertSame(['into the file', 'before there was a file'], array_map(fn (string $line) => substr($line, 29), file($this->file, FILE_IGNORE_NEW_LINES)));
        self::assertSame([], $logger->getBuffer());
    }

    public function test_context_that_json_cannot_hold_is_not_lost(): void
    {
        $logger = Logger::getInstance();
        $this->expectOutputRegex('/x \{"bytes":"a\\\\ufffd","number":0,"ok":1\}\n$/');
        $logger->info('x', ['bytes' => "a\xff", 'number' => INF, 'ok' => 1]);
    }

    public function test_a_logger_of_the_applications_own_gets_the_messages(): void
    {
        $own = new class {
            public array $got = [];

            public function log($level, $message, array $context = []): void
            {
                $this->got[] = [$level, $message, $context];
            }
        };
        $logger = Logger::getInstance();
        $logger->setLogger($own);
        $logger->setLogFile($this->file);
        $logger->warning('m', ['a' => 1]);
        $logger->debug('not at this level');
        $this->expectOutputString('');
        self::assertSame([['warning', 'm', ['a' => 1]]], $own->got);
        self::assertStringContainsString('[WARNING] m {"a":1}', file_get_contents($this->file));
        $this->expectException(TypeError::class);
        $logger->setLogger(new \stdClass());
    }

    public function test_what_a_logger_logs_here_goes_to_the_output_and_not_to_itself(): void
    {
        $own = new class {
            public array $got = [];

            public function log($level, $message, array $context = []): void
            {
                $this->got[] = $message;
                hb_log("told $message", 'error');
                if ($message === 'last') {
                    throw new \LogicException('full');
                }
            }
        };
        Logger::getInstance()->setLogger($own);
        hb_log('first', 'error');
        try {
            hb_log('last', 'error');
            self::fail('nothing was thrown');
        } catch (\LogicException) {
        }
        $other = new \Fiber(function (): void {
            Logger::getInstance()->setLogger(new class {
                public function log(): void
                {
                    \Fiber::suspend();
                }
            });
            hb_log('in a fiber', 'error');
        });
        $other->start();
        Logger::getInstance()->setLogger($own);
        hb_log('while it waits', 'error');
        $other->resume();
        self::assertSame(['first', 'last', 'while it waits'], $own->got);
        $this->expectOutputRegex('/^' . self::STAMP . ' \[ERROR\] told first\n' . self::STAMP . ' \[ERROR\] told last\n' . self::STAMP . ' \[ERROR\] told while it waits\n$/');
    }

    public function test_context_with_a_key_that_is_no_utf_8_is_not_lost(): void
    {
        $this->expectOutputRegex('/x \{"\\\\ufffdkey":1,"ok":2\}\n$/');
        hb_log('x', 'error', ["\xffkey" => 1, 'ok' => 2]);
    }

    public function test_a_real_psr_3_logger_gets_the_messages_and_its_own_levels(): void
    {
        $psr = Library::autoload('PSR-3');
        $process = $this->script($psr . '
            use PfinalClub\AsyncioHeartbeat\Utils\Logger;
            final class Own extends Psr\Log\AbstractLogger {
                public function log($level, string|Stringable $message, array $context = []): void { say("logged", $level, (string) $message, $context); }
            }
            $logger = Logger::getInstance();
            $logger->setLevel(Logger::LEVEL_DEBUG);
            $logger->setLogger(new Own());
            foreach (["debug", "info", "warning", "error"] as $level) {
                hb_log("a {$level}", $level, ["a" => 1]);
                say("known", constant(Psr\Log\LogLevel::class . "::" . strtoupper($level)) === $level);
            }
            $logger->setLogger(new Psr\Log\NullLogger());
            hb_log("to nobody", "error");
            $logger->setLogger(new class extends Psr\Log\AbstractLogger {
                public function log($level, string|Stringable $message, array $context = []): void { throw new Psr\Log\InvalidArgumentException("full"); }
            });
            try { hb_log("x", "error"); say("calm"); } catch (Psr\Log\InvalidArgumentException $error) { say("thrown", $error->getMessage()); }
            $logger->setLogger(null);
            hb_log("to the output", "error");');
        self::assertSame(0, $process->exitCode(), $process->transcript());
        $expected = array_map(fn (string $level) => [$level, "a $level", ['a' => 1]], ['debug', 'info', 'warning', 'error']);
        self::assertSame($expected, $process->said('logged'));
        self::assertSame(array_fill(0, 4, [true]), $process->said('known'));
        self::assertStringNotContainsString('to nobody', $process->transcript());
        self::assertStringContainsString('[ERROR] to the output', $process->transcript());
        self::assertSame([['full']], $process->said('thrown'));
    }
}
