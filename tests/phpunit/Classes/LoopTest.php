<?php

namespace Heartbus\Tests\Classes;

use Heartbus\Tests\{EventLoop, Library, PhpProcess, TestCase, WorkermanApp};

/** Channels and monitors under the loops of others. What is not installed is skipped, and says so. */
final class LoopTest extends TestCase
{
    /** Waiting, a timeout and what comes after it, and a monitor with callbacks of every kind; `wait` sleeps as the loop does. */
    private const SCRIPT = <<<'PHP'
        use PfinalClub\AsyncioHeartbeat\Channel\Channel;
        use PfinalClub\AsyncioHeartbeat\Node\{HeartbeatMonitor, NodeManager};
        function scenario(callable $after, callable $wait): void
        {
            $channel = new Channel(1, 'n');
            $after(0.05, fn () => $channel->putRecv('late'));
            say('recv', $channel->recv());
            $start = microtime(true);
            say('timeout', $channel->recv(0.1), microtime(true) - $start > 0.09, $channel->getStats()['waiting_futures']);
            $channel->putRecv('kept');
            say('kept', $channel->recv(0.1));
            $manager = new NodeManager(0.05);
            $manager->register(new Node('a', 'ip', 1, 1));
            $manager->register(new Node('b', 'ip', 1, 2));
            $monitor = new HeartbeatMonitor($manager, 0.1);
            $log = [];
            $monitor->onTimeout(function (Node $node) use (&$log, $wait): void {
                $log[] = "$node->id begins";
                $wait(0.01);
                $log[] = "$node->id ends";
            });
            $monitor->onTimeout(fn () => throw new Exception('swallowed'));
            $monitor->onTimeout(fn () => throw new Error('logged'));
            $monitor->onTimeout(function (Node $node) use (&$log): void {
                $log[] = "$node->id again";
            });
            $start = microtime(true);
            $monitor->start();
            $monitor->start();
            while (count($log) < 6 && microtime(true) < $start + 10) {
                $wait(0.05);
            }
            $wait(0.35);
            // Each node's callbacks are called in the order of adding. Whether the next waits for one that suspends itself is the loop's affair.
            [$ended, $called] = [preg_grep('/ends/', $log), preg_grep('/ends/', $log, PREG_GREP_INVERT)];
            sort($ended);
            usort($called, fn (string $a, string $b) => $a[0] <=> $b[0]);
            $log = [...$called, ...$ended];
            $checks = $monitor->getStats()['check_count'];
            // Two loops would have checked about twice as often as the interval allows, however slow the machine is.
            say('monitor', $log, $checks > 1 && $checks <= (microtime(true) - $start) / 0.1 + 1);
            $monitor->stop();
            $monitor->start();
            for ($until = microtime(true) + 10; $monitor->getStats()['check_count'] === $checks && microtime(true) < $until;) {
                $wait(0.05);
            }
            $monitor->stop();
            $before = $monitor->getStats()['check_count'];
            $wait(0.15);
            say('stopped', $before > $checks, $monitor->getStats()['check_count'] === $before);
        }
        PHP;

    private function check(PhpProcess $process): void
    {
        self::assertSame(['late'], $process->next('recv'));
        self::assertSame([null, true, 0], $process->next('timeout'));
        self::assertSame(['kept'], $process->next('kept'));
        self::assertSame([['a begins', 'a again', 'b begins', 'b again', 'a ends', 'b ends'], true], $process->next('monitor'));
        self::assertSame([true, true], $process->next('stopped'));
    }

