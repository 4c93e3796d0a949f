<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Bus;
use Heartbus\Exception\{ConfigException, IoException, TimeoutException};
use Heartbus\Tests\{EventLoop, Frame, PhpProcess, Port, TestCase, TestServer};
use InvalidArgumentException;

/** `Heartbus\Bus`: a server from another process. That process is this one, where nothing else is said. */
final class BusTest extends TestCase
{
    private string $socket;

    protected function setUp(): void
    {
        $this->socket = PhpProcess::folder() . '/bus.sock';
    }

    public function test_messages_reach_one_node_some_or_all(): void
    {
        $server = $this->serve();
        $channel = ($a = $server->connect())->register('a')['channel_id'];
        [$b, $c] = [$server->node('b'), $server->node('c')];
        $bus = $this->bus();
        self::assertTrue($bus->sendTo('a', 'main channel'));
        self::assertSame('main channel', $a->expect(Frame::DATA)->payload);
        self::assertTrue($bus->sendTo(nodeId: 'a', data: 'named', channelId: $channel));
        self::assertSame(['named', $channel], [($frame = $a->expect(Frame::DATA))->payload, $frame->channel]);
        self::assertFalse($bus->sendTo('a', 'x', $channel + 1), 'not one of its channels');
        self::assertFalse($bus->sendTo('a', 'x', -1));
        self::assertFalse($bus->sendTo('nobody', 'x'));
        self::assertFalse($bus->sendTo("\xff", 'x'));
        self::assertSame(2, $bus->sendToMany(['a', 'nobody', 'c', "\xff"], 'some'));
        self::assertSame('some', $a->expect(Frame::DATA)->payload);
        self::assertSame('some', $c->expect(Frame::DATA)->payload);
        self::assertSame(0, $bus->sendToMany([], 'x'));
        self::assertSame(3, $bus->broadcast('all'));
        foreach ([$a, $b, $c] as $peer) {
            self::assertSame('all', $peer->expect(Frame::DATA)->payload);
            $peer->expectSilence();
        }
    }

    public function test_what_cannot_be_sent_is_refused_and_the_connection_goes_on(): void
    {
        $server = $this->serve(['max_frame_bytes' => 4096, 'outbox_bytes' => 4096]);
        $peer = $server->node('a');
        $bus = $this->bus();
        foreach (['sendTo' => ['a', "\xff"], 'sendToMany' => [['a'], "\xff"], 'broadcast' => ["\xff"]] as $method => $arguments) {
            try {
                $bus->$method(...$arguments);
                self::fail("$method took bytes that v1 cannot carry");
            } catch (InvalidArgumentException $error) {
                self::assertStringContainsString('UTF-8', $error->getMessage());
            }
        }
        self::assertFalse($bus->sendTo('a', str_repeat('x', 10_000)), 'longer than a frame may be');
        self::assertTrue($bus->sendTo('a', 'still there'));
        self::assertSame('still there', $peer->expect(Frame::DATA)->payload);
    }

