<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * A PHP script in a process of its own, with the extension loaded: its output, what it says with `say()`, its signals
 * and its end. Owns the process group: whatever the script forks ends with it. Knows nothing about servers or clients.
 *
 * Output goes to files, not pipes: a script that prints much never waits for a reader.
 */
final class PhpProcess
{
    /** @var array<int, self> every process that may still run, by its pid */
    private static array $running = [];
    private static ?string $folder = null;
    private static int $scripts = 0;

    /** @var resource */
    private $process;
    /** @var resource */
    private $stdin;
    private int $pid;
    private ?int $exitCode = null;
    private string $output;
    private string $errors;
    /** @var array<int, true> positions in the history that next() has handed out */
    private array $taken = [];

    /**
     * @param string $code PHP without its opening tag; support/prelude.php is loaded before it
     * @param list<string> $arguments
     * @param array{ini?: list<string>, env?: array<string, string>, wrap?: list<string>, cwd?: string} $options wrap: words before php
     */
    public static function run(string $code, array $arguments = [], array $options = []): self
    {
        return self::file(self::write($code), $arguments, $options);
    }

    /** Runs a file that exists. */
    public static function file(string $file, array $arguments = [], array $options = []): self
    {
        return new self($file, $arguments, $options);
    }

    /** Writes a script into the run's folder; the prelude is loaded before it unless told otherwise. */
    public static function write(string $code, bool $prelude = true): string
    {
        $file = self::folder() . '/script' . ++self::$scripts . '.php';
        $head = $prelude ? 'require ' . var_export(__DIR__ . '/prelude.php', true) . ";\n" : '';
        file_put_contents($file, preg_match('/^<\?php/', $code) ? $code : "<?php\n" . self::USES . $head . $code . "\n");
        return $file;
    }

    public const USES = <<<'PHP'
        use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
        use PfinalClub\AsyncioHeartbeat\Node\Node;
        use PfinalClub\AsyncioHeartbeat\Protocol\{HeartbeatProtocol, Message};
        use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

        PHP;

    public static function folder(): string
    {
        if (self::$folder === null) {
            self::$folder = sys_get_temp_dir() . '/heartbus-tests-' . getmypid();
            @mkdir(self::$folder);
        }
        return self::$folder;
    }

    /** The extension's file, as this process was told to load it. */
    public static function extension(): string
    {
        return (getenv('BUILD_DIR') ?: dirname(__DIR__, 3) . '/build') . '/heartbus.so';
    }

    private function __construct(string $file, array $arguments, array $options)
    {
        $ini = ['extension=' . self::extension(), 'display_errors=stderr', 'error_reporting=-1', 'log_errors=0', ...$options['ini'] ?? []];
        // A run that is killed takes its processes along.
        $command = ['setsid', 'setpriv', '--pdeathsig', 'KILL', ...$options['wrap'] ?? [], PHP_BINARY];
        foreach ($ini as $setting) {
            array_push($command, '-d', $setting);
        }
        array_push($command, $file, ...array_map('strval', $arguments));
        $this->output = tempnam(self::folder(), 'out');
        $this->errors = tempnam(self::folder(), 'err');
        $environment = array_merge(getenv(), $options['env'] ?? []);
        $this->process = proc_open($command, [['pipe', 'r'], ['file', $this->output, 'a'], ['file', $this->errors, 'a']], $pipes,
            $options['cwd'] ?? null, $environment);
        Assert::assertIsResource($this->process, 'PHP could not be started');
        $this->stdin = $pipes[0];
        // setsid and setpriv exec, so the pid stays; it is the group too.
        $this->pid = $this->status()['pid'];
        self::$running[$this->pid] = $this;
    }

    public function pid(): int
    {
        return $this->pid;
    }

    public function output(): string
    {
        return file_get_contents($this->output);
    }

    /** What it wrote to stderr, without the line about this machine's limit, which says nothing about the process. */
    public function errors(): string
    {
        return preg_replace('/^\[[^]]+] \[WARNING] max_connections lowered to what the descriptor limit allows .*\n/m', '', $this->allErrors());
    }

    public function allErrors(): string
    {
        return file_get_contents($this->errors);
    }

    public function signal(int $signal): void
    {
        posix_kill($this->pid, $signal);
    }

    /** Lets the process stand still, and returns when it does. */
    public function freeze(): void
    {
        $this->signal(SIGSTOP);
        $states = fn (): array => array_map(fn (string $file) => preg_match('/^\d+ \(.*\) T/s', (string) @file_get_contents($file)), glob("/proc/$this->pid/task/*/stat"));
        Wait::until(fn () => !in_array(0, $states(), true), 'the process stands still');
    }

    public function isRunning(): bool
    {
        // Ask for all: a process that has ended and is not waited for still counts as alive for those who wait for its end.
        array_map(fn (self $process) => $process->poll(), self::$running);
        return $this->exitCode === null;
    }