    public function test_a_monitor_calls_back_in_the_order_of_adding_and_goes_on_after_exceptions(): void
    {
        $server = $this->server([], '$server->on("start", function () {
            $manager = new PfinalClub\AsyncioHeartbeat\Node\NodeManager(0.01);
            $manager->register(new Node("a", "ip", 1, 1));
            $GLOBALS["monitor"] = $monitor = new PfinalClub\AsyncioHeartbeat\Node\HeartbeatMonitor($manager, 0.05);
            $monitor->onTimeout(fn (Node $node) => say("called", 1, $node->id));
            $monitor->onTimeout(fn () => say("called", 2) ?? throw new Exception("swallowed"));
            $monitor->onTimeout(fn () => say("called", 3) ?? throw new Error("logged"));
            $monitor->onTimeout(fn () => say("called", 4));
            $monitor->start();
        });');
        $this->until(fn () => count($server->process->said('called')) >= 4, 'all are called');
        self::assertSame([[1, 'a'], [2], [3], [4]], $server->process->said('called'));
        self::assertStringNotContainsString('swallowed', $server->process->errors());
        self::assertTrue($server->ask('return $GLOBALS["monitor"]->isRunning();'));
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_in_a_fiber_of_a_loop(string $name): void
    {
        $loop = EventLoop::named($name);
        $process = $loop->run(self::SCRIPT . '
            function after(float $seconds, callable $then): void
            {
                (new Fiber(function () use ($seconds, $then): void { nap($seconds); $then(); }))->start();
            }
            inside(function (): void {
                (new Fiber(function (): void {
                    scenario(after(...), nap(...));
                    ' . ($loop->isWorkerman() ? 'posix_kill(posix_getppid(), SIGINT);' : '') . '
                }))->start();
            });
            say("the loop ended");');
        $this->check($process);
        if ($loop->isWorkerman()) {
            $process->exitCode(15);
        } else {
            // Nothing is left to wait for, so the loop ends by itself.
            $process->next('the loop ended');
            self::assertSame(0, $process->exitCode());
        }
    }

    /** @dataProvider asyncios */
    public function test_in_a_task_of_pfinal_asyncio(string $asyncio, string $workerman): void
    {
        if ($asyncio === '') {
            self::markTestSkipped('HEARTBUS_ASYNCIO names no pfinal-asyncio, or there is no Workerman 4 for it');
        }
        $app = WorkermanApp::make($workerman);
        $app->write('app.php', 'spl_autoload_register(function (string $class): void {
                $file = ' . var_export("$asyncio/src/", true) . ' . strtr(substr($class, 19), "\\\\", "/") . ".php";
                if (str_starts_with($class, "PfinalClub\\\\Asyncio\\\\") && is_file($file)) { require_once $file; }
            });
            require ' . var_export("$asyncio/src/functions.php", true) . ";\n" . self::SCRIPT . <<<'PHP'

            PfinalClub\Asyncio\run(function (): void {
                say('future', (new Channel(1, 'n'))->recvAsync()::class);
                scenario(fn (float $seconds, callable $then) => PfinalClub\Asyncio\create_task(function () use ($seconds, $then): void {
                    PfinalClub\Asyncio\sleep($seconds);
                    $then();
                }), fn (float $seconds) => PfinalClub\Asyncio\sleep($seconds));
            });
            PHP);
        $process = $app->php('app.php');
        self::assertMatchesRegularExpression('/^PfinalClub\\\\Asyncio\\\\(Internal\\\\)?Future$/', $process->next('future')[0]);
        $this->check($process);
    }

    public static function asyncios(): array
    {
        $workermans = array_filter(WorkermanApp::installations(), fn (string $name) => str_contains($name, 'Workerman 4'), ARRAY_FILTER_USE_KEY);
        $folders = array_filter(explode(':', getenv('HEARTBUS_ASYNCIO') ?: ''));
        if ($workermans === [] || $folders === []) {
            return ['none' => ['', '']];
        }
        return array_combine($folders, array_map(fn (string $folder) => [$folder, current($workermans)[0]], $folders));
    }

    public function test_the_main_program_waits_by_running_the_loop_of_revolt(): void
    {
        $process = $this->script(Library::autoload('Revolt') . '
            use PfinalClub\AsyncioHeartbeat\Channel\Channel;
            $channel = new Channel(2, "n");
            Revolt\EventLoop::delay(0.05, function () use ($channel): void { $channel->putRecv("in main"); });
            say("main", $channel->recv(), $channel->recv(0.05));');
        self::assertSame(['in main', null], $process->next('main'));
        self::assertSame(0, $process->exitCode());
    }
}