    public function test_nodes_are_found_by_id_and_page_by_page(): void
    {
        $server = $this->serve();
        for ($number = 0; $number < 25; $number++) {
            $server->node(sprintf('dev-%02d', $number), ['number' => $number]);
        }
        ($other = $server->node('other'))->beat();
        $bus = $this->bus();
        $node = $bus->node('dev-07');
        self::assertSame(['dev-07', '127.0.0.1', ['number' => 7], 'online'], [$node->id, $node->ip, $node->metadata, $node->status]);
        self::assertSame(1, $bus->node('other')->heartbeatCount);
        self::assertNull($bus->node('nobody'));
        self::assertNull($bus->node("\xff"));
        self::assertTrue($bus->isOnline('dev-07'));
        self::assertFalse($bus->isOnline('nobody'));

        $pages = fn (array $filter, int $limit): array => $this->pages($bus, $filter, $limit);
        $devices = array_map(fn (int $number) => sprintf('dev-%02d', $number), range(0, 24));
        self::assertEqualsCanonicalizing([...$devices, 'other'], array_merge(...$pages([], 100)));
        self::assertEqualsCanonicalizing($devices, array_merge(...$pages(['id' => 'dev-*'], 7)));
        self::assertGreaterThanOrEqual(4, count($pages(['id' => 'dev-*'], 7)));
        self::assertEqualsCanonicalizing(['dev-10', 'dev-11', 'dev-12', 'dev-13', 'dev-14', 'dev-15', 'dev-16', 'dev-17', 'dev-18', 'dev-19'],
            array_merge(...$pages(['id' => 'dev-1?'], 100)));
        self::assertCount(26, array_merge(...$pages(['ip' => '127.0.0.1'], 1000)));
        self::assertSame([], array_merge(...$pages(['ip' => '10.0.0.1', 'id' => '*'], 100)));
        self::assertSame(['other'], array_merge(...$pages(['id' => 'o*'], 1)));

        self::assertTrue($bus->disconnect('other'));
        $other->expectClosed();
        $this->until(fn () => !$bus->isOnline('other'), 'it is gone');
        self::assertFalse($bus->disconnect('other'));
        self::assertFalse($bus->disconnect("\xff"));
    }

    public function test_metadata_is_set_over_the_bus_and_nodes_are_found_by_it(): void
    {
        $server = $this->serve();
        $a = $server->node('a', ['from' => 'node']);
        foreach (['b', 'c', 'd'] as $id) {
            $server->node($id, ['floor' => 2]);
        }
        $bus = $this->bus();
        self::assertTrue($bus->setMetadata('a', ['room' => 'blue', 'seat' => 7]));
        self::assertTrue($bus->setMetadata('b', ['room' => 'blue']));
        self::assertFalse($bus->setMetadata('nobody', ['room' => 'blue']));
        self::assertFalse($bus->setMetadata("\xff", ['room' => 'blue']));
        $expected = ['from' => 'node', 'room' => 'blue', 'seat' => 7];
        self::assertSame($expected, $bus->node('a')->metadata);
        self::assertSame($expected, $server->ask('return $server->getNodeManager()->getNode("a")->metadata;'));
        $find = fn (array $metadata, array $more = []): array => array_merge(...$this->pages($bus, ['metadata' => $metadata] + $more, 1));
        self::assertEqualsCanonicalizing(['a', 'b'], $find(['room' => 'blue']));
        self::assertSame(['a'], $find(['room' => 'blue', 'seat' => 7.0]));
        self::assertSame(['b'], $find(['room' => 'blue', 'floor' => 2], ['id' => '?', 'ip' => '127.0.0.1']));
        self::assertEqualsCanonicalizing(['c', 'd'], $find(['room' => null]));
        self::assertSame([], $find(['room' => 'red']));
        self::assertEqualsCanonicalizing(['a', 'b', 'c', 'd'], $find([]));
        // A node of the bus is a copy; what is set of it goes to the server, as long as it is the same registration.
        $copy = $bus->node('c');
        $copy->setMetadata('room', 'red');
        $bus->nodes(['id' => 'd'])['nodes'][0]->setMetadata('room', 'red');
        self::assertEqualsCanonicalizing(['c', 'd'], $find(['room' => 'red']));
        $server->node('c');
        $copy->setMetadata('room', 'green');
        self::assertSame('green', $copy->getMetadata('room'), 'the copy is whoever\'s who holds it');
        self::assertSame([], $bus->node('c')->metadata);
        // The node is sent nothing.
        $a->expectSilence();
        foreach ([[[], \InvalidArgumentException::class], [['k' => INF], \InvalidArgumentException::class], [['k' => str_repeat('x', 70_000)], \Heartbus\Exception\LimitException::class]] as [$metadata, $class]) {
            try {
                $bus->setMetadata('a', $metadata);
                self::fail('not refused');
            } catch (\Exception $error) {
                self::assertInstanceOf($class, $error);
            }
        }
        self::assertSame($expected, $bus->node('a')->metadata);
        foreach ([['metadata' => 'blue'], ['metadata' => ['room' => ['blue']]], ['metadata' => array_fill_keys(range('a', 'q'), 1)]] as $filter) {
            try {
                $bus->nodes($filter);
                self::fail('not refused');
            } catch (\InvalidArgumentException $error) {
                self::assertStringContainsString('etadata', $error->getMessage());
            }
        }
    }

