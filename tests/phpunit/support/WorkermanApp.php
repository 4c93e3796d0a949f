<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/**
 * A folder with a PHP application on Workerman: its scripts, and a vendor/autoload.php that knows Workerman and nothing
 * else. The extension is all there is of Heartbus.
 *
 * Workerman is looked for in vendor/, and in the folders that HEARTBUS_WORKERMAN names, separated by `:`. Version 5 needs
 * workerman/coroutine beside it, or in HEARTBUS_WORKERMAN_COROUTINE.
 */
final class WorkermanApp
{
    /** @var list<self> */
    private static array $made = [];

    private function __construct(public readonly string $folder)
    {
    }

    /** @return array<string, array{0: string}> data sets for tests: a name with the version ⇒ the folder of Workerman */
    public static function installations(): array
    {
        $folders = array_filter([dirname(__DIR__, 3) . '/vendor/workerman/workerman', ...explode(':', getenv('HEARTBUS_WORKERMAN') ?: '')]);
        $found = [];
        foreach ($folders as $folder) {
            $worker = is_file("$folder/src/Worker.php") ? "$folder/src/Worker.php" : "$folder/Worker.php";
            if (is_file($worker) && preg_match('/VERSION = [\'"]v?([\d.]+)/', file_get_contents($worker), $version)) {
                $found["Workerman $version[1]"] = [$folder];
            }
        }
        return $found ?: ['no Workerman' => ['']];
    }

    /** @return array<string, array{0: string, 1: int}> the same, each with one PHP worker and with two */
    public static function installationsAndWorkers(): array
    {
        $sets = [];
        foreach (self::installations() as $name => [$folder]) {
            $sets["$name, one worker"] = [$folder, 1];
            $sets["$name, two workers"] = [$folder, 2];
        }
        return $sets;
    }

    public static function make(string $workerman): self
    {
        if ($workerman === '') {
            Assert::markTestSkipped('Workerman is neither in vendor/ nor in a folder that HEARTBUS_WORKERMAN names');
        }
        $app = self::$made[] = new self(PhpProcess::folder() . '/app' . count(self::$made));
        mkdir("$app->folder/vendor", recursive: true);
        $sources = is_dir("$workerman/src") ? "$workerman/src" : $workerman;
        $coroutine = (getenv('HEARTBUS_WORKERMAN_COROUTINE') ?: dirname($workerman) . '/coroutine') . '/src';
        file_put_contents("$app->folder/vendor/autoload.php", sprintf('<?php
            spl_autoload_register(function (string $class): void {
                foreach (["Workerman\\\\Coroutine\\\\" => [%2$s], "Workerman\\\\" => [%1$s, %2$s]] as $prefix => $folders) {
                    foreach ($folders as $folder) {
                        $file = $folder . "/" . strtr(substr($class, strlen($prefix)), "\\\\", "/") . ".php";
                        if (str_starts_with($class, $prefix) && is_file($file)) { require_once $file; return; }
                    }
                }
            });
            // Beside the application, not beside Workerman.
            Workerman\Worker::$pidFile = %3$s . "/workerman.pid";
            Workerman\Worker::$logFile = %3$s . "/workerman.log";
            // It kills after 2 s otherwise, and a busy machine may need longer.
            Workerman\Worker::$stopTimeout = 30;', var_export($sources, true), var_export($coroutine, true), var_export($app->folder, true)));
        return $app;
    }

    /** Writes a script as it is; one that does not open with <?php gets the harness's prelude and the autoloader first. */
    public function write(string $name, string $code): void
    {
        $head = str_starts_with($code, '<?php') ? '' : "<?php\n" . PhpProcess::USES . "\nuse Workerman\Worker;\nrequire 'vendor/autoload.php';\nrequire "
            . var_export(__DIR__ . '/prelude.php', true) . ";\n";
        file_put_contents("$this->folder/$name", $head . $code);
    }

    public function php(string $name, string ...$arguments): PhpProcess
    {
        return PhpProcess::file($name, $arguments, ['cwd' => $this->folder]);
    }

    /** Runs a command like `status` to its end and returns what it printed. Workerman's exit code is always 0. */
    public function command(string $name, string ...$arguments): string
    {
        $process = $this->php($name, ...$arguments);
        Assert::assertSame(0, $process->exitCode(45), $process->transcript());
        return $process->output();
    }

    /** The pid of the running master, 0 when there is none. */
    public function master(): int
    {
        $pid = (int) @file_get_contents("$this->folder/workerman.pid");
        return $pid > 0 && posix_kill($pid, 0) ? $pid : 0;
    }

    /** @return list<int> the master's worker processes */
    public function workers(): array
    {
        $master = $this->master();
        return array_map('intval', preg_split('/\s+/', (string) @file_get_contents("/proc/$master/task/$master/children"), flags: PREG_SPLIT_NO_EMPTY));
    }

    /** Ends what is left, daemons too, which are in no process group of ours. */
    public static function cleanUp(): void
    {
        foreach (self::$made as $app) {
            foreach ([$app->master(), ...$app->workers()] as $pid) {
                $pid > 0 && posix_kill($pid, SIGKILL);
            }
        }
        self::$made = [];
    }
}
