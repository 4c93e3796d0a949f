<?php

namespace Heartbus\Tests\Loops;

use Heartbus\Tests\{EventLoop, FakeServer, Frame, Library, Peer, PhpProcess, Port, TestCase, Wait};

/** How the extension finds a loop of others, moves in, and moves out again. */
final class GuestTest extends TestCase
{
    private const CLIENT = '$client = new HeartbeatClient("127.0.0.1", $port, ["node_id" => "a"] + $config);
        $client->on("register", fn () => say("register"));
        $client->on("data", function (string $payload) use ($client) { say("data", $payload); $client->disconnect(); });
        $client->on("close", fn () => say("close"));
        $client->connect();';

    public function test_no_loop_library_is_loaded_by_looking_for_one(): void
    {
        $server = FakeServer::listen();
        $process = $this->script('
            spl_autoload_register(fn (string $class) => say("autoload", $class));
            $port = ' . $server->port . '; $config = [];' . self::CLIENT . '
            HeartbeatClient::run();
            $server = new HeartbeatServer("127.0.0.1", ' . Port::free() . ');
            $server->on("start", fn () => $server->stop());
            $server->start();
            say("end");');
        [$peer] = $server->register();
        $peer->send(Frame::DATA, 'x');
        $process->next('close');
        $peer->close();
        $process->next('end');
        self::assertSame([['Workerman\Worker']], array_values(array_unique($process->said('autoload'), SORT_REGULAR)), 'only Workerman is the original\'s own');
    }

    /** @dataProvider guests */
    public function test_clients_connected_before_the_loop_runs_are_driven_by_it_and_let_it_end(string $name, string $use, string $run): void
    {
        $server = FakeServer::listen();
        $process = EventLoop::named($name)->run('$config = []; $port = ' . "{$server->port}; $use\n" . self::CLIENT . "\nsay('connected');\n$run\nsay('the loop ended');");
        [$peer] = $server->register();
        $process->next('connected');
        $peer->send(Frame::DATA, 'x');
        self::assertSame(['x'], $process->next('data'));
        $peer->expect(Frame::UNREGISTER);
        $peer->close();
        $process->next('close');
        $process->next('the loop ended');
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider guests */
    public function test_the_setting_makes_a_loop_that_does_not_run_yet_drive_a_server_and_a_client(string $name, string $use, string $run, string $setting): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("
            \$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => '$setting']);
            \$server->on('register', fn (Node \$node) => \$server->sendTo(\$node->id, 'hello'));
            \$server->on('disconnected', fn () => \$server->stop());
            \$server->on('unregister', fn () => \$server->stop());
            \$server->start();
            say('start returned');
            \$port = $port; \$config = ['loop' => '$setting'];" . self::CLIENT . "\n$run\nsay('the loop ended');");
        $process->next('start returned');
        self::assertSame(['hello'], $process->next('data'));
        $process->next('the loop ended');
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_loop_that_is_asked_for_and_is_not_there_is_a_config_exception(): void
    {
        foreach (['revolt' => 'needs Revolt: there is no class Revolt\EventLoop', 'react' => 'needs ReactPHP: there is no class React\EventLoop\Loop'] as $setting => $text) {
            $process = $this->script("
                foreach ([new HeartbeatServer('127.0.0.1', 9501, ['loop' => '$setting']), new HeartbeatClient('127.0.0.1', 9501, ['loop' => '$setting'])] as \$subject) {
                    try { \$subject instanceof HeartbeatServer ? \$subject->start() : \$subject->connect(); }
                    catch (Heartbus\Exception\ConfigException \$e) { say('refused', \$e->getMessage()); }
                }");
            self::assertSame(0, $process->exitCode(), $process->transcript());
            self::assertSame(array_fill(0, 2, ["'loop' => '$setting' $text"]), $process->said('refused'));
        }
    }

    /** @dataProvider guests */
    public function test_a_server_runs_its_own_loop_while_the_other_one_does_not_run(string $name, string $use, string $run): void
    {
        // Never, and not any more.
        foreach ([$use, "soon(fn () => null); $run"] as $before) {
            $port = Port::free();
            $process = EventLoop::named($name)->run("$before\nserve(new HeartbeatServer('127.0.0.1', $port));");
            $process->next('ready');
            Peer::connect($port)->register('a');
            $process->signal(SIGTERM);
            $process->next('returned');
            self::assertSame(0, $process->exitCode());
        }
    }

    /** @dataProvider guests */
    public function test_the_running_loop_is_found_from_inside_of_a_fiber(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            (new Fiber(function () {
                \$server = new HeartbeatServer('127.0.0.1', $port);
                \$server->on('register', fn (Node \$node) => \$server->sendTo(\$node->id, 'hello'));
                \$server->on('unregister', fn () => \$server->stop());
                \$server->start();
                say('start returned');
                \$port = $port; \$config = [];" . self::CLIENT . "
            }))->start();
        });
        say('the loop ended');");
        $process->next('start returned');
        self::assertSame(['hello'], $process->next('data'));
        $process->next('the loop ended');
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider guests */
    public function test_run_of_the_clients_takes_over_from_a_loop_that_does_not_run(string $name, string $use): void
    {
        $server = FakeServer::listen();
        $process = EventLoop::named($name)->run("$use\n\$config = []; \$port = {$server->port};" . self::CLIENT . 'HeartbeatClient::run(); say("run returned");');
        $server->register();
        $process->next('register');
        $process->signal(SIGINT);
        $process->next('run returned');
        // ReactPHP runs its loop at the end of the script: the client must not keep that alive.
        self::assertSame(0, $process->exitCode(20));
    }

    /** @dataProvider guests */
    public function test_run_of_the_clients_inside_the_loop_is_refused(string $name): void
    {
        $server = FakeServer::listen();
        $process = EventLoop::named($name)->run("inside(function () { \$config = []; \$port = {$server->port};" . self::CLIENT . '
            try { HeartbeatClient::run(); } catch (LogicException $e) { say("refused", $e->getMessage()); $client->disconnect(); }
        });');
        self::assertSame(["HeartbeatClient::run(): the loop of $name runs already, and the clients with it"], $process->next('refused'));
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider guests */
    public function test_stop_outside_of_our_callbacks_lets_the_loop_end(string $name, string $use, string $run, string $setting, string $later): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port);
            \$server->on('stop', fn () => say('stop'));
            \$server->every(60, fn () => null);
            \$server->start();
            $later(0.05, function () use (\$server) { \$server->stop(); say('stop returned', \$server->getStats()['monitor']['running']); });
        });
        say('the loop ended');");
        $process->next('stop');
        self::assertSame([false], $process->next('stop returned'));
        $process->next('the loop ended');
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider guests */
    public function test_a_server_can_be_started_and_stopped_again_and_again(string $name): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port);
            \$rounds = 0;
            \$server->on('stop', function () use (\$server, &\$rounds) { if (++\$rounds < 3) { \$server->start(); } });
            \$server->on('data', fn () => \$server->stop());
            \$server->on('start', fn () => say('ready'));
            \$server->start();
        });
        say('the loop ended');");
        for ($i = 0; $i < 3; $i++) {
            $process->next('ready');
            $peer = Peer::connect($port);
            $peer->register('a');
            $peer->send(Frame::DATA, 'stop');
            $peer->expectError(503, 'Server is shutting down');
        }
        $process->next('the loop ended');
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider guests */
    public function test_an_exception_in_a_callback_comes_out_of_the_loop_and_nothing_is_lost(string $name, string $use, string $run): void
    {
        $port = Port::free();
        $process = EventLoop::named($name)->run("
            \$work = function () {
                \$server = new HeartbeatServer('127.0.0.1', $port);
                \$server->on('start', fn () => say('ready'));
                \$server->on('data', function (Node \$node, string \$payload) use (\$server) {
                    say('data', \$payload);
                    if (\$payload === 'bad') { throw new DomainException('from the callback'); }
                    if (\$payload === 'end') { \$server->stop(); }
                });
                \$server->start();
            };
            try { inside(\$work); } catch (Throwable \$e) { say('caught', (\$e->getPrevious() ?? \$e)->getMessage()); }
            $run
            say('the loop ended');");
        $process->next('ready');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->bytes(implode('', array_map(fn (string $payload) => Frame::bytes(Frame::DATA, $payload), ['1', 'bad', '2', 'end'])));
        self::assertSame(['from the callback'], $process->next('caught'));
        $process->next('the loop ended');
        self::assertSame([['1'], ['bad'], ['2'], ['end']], $process->said('data'));
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_exit_in_a_callback_ends_the_process_with_its_code(string $name): void
    {
        $loop = EventLoop::named($name);
        $port = Port::free();
        $process = $loop->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port);" . '
            $server->on("start", fn () => say("ready"));
            $server->on("data", function (Node $node, string $payload) { say("data", $payload); if ($payload === "nap") { nap(0.05); } exit(7); });
            $server->start();
        });');
        foreach ($loop->isWorkerman() ? ['now', 'nap'] : ['nap'] as $payload) {
            // Workerman starts another worker.
            $process->next('ready', 15);
            $peer = Peer::connect($port);
            $peer->register('a');
            $peer->send(Frame::DATA, $payload);
            self::assertSame([$payload], $process->next('data'));
            $this->until(fn () => $peer->hasEnded(), 'the connection ends');
        }
        if (!$loop->isWorkerman()) {
            self::assertSame(7, $process->exitCode());
        }
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_a_fiber_that_nobody_resumes_harms_nobody(string $name): void
    {
        $loop = EventLoop::named($name);
        $port = Port::free();
        $process = $loop->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port);" . '
            $server->on("start", fn () => say("ready"));
            $server->on("data", function (Node $node, string $payload) use ($server) {
                say("data", $payload);
                if ($payload === "end") { $server->stop(); } else { Fiber::suspend(); say("never"); }
            });
            $server->on("stop", fn () => say("stop"));
            $server->start();
        });');
        $process->next('ready');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->send(Frame::DATA, '1')->send(Frame::DATA, '2')->send(Frame::DATA, 'end');
        $process->next('stop');
        self::assertSame([['1'], ['2'], ['end']], $process->said('data'));
        if ($loop->isWorkerman()) {
            $process->signal(SIGINT);
        }
        self::assertSame(0, $process->exitCode());
        self::assertSame([], $process->said('never'));
        self::assertSame('', $process->errors());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_callbacks_may_sleep_and_await_with_pfinal_asyncio(string $workerman): void
    {
        $port = Port::free();
        $app = \Heartbus\Tests\WorkermanApp::make($workerman);
        $app->write('server.php', Library::autoload('pfinal-asyncio 3') . '
            use function PfinalClub\Asyncio\{sleep, create_task, await};
            use PfinalClub\Asyncio\Concurrency\CancellationScope;
            $server = new HeartbeatServer("127.0.0.1", ' . $port . ');
            $server->on("data", function (Node $node, string $payload) use ($server) {
                say("begin", $payload);
                if ($payload === "sleep") { sleep(2); }
                if ($payload === "await") {
                    $payload .= CancellationScope::run(function () {
                        $task = create_task(function () { sleep(1.5); return " result"; });
                        return await($task);
                    });
                }
                $server->sendTo($node->id, "done $payload");
            });
            $server->on("start", fn () => say("ready"));
            $server->start();');
        $process = $app->php('server.php', 'start');
        $process->next('ready');
        $peer = Peer::connect($port);
        $peer->register('a');
        $peer->bytes(implode('', array_map(fn (string $payload) => Frame::bytes(Frame::DATA, $payload), ['sleep', 'await', 'quick'])));
        $done = array_map(fn () => $peer->expect(Frame::DATA)->payload, range(1, 3));
        self::assertSame('done quick', $done[0], 'nobody waits for a callback that sleeps');
        self::assertEqualsCanonicalizing(['done quick', 'done await result', 'done sleep'], $done);
        self::assertSame([['sleep'], ['await'], ['quick']], $process->said('begin'));
    }

    /** @return array<string, array> the name, what begins to use it, what runs it, the setting, what starts a timer */
    public static function guests(): array
    {
        return [
            'Revolt' => ['Revolt', 'EventLoop::getDriver();', 'EventLoop::run();', 'revolt', 'EventLoop::delay'],
            'ReactPHP' => ['ReactPHP', 'Loop::get();', 'Loop::run();', 'react', 'Loop::addTimer'],
        ];
    }
}