    public function test_numbers_are_those_of_the_server(): void
    {
        $server = $this->serve(['name' => 'numbers']);
        $server->node('a')->beat();
        $bus = $this->bus();
        self::assertSame($this->socket, $bus->getSocket());
        $stats = $bus->stats();
        self::assertSame(['name' => 'numbers', 'host' => '127.0.0.1', 'port' => $server->port, 'pid' => $server->process->pid(),
            'version' => phpversion('heartbus'), 'socket' => $this->socket], $stats['server']);
        $own = $server->stats();
        foreach (['nodes', 'channels', 'connections'] as $part) {
            self::assertSame($own[$part], $stats[$part]);
        }
        self::assertSame(array_keys($own['engine']), array_keys($stats['engine']));
        self::assertSame([1, 1, 1, 0], [$stats['nodes']['online'], $stats['engine']['heartbeats'], $stats['engine']['bus_clients'], $stats['engine']['dispatch_workers']]);
        self::assertMatchesRegularExpression('/^\w+ 1$/m', $bus->metrics());
        self::assertMatchesRegularExpression('/^# TYPE \w+ histogram$/m', $bus->metrics());
    }

    public function test_wrong_arguments_are_told(): void
    {
        $this->serve();
        $bus = $this->bus();
        $refusals = [
            [fn () => Bus::connect($this->socket, 0.0), InvalidArgumentException::class, 'The timeout must be a number of seconds from 0.001 to 3600, 0 given'],
            [fn () => Bus::connect($this->socket, NAN), InvalidArgumentException::class, 'The timeout must be'],
            [fn () => Bus::connect('a name/with a slash'), ConfigException::class, 'The name of a server must have 1 to 64 letters'],
            [fn () => $bus->nodes(['color' => 'red']), InvalidArgumentException::class, 'Unknown filter: color (there are: id, ip, metadata)'],
            [fn () => $bus->nodes(['ip' => 'red']), InvalidArgumentException::class, "The filter 'ip' is no IP address: red"],
            [fn () => $bus->nodes(['id' => 7]), InvalidArgumentException::class, "The filter 'id' must be a string"],
            [fn () => $bus->nodes([], null, 0), InvalidArgumentException::class, 'A page has 1 to 1000 nodes, not 0'],
            [fn () => $bus->nodes([], null, 1001), InvalidArgumentException::class, 'A page has 1 to 1000 nodes, not 1001'],
            [fn () => $bus->sendToMany([[]], 'x'), \TypeError::class, 'must hold strings only, array given'],
            [fn () => $bus->nodes(['id' => "\xff"]), InvalidArgumentException::class, "The filter 'id' must be valid UTF-8"],
            [fn () => $bus->nodes(['ip' => "\xff"]), InvalidArgumentException::class, "The filter 'ip' must be valid UTF-8"],
            [fn () => $bus->nodes(["\xff" => 'red']), InvalidArgumentException::class, 'Unknown filter: '],
            [fn () => $bus->nodes(['metadata' => ["\xff" => 1]]), InvalidArgumentException::class, 'metadata cannot be encoded as JSON'],
            [fn () => $bus->setMetadata('a', ["\xff" => 1]), InvalidArgumentException::class, 'metadata cannot be encoded as JSON'],
            [fn () => new Bus(), \Error::class, 'private'],
            [fn () => clone $bus, \Error::class, 'clone'],
            [fn () => serialize($bus), \Exception::class, "Serialization of 'Heartbus\\Bus' is not allowed"],
        ];
        foreach ($refusals as [$call, $class, $text]) {
            try {
                $call();
                self::fail("not refused: $text");
            } catch (\PHPUnit\Framework\AssertionFailedError $error) {
                throw $error;
            } catch (\Throwable $error) {
                self::assertInstanceOf($class, $error);
                self::assertStringContainsString($text, $error->getMessage());
            }
        }
        self::assertSame(0, $bus->sendToMany(["\xff" => 'nobody'], 'x'), 'keys are of no account');
        self::assertTrue((new \ReflectionClass(Bus::class))->isFinal());
    }