    /** The exit code once the process has ended; a death by signal N is 128 + N, as a shell has it. */
    public function exitCode(float $seconds = 10): int
    {
        Wait::until(fn () => !$this->isRunning(), 'the process ends', $seconds, fn () => $this->transcript());
        return $this->exitCode;
    }

    private function poll(): ?int
    {
        $this->exitCode === null && $this->status();
        if ($this->exitCode !== null) {
            unset(self::$running[$this->pid]);
        }
        return $this->exitCode;
    }

    /** Before PHP 8.3 only the first look at a process that has ended tells its exit code: each one notes it. */
    private function status(): array
    {
        $status = proc_get_status($this->process);
        if (!$status['running']) {
            $this->exitCode ??= $status['signaled'] ? 128 + $status['termsig'] : $status['exitcode'];
        }
        return $status;
    }

    /** @return list<array> everything said so far, each as [topic, ...arguments] */
    public function history(): array
    {
        $said = [];
        $output = $this->output();
        // A last line without its end is still being written.
        foreach (explode("\n", substr($output, 0, (int) strrpos("\n$output", "\n"))) as $line) {
            if (str_starts_with($line, '@[')) {
                $said[] = json_decode(substr($line, 1), true, flags: JSON_THROW_ON_ERROR);
            }
        }
        return $said;
    }

    /** The arguments of the next thing said under this topic, waiting for it if need be. */
    public function next(string $topic, float $seconds = 10): array
    {
        Wait::until(function () use ($topic, &$found): bool {
            foreach ($this->history() as $position => $said) {
                if ($said[0] === $topic && !isset($this->taken[$position])) {
                    $this->taken[$position] = true;
                    $found = array_slice($said, 1);
                    return true;
                }
            }
            return false;
        }, "the process says '$topic'", $seconds, fn () => $this->transcript(), fn () => !$this->isRunning());
        return $found;
    }

    /** @return list<array> the arguments of everything said under this topic so far */
    public function said(string $topic): array
    {
        return array_values(array_map(fn (array $said) => array_slice($said, 1), array_filter($this->history(), fn (array $said) => $said[0] === $topic)));
    }

    /** Runs PHP code in the process, which must be in serve(), and returns its value. `$server` is in scope there. */
    public function ask(string $code, float $seconds = 10): mixed
    {
        static $number = 0;
        $number++;
        fwrite($this->stdin, json_encode([$number, $code]) . "\n");
        [$answered, $value, $error] = $this->next("answer$number", $seconds);
        Assert::assertTrue($answered, "'$code' threw: $error");
        return $value;
    }

    /** A line on the script's stdin, for one that reads it itself. */
    public function tell(string $line): void
    {
        fwrite($this->stdin, "$line\n");
    }

    public function transcript(): string
    {
        $end = $this->exitCode === null ? 'still running' : "exit code {$this->exitCode}";
        return "pid {$this->pid}, $end\n--- stdout\n" . substr($this->output(), -4000) . "\n--- stderr\n" . substr($this->errors(), -4000);
    }

    public function descriptors(): int
    {
        return count(scandir("/proc/{$this->pid}/fd")) - 2;
    }

    /** @return list<string> names of the process's threads */
    public function threads(): array
    {
        return array_map(fn (string $file) => trim((string) @file_get_contents($file)), glob("/proc/{$this->pid}/task/*/comm"));
    }

    public function residentKilobytes(): int
    {
        preg_match('/^VmRSS:\s+(\d+) kB/m', file_get_contents("/proc/{$this->pid}/status"), $found);
        return (int) $found[1];
    }

    /** Seconds of CPU the process has used. */
    public function cpuSeconds(): float
    {
        // The name in parentheses may contain spaces: count fields behind it.
        $stat = file_get_contents("/proc/{$this->pid}/stat");
        $fields = explode(' ', substr($stat, strrpos($stat, ')') + 2));
        return ($fields[11] + $fields[12]) / 100;
    }

    public function kill(): void
    {
        posix_kill(-$this->pid, SIGKILL);
        posix_kill(-$this->pid, SIGCONT);
        proc_close($this->process);
        unset(self::$running[$this->pid]);
    }

    public static function killAll(): void
    {
        WorkermanApp::cleanUp();
        foreach (self::$running as $process) {
            $process->kill();
        }
        if (self::$folder !== null) {
            self::remove(self::$folder);
            self::$folder = null;
        }
    }

    private static function remove(string $path): void
    {
        if (is_dir($path) && !is_link($path)) {
            foreach (array_diff(scandir($path), ['.', '..']) as $entry) {
                self::remove("$path/$entry");
            }
            rmdir($path);
        } else {
            unlink($path);
        }
    }

    /** @return list<self> */
    public static function all(): array
    {
        return array_values(self::$running);
    }
}
