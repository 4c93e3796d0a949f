<?php

/**
 * What the larger examples want from the operating system: a server in a process of its own beside them, what a process
 * has used, and how many files may be open. Knows nothing about Heartbus.
 */

/** A script with `--host` and `--port` that serves in a process of its own. It ends with us at the latest. */
final class ServerProcess
{
    /** How long it may take until it listens, and until it has stopped. */
    private const PATIENCE = 10.0;

    public readonly int $port;
    private int $pid;
    /** @var ?resource */
    private $process;
    /** @var resource the file that it prints into */
    private $output;

    public function __construct(string $script, string $host = '127.0.0.1', string ...$arguments)
    {
        $this->port = free_port();
        $this->output = tmpfile();
        $this->process = proc_open([...php_command(), $script, '--host', $host, '--port', (string) $this->port, ...$arguments],
            [['file', '/dev/null', 'r'], $this->output, $this->output], $pipes);
        $this->pid = proc_get_status($this->process)['pid'];
        $deadline = microtime(true) + self::PATIENCE;
        while (!($probe = @stream_socket_client("tcp://127.0.0.1:$this->port"))) {
            if (!proc_get_status($this->process)['running'] || microtime(true) > $deadline) {
                fwrite(STDERR, "The server did not start.\n" . $this->stop());
                exit(1);
            }
            usleep(10_000);
        }
        fclose($probe);
    }

    public function __destruct()
    {
        $this->stop();
    }

    /** Stops it and returns what it has printed. */
    public function stop(): string
    {
        if ($this->process !== null) {
            proc_terminate($this->process);
            $deadline = microtime(true) + self::PATIENCE;
            while (proc_get_status($this->process)['running']) {
                if (microtime(true) > $deadline) {
                    proc_terminate($this->process, 9);
                }
                usleep(10_000);
            }
            proc_close($this->process);
            $this->process = null;
        }
        return (string) file_get_contents(stream_get_meta_data($this->output)['uri']);
    }

    public function cpuSeconds(): float
    {
        return cpu_seconds($this->pid);
    }

    public function megabytes(): float
    {
        return resident_megabytes($this->pid);
    }
}

/** Lets Ctrl-C and `kill` end us in order: what we have started is stopped. */
function end_in_order(): void
{
    if (function_exists('pcntl_async_signals')) {
        pcntl_async_signals(true);
        foreach ([SIGINT, SIGTERM, SIGHUP] as $signal) {
            pcntl_signal($signal, function (int $signal): never {
                echo "\n";
                exit(128 + $signal);
            });
        }
    }
}

/** PHP as it runs us, its `-d extension=...` included: the words before our script. */
function php_command(): array
{
    $words = explode("\0", substr(file_get_contents('/proc/self/cmdline'), 0, -1));
    return [PHP_BINARY, ...array_slice($words, 1, count($words) - 1 - count($_SERVER['argv']))];
}

/** A free port below those that the kernel gives to outgoing connections: our own clients do not take it. */
function free_port(): int
{
    do {
        $port = random_int(15000, 29999);
    } while (!($listener = @stream_socket_server("tcp://0.0.0.0:$port")));
    fclose($listener);
    return $port;
}

/** Seconds of CPU that a process has used, all its threads together, in steps of a hundredth. */
function cpu_seconds(int|string $pid = 'self'): float
{
    $stat = (string) @file_get_contents("/proc/$pid/stat");
    $fields = explode(' ', substr($stat, strrpos($stat, ')') + 2)); // a name in parentheses may contain spaces
    return ((int) ($fields[11] ?? 0) + (int) ($fields[12] ?? 0)) / 100;
}

/** Raises the number of files that this process may have open as far as the system lets us, and returns it. */
function raise_file_limit(): int
{
    [$limit, $most] = file_limits();
    if ($limit < $most && function_exists('posix_setrlimit')) {
        posix_setrlimit(POSIX_RLIMIT_NOFILE, $most, $most);
    } elseif ($limit < $most && function_exists('pcntl_exec') && getenv('FILE_LIMIT_RAISED') === false) {
        // Before PHP 8.3 only the shell can: it starts us again, in this same process.
        putenv('FILE_LIMIT_RAISED=1');
        pcntl_exec('/bin/sh', ['-c', 'ulimit -n "$(ulimit -H -n)"; exec "$@"', 'sh', ...php_command(), ...$_SERVER['argv']]);
    }
    return file_limits()[0];
}

/** @return array{0: int, 1: int} how many files this process may have open, and what that can be raised to */
function file_limits(): array
{
    preg_match('/^Max open files\s+(\S+)\s+(\S+)/m', (string) @file_get_contents('/proc/self/limits'), $found);
    return array_map(fn (string $limit): int => $limit === 'unlimited' ? PHP_INT_MAX : (int) $limit, [$found[1] ?? '1024', $found[2] ?? '1024']);
}

/** How many connections one address of ours can have to one port of another. */
function outgoing_ports(): int
{
    [$first, $last] = preg_split('/\s+/', trim((string) @file_get_contents('/proc/sys/net/ipv4/ip_local_port_range'))) + ['32768', '60999'];
    return (int) $last - (int) $first + 1;
}