    public function test_a_process_has_one_connection_for_a_socket_however_often_it_connects(): void
    {
        $this->serve();
        $this->bus();
        $descriptors = count(scandir('/proc/self/fd'));
        for ($i = 0; $i < 20; $i++) {
            $bus = $this->bus();
            self::assertSame(1, $bus->stats()['engine']['bus_clients']);
        }
        self::assertSame($descriptors, count(scandir('/proc/self/fd')));
        $other = $this->script("say('clients', Heartbus\Bus::connect('$this->socket', 10.0)->stats()['engine']['bus_clients']);");
        self::assertSame([2], $other->next('clients'));
        self::assertSame(0, $other->exitCode());
        $this->until(fn () => $bus->stats()['engine']['bus_clients'] === 1, 'the other has gone');
    }

    public function test_a_script_starts_no_thread_for_it(): void
    {
        $this->serve();
        $process = $this->script("Heartbus\Bus::connect('$this->socket', 10.0)->stats(); say('asked'); fgets(STDIN);");
        $process->next('asked');
        self::assertCount(1, $process->threads());
    }

    public function test_the_server_may_be_restarted_under_a_process_that_uses_it(): void
    {
        $server = $this->serve();
        $bus = $this->bus();
        self::assertSame($server->process->pid(), $bus->stats()['server']['pid']);
        foreach ([SIGTERM, SIGKILL] as $signal) {
            $server->process->signal($signal);
            $server->process->exitCode();
            try {
                $bus->stats();
                self::fail('nobody is there');
            } catch (IoException $error) {
                self::assertStringContainsString($this->socket, $error->getMessage());
            }
            $server = $this->serve();
            $peer = $server->node('a');
            self::assertTrue($bus->sendTo('a', 'here we are again'));
            self::assertSame('here we are again', $peer->expect(Frame::DATA)->payload);
            self::assertSame($server->process->pid(), $bus->stats()['server']['pid']);
        }
    }

    public function test_a_server_that_does_not_answer_is_a_timeout_and_late_answers_confuse_nobody(): void
    {
        $server = $this->serve();
        $server->node('a');
        $patient = $this->bus();
        self::assertTrue($patient->isOnline('a'));
        $bus = Bus::connect($this->socket, 0.2);
        $server->process->freeze();
        for ($i = 0; $i < 3; $i++) {
            try {
                $bus->isOnline('a');
                self::fail('it answered');
            } catch (TimeoutException $error) {
                self::assertSame(['The engine did not answer within 200 ms', 5], [$error->getMessage(), $error->getCode()]);
            }
        }
        // A new process cannot even say hello.
        $process = $this->script("try { Heartbus\Bus::connect('$this->socket', 0.1)->stats(); } catch (Throwable \$e) { say('refused', \$e::class); }");
        self::assertSame([TimeoutException::class], $process->next('refused'));
        $server->process->signal(SIGCONT);
        self::assertSame(1, $patient->stats()['nodes']['online']);
        self::assertNull($patient->node('b'));
        self::assertSame('a', $patient->node('a')->id);
    }

    public function test_no_server_is_told_with_the_places_where_none_is(): void
    {
        $this->expectException(IoException::class);
        $this->expectExceptionMessage("No Heartbus server at $this->socket.none");
        Bus::connect("$this->socket.none");
    }

    public function test_a_server_is_looked_for_where_the_argument_says_then_where_php_ini_says_then_by_its_name(): void
    {
        $this->serve(['name' => 'by-path']);
        // Nobody else's: tests of others may run at the same time.
        $name = 'heartbus-tests-' . getmypid();
        $named = TestServer::start(['name' => $name, 'bus' => null]);
        $ask = "function ask(?string \$socket = null): void {
                try { say('server', Heartbus\Bus::connect(\$socket, 10.0)->stats()['server']['name']); }
                catch (Heartbus\Exception\IoException \$e) { say('server', \$e->getMessage()); }
            }";
        $process = $this->script("$ask ask('$this->socket'); ask('$name'); ini_set('heartbus.socket', '$this->socket'); ask(); ask('$name'); ask('nobody-of-$name');",
            [], ['ini' => ["heartbus.socket=$name"]]);
        self::assertSame(0, $process->exitCode(), $process->transcript());
        [$path, $byName, $setting, $argument, [$nobody]] = $process->said('server');
        self::assertSame([['by-path'], [$name], ['by-path'], [$name]], [$path, $byName, $setting, $argument]);
        self::assertStringStartsWith('No Heartbus server at /run/heartbus/nobody-of-', $nobody);
        self::assertStringContainsString(" or /tmp/heartbus-" . posix_getuid() . '/', $nobody);
        $process = $this->script("$ask ask();", [], ['ini' => ["heartbus.socket=$name"]]);
        self::assertSame([$name], $process->next('server'));
        $named->stop();
        self::assertFileDoesNotExist("/run/heartbus/$name.sock");
    }

    public function test_two_servers_without_names_both_have_a_socket(): void
    {
        [$first, $second] = [TestServer::start(['bus' => null]), TestServer::start(['bus' => null])];
        // Others may have the usual name at this moment, and may be about to stop.
        foreach ([$first, $second] as $server) {
            $process = $this->script("foreach (['HeartbeatServer-$server->port', 'HeartbeatServer'] as \$name) {
                try { say('pid', Heartbus\Bus::connect(\$name, 10.0)->stats()['server']['pid']); } catch (Heartbus\Exception\HeartbusException) {}
            }");
            self::assertSame(0, $process->exitCode(), $process->transcript());
            self::assertContains([$server->process->pid()], $process->said('pid'));
        }
    }

    public function test_a_socket_in_use_is_not_taken_and_one_that_was_left_behind_is(): void
    {
        $server = $this->serve();
        $second = $this->script("try { serve(new HeartbeatServer('127.0.0.1', \$argv[1], ['loop' => 'native', 'bus' => '$this->socket'])); }
            catch (Heartbus\Exception\HeartbusException \$e) { say('refused', \$e->getMessage()); }", [(string) Port::free()]);
        self::assertStringContainsString("$this->socket is in use by another server", $second->next('refused')[0]);
        $server->node('a');
        self::assertTrue($this->bus()->isOnline('a'));
        $server->process->signal(SIGKILL);
        $server->process->exitCode();
        self::assertFileExists($this->socket);
        $this->serve()->node('b');
        self::assertTrue($this->bus()->isOnline('b'));
    }

    public function test_only_the_server_s_user_may_use_it_unless_there_is_a_group(): void
    {
        if (posix_getuid() !== 0 || !posix_getgrnam('www-data')) {
            self::markTestSkipped('only root can be somebody else');
        }
        // A copy of the extension and code that is no file: others may not be able to read where the project lies.
        $extension = PhpProcess::folder() . '/heartbus.so';
        copy(PhpProcess::extension(), $extension);
        $code = "try { \$answer = Heartbus\\Bus::connect('$this->socket', 10.0)->isOnline('a'); }
            catch (Heartbus\\Exception\\IoException \$e) { \$answer = \$e->getMessage(); } echo json_encode(\$answer);";
        $ask = function (string $user) use ($extension, $code): mixed {
            $group = $user === 'www-data' ? 'www-data' : 'nogroup';
            $command = ['setpriv', "--reuid=$user", '--clear-groups', "--regid=$group", PHP_BINARY, '-n', '-d', "extension=$extension", '-r', $code];
            return json_decode((string) shell_exec(implode(' ', array_map('escapeshellarg', $command))), flags: JSON_THROW_ON_ERROR);
        };
        $mode = function (): array {
            clearstatcache();
            return [fileperms($this->socket) & 0777, posix_getgrgid(filegroup($this->socket))['name']];
        };

        $server = $this->serve();
        $server->node('a');
        self::assertSame([0600, 'root'], $mode());
        self::assertStringContainsString("No right to use the Heartbus server at $this->socket", $ask('www-data'));
        // The kernel would let them in then, the engine does not.
        chmod($this->socket, 0666);
        self::assertIsString($ask('www-data'));
        self::assertTrue($ask('root'));
        $server->stop();

        $server = $this->serve(['bus_group' => 'www-data']);
        $server->node('a');
        self::assertSame([0660, 'www-data'], $mode());
        self::assertTrue($ask('www-data'));
        self::assertStringContainsString("No right to use the Heartbus server at $this->socket", $ask('nobody'));
        $server->stop();

        $none = $this->script("try { serve(new HeartbeatServer('127.0.0.1', \$argv[1], ['loop' => 'native', 'bus' => '$this->socket', 'bus_group' => 'no such group'])); }
            catch (Throwable \$e) { say('refused', \$e->getMessage()); }", [(string) Port::free()]);
        self::assertStringContainsString('no such group', $none->next('refused')[0]);
    }

    public function test_a_child_that_is_forked_connects_for_itself_and_the_parent_goes_on(): void
    {
        $this->serve()->node('a');
        $process = $this->script("
            use Heartbus\Bus;
            \$bus = Bus::connect('$this->socket', 10.0);
            say('parent', \$bus->isOnline('a'));
            for (\$i = 0; \$i < 3; \$i++) {
                if (pcntl_fork() === 0) {
                    try { say('inherited', \$bus->isOnline('a')); } catch (Throwable \$e) { say('inherited', \$e::class); }
                    \$own = Bus::connect('$this->socket', 10.0);
                    say('child', \$own->isOnline('a'), \$own->stats()['engine']['bus_clients']);
                    exit(4);
                }
                pcntl_wait(\$status);
                say('child ended', pcntl_wexitstatus(\$status));
                say('parent', \$bus->isOnline('a'), \$bus->stats()['engine']['bus_clients']);
            }");
        self::assertSame(0, $process->exitCode(), $process->transcript());
        self::assertSame(array_fill(0, 3, ['Heartbus\Exception\WrongProcessException']), $process->said('inherited'));
        self::assertSame(array_fill(0, 3, [4]), $process->said('child ended'));
        foreach ($process->said('child') as [$isOnline, $clients]) {
            self::assertTrue($isOnline);
            self::assertGreaterThanOrEqual(2, $clients);
        }
        self::assertSame([true, true, true, true], array_column($process->said('parent'), 0));
    }

    public function test_a_server_s_own_callback_may_use_it(): void
    {
        $server = $this->serve([], "\$server->on('data', function (Node \$node, string \$payload) {
            say('sent', Heartbus\Bus::connect('$this->socket', 10.0)->sendTo(\$node->id, 'back'));
        });");
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'x');
        self::assertSame([true], $server->next('sent'));
        self::assertSame('back', $peer->expect(Frame::DATA)->payload);
    }

    public function test_nonsense_on_the_socket_ends_only_its_sender(): void
    {
        $server = $this->serve();
        $server->node('a');
        $bus = $this->bus();
        foreach (["GET / HTTP/1.0\r\n\r\n", str_repeat("\xff", 100), "HBUS\xff\xff" . str_repeat("\0", 100)] as $nonsense) {
            $stream = stream_socket_client("unix://$this->socket");
            fwrite($stream, $nonsense);
            stream_set_timeout($stream, 10);
            stream_get_contents($stream);
            self::assertFalse(stream_get_meta_data($stream)['timed_out'], 'it was closed');
            self::assertTrue($bus->isOnline('a'));
        }
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_in_a_fiber_under_a_loop_a_call_suspends_and_other_work_goes_on(string $name): void
    {
        $server = $this->serve();
        $server->node('a');
        $process = EventLoop::named($name)->run("
            \$say = fn (string \$who) => function () use (\$who) { (new Fiber(function () use (\$who) {
                \$bus = Heartbus\Bus::connect('$this->socket', 20.0);
                say('asks', \$who);
                say('answer', \$who, \$who === 'stats' ? \$bus->stats()['nodes']['online'] : \$bus->isOnline(\$who));
            }))->start(); };
            inside(function () use (\$say) {
                // All at once on one connection.
                foreach (['a', 'b', 'stats'] as \$who) { soon(\$say(\$who)); }
                \$tick = function () use (&\$tick, \$say) {
                    say('tick');
                    is_file('$this->socket.again') && @unlink('$this->socket.again') && soon(\$say('a'));
                    is_file('$this->socket.end') || soon(function () use (&\$tick) { (new Fiber(function () use (&\$tick) { nap(0.01); \$tick(); }))->start(); });
                };
                \$tick();
            });
            say('the loop ended');");
        foreach (['a' => true, 'b' => false, 'stats' => 1] as $who => $answer) {
            $answers[] = $process->next('answer');
        }
        self::assertEqualsCanonicalizing([['a', true], ['b', false], ['stats', 1]], $answers);

        // An engine that takes its time: the loop turns meanwhile.
        $server->process->freeze();
        // Not touch(), which sets the time in a second step: the file may be gone by then.
        file_put_contents("$this->socket.again", '');
        $this->until(fn () => count($process->said('asks')) === 4, 'it asks');
        $before = count($process->said('tick'));
        $this->until(fn () => count($process->said('tick')) > $before + 5, 'other work goes on');
        self::assertCount(3, $process->said('answer'));
        $server->process->signal(SIGCONT);
        self::assertSame(['a', true], $process->next('answer'));
        touch("$this->socket.end");
        if (!EventLoop::named($name)->isWorkerman()) {
            $process->next('the loop ended');
            self::assertSame(0, $process->exitCode(), 'nothing keeps the loop');
        }
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_in_a_fiber_a_timeout_and_the_end_of_the_server_are_told(string $name): void
    {
        $server = $this->serve();
        $process = EventLoop::named($name)->run("
            inside(fn () => soon(fn () => (new Fiber(function () {
                say('answer', Heartbus\Bus::connect('$this->socket', 20.0)->isOnline('a'));
                \$bus = Heartbus\Bus::connect('$this->socket', 0.3);
                foreach ([1, 2] as \$time) {
                    while (!is_file('$this->socket.' . \$time)) { nap(0.01); clearstatcache(); }
                    try { say('answer', \$bus->isOnline('a')); } catch (Throwable \$e) { say('answer', \$e::class); }
                }
                say('over');
            }))->start()));");
        self::assertSame([false], $process->next('answer'));
        $server->process->freeze();
        touch("$this->socket.1");
        self::assertSame([TimeoutException::class], $process->next('answer'));
        $server->process->signal(SIGKILL);
        $server->process->exitCode();
        touch("$this->socket.2");
        self::assertSame([IoException::class], $process->next('answer'));
        $process->next('over');
        if (!EventLoop::named($name)->isWorkerman()) {
            self::assertSame(0, $process->exitCode(), 'nothing keeps the loop');
        }
    }

    /** A patient one: how long an answer may take is not what most tests are about. */
    private function bus(): Bus
    {
        return Bus::connect($this->socket, 10.0);
    }

    private function serve(array $config = [], string $script = ''): TestServer
    {
        return TestServer::start($config + ['bus' => $this->socket], $script);
    }

    /** @return list<list<string>> the ids of each page */
    private function pages(Bus $bus, array $filter, int $limit): array
    {
        $page = null;
        do {
            ['nodes' => $nodes, 'next' => $page] = $bus->nodes($filter, $page, $limit);
            self::assertLessThanOrEqual($limit, count($nodes));
            $pages[] = array_column($nodes, 'id');
        } while ($page !== null);
        return $pages;
    }
}
