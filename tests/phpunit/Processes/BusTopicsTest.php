<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Bus;
use Heartbus\Tests\{EventLoop, Frame, PhpProcess, ServerApp, TestCase, TestServer};

/** `Bus::subscribe()`: topics for any process, and `$nodes`, which tells who comes and goes. */
final class BusTopicsTest extends TestCase
{
    private string $socket;

    protected function setUp(): void
    {
        $this->socket = PhpProcess::folder() . '/topics-of-the-bus.sock';
    }

    public function test_a_process_hears_what_is_published_to_the_topics_it_has_subscribed_to(): void
    {
        $server = $this->serve();
        $process = $this->subscriber('
            $hear = fn (string $who) => fn (string $topic, string $data, ?string $from, ?Heartbus\Position $position) => say($who, $topic, $data, $from, $position?->offset);
            $bus->subscribe("chat/+", $hear("filter"), gap: fn () => say("gap"));
            $bus->subscribe(filter: "chat/hall", callback: $hear("name"));');
        $a = $server->node('a');
        $a->send(Frame::PUBLISH, json_encode(['topic' => 'chat/hall', 'data' => 'one']));
        self::assertSame(['chat/hall', 'one', 'a', 1], $process->next('name'));
        $bus = $this->bus();
        self::assertSame(0, $bus->publish('news', 'not heard')->reach);
        self::assertSame(2, $bus->publish('chat/hall', "two \xff")->reach);
        $server->ask('$server->publish("chat/attic", "three");');
        self::assertSame(['chat/hall', 'hex:' . bin2hex("two \xff"), null, 2], $process->next('name'));
        $heard = array_map(fn () => $process->next('filter'), range(1, 3));
        self::assertSame([['chat/hall', 'one', 'a', 1], ['chat/hall', 'hex:' . bin2hex("two \xff"), null, 2], ['chat/attic', 'three', null, null]], $heard);
        // A later callback replaces the former one; who has ended it hears no more.
        $process->ask('$bus->subscribe("chat/hall", fn (string $topic, string $data) => say("replaced", $data));');
        $bus->publish('chat/hall', 'four');
        self::assertSame(['four'], $process->next('replaced'));
        self::assertSame([true, false, false], $process->ask('return [$bus->unsubscribe("chat/+"), $bus->unsubscribe("chat/+"), $bus->unsubscribe("\xff")];'));
        $this->until(fn () => $bus->subscribers('chat/hall') === 1, 'the engine knows');
        $bus->publish('chat/hall', 'five');
        self::assertSame(['five'], $process->next('replaced'));
        self::assertCount(4, $process->said('filter'), 'the fourth message was the last');
        self::assertSame([[], []], [$process->said('gap'), array_slice($process->said('name'), 2)]);
        self::assertSame(5, $server->counter('bus_messages_out'), 'each publication once');
        $process->kill();
        $this->until(fn () => $bus->subscribers('chat/hall') === 0, 'a subscription ends with its process');
    }

    public function test_what_cannot_be_subscribed_to_is_refused(): void
    {
        $this->serve(['max_topics' => 1]);
        $process = $this->subscriber('');
        foreach (['"a/#/b"' => 'last level', '""' => 'at least one byte', '"\xff"' => 'UTF-8'] as $filter => $text) {
            self::assertStringContainsString($text, $this->refusal($process, "subscribe($filter, fn () => null)", 'InvalidArgumentException'));
        }
        $this->refusal($process, 'subscribe("a", "no_such_function")', 'TypeError');
        $this->refusal($process, 'subscribe("a", fn () => null, null, "no_such_function")', 'TypeError');
        self::assertStringContainsString('Argument #3 ($since) must be of type ?Heartbus\Position, string given', $this->refusal($process, 'subscribe("a", fn () => null, "1@2")', 'TypeError'));
        self::assertSame('A filter has no position to go on from', $this->refusal($process, 'subscribe("a/+", fn () => null, new Heartbus\Position)', 'InvalidArgumentException'));
        $process->ask('$bus->subscribe("a", fn (string $topic, string $data) => say("heard", $data), null);');
        self::assertStringContainsString('Too many topics', $this->refusal($process, 'subscribe("b", fn () => null)', 'Heartbus\Exception\LimitException'));
        self::assertSame(1, $this->bus()->publish('a', 'still there')->reach);
        self::assertSame(['still there'], $process->next('heard'));
    }

    public function test_the_topic_of_nodes_tells_any_process_who_comes_and_goes(): void
    {
        $server = $this->serve(['presence_debounce' => 0]);
        $process = $this->subscriber('
            $bus->subscribe("\$nodes", function (string $topic, string $json, ?string $from) {
                $change = json_decode($json, true, flags: JSON_THROW_ON_ERROR);
                say("change", $topic, $from, $change["sequence"], $change["event"], $change["node"], $change["reason"], $change["changes"]);
            });');
        $a = $server->node('a');
        self::assertSame(['$nodes', null, 1, 'joined', 'a', 'registered', 1], $process->next('change'));
        $again = $server->node('a');
        self::assertSame(['$nodes', null, 2, 'replaced', 'a', 'replaced', 2], $process->next('change'));
        $again->send(Frame::UNREGISTER);
        self::assertSame(['$nodes', null, 3, 'left', 'a', 'unregistered', 1], $process->next('change'));
        $server->node('b')->close();
        self::assertSame(['$nodes', null, 4, 'joined', 'b', 'registered', 1], $process->next('change'));
        self::assertSame(['$nodes', null, 5, 'left', 'b', 'disconnected', 1], $process->next('change'));
        self::assertSame(5, $server->counter('node_changes'));
        // A node may not ask for it, and nobody says something there.
        $curious = $server->node('curious');
        $curious->send(Frame::SUBSCRIBE, json_encode(['filter' => '$nodes']));
        $error = $curious->expect(Frame::ERROR)->json();
        self::assertSame([403, 'Topics that begin with $ belong to the server'], [$error['code'], $error['message']]);
        self::assertStringContainsString('belong to the server', $this->refusal($process, 'publish("\$nodes", "{}")', 'InvalidArgumentException'));
    }

    public function test_a_process_is_told_who_subscribes_to_a_topic_and_no_longer(): void
    {
        $server = $this->serve(['presence_debounce' => 0]);
        $process = $this->subscriber('
            $bus->subscribe("\$presence/room", function (string $topic, string $json) {
                $change = json_decode($json, true, flags: JSON_THROW_ON_ERROR);
                say("change", $topic, $change["event"], $change["topic"], $change["node"], $change["subscribers"]);
            });');
        [$a, $b] = [$server->node('a'), $server->node('b')];
        $a->subscribe('room');
        self::assertSame(['$presence/room', 'joined', 'room', 'a', 1], $process->next('change'));
        self::assertTrue($this->bus()->join('b', 'room'));
        self::assertSame(['$presence/room', 'joined', 'room', 'b', 2], $process->next('change'));
        $a->subscribe('another');
        $b->close();
        self::assertSame(['$presence/room', 'left', 'room', 'b', 1], $process->next('change'));
        $a->send(Frame::UNSUBSCRIBE, json_encode(['filter' => 'room']));
        self::assertSame(['$presence/room', 'left', 'room', 'a', 0], $process->next('change'));
    }

    public function test_a_server_and_its_nodes_hear_it_where_they_may(): void
    {
        $server = $this->serve(['presence_debounce' => 0, 'presence_topics' => true], '
            $server->subscribe("\$nodes", fn (string $topic, string $json) => say("host", json_decode($json)->event, json_decode($json)->node));');
        $a = $server->node('a');
        self::assertSame(['joined', 'a'], $server->next('host'));
        $a->subscribe('$nodes');
        $server->node('b');
        self::assertSame(['joined', 'b'], $server->next('host'));
        [$topic, $json] = $a->message();
        self::assertSame(['$nodes', 'joined', 'b'], [$topic, json_decode($json)->event, json_decode($json)->node]);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_each_php_worker_hears_of_the_nodes_of_all(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2, 'presence_debounce' => 0], '
            $server->on("start", fn () => $server->subscribe("\$nodes", fn (string $topic, string $json) => say("change", getmypid(), json_decode($json)->node)));');
        $this->until(fn () => $server->bus()->subscribers('$nodes') === 2, 'both have subscribed');
        $server->node('a');
        $heard = [$server->next('change'), $server->next('change')];
        self::assertEqualsCanonicalizing(array_map(fn (int $pid) => [$pid, 'a'], $server->phpWorkers()), $heard);
    }

    public function test_subscriptions_come_back_when_the_server_is_started_anew_and_who_wants_to_know_is_told_that_something_is_missing(): void
    {
        $server = $this->serve();
        $process = $this->subscriber('
            $hear = fn (string $topic, string $data) => say("heard", $data);
            $gap = fn (?int $missed, string $filter) => say("gap", $missed, $filter);
            $bus->subscribe("a", $hear, gap: $gap);
            $bus->subscribe("b", $hear);
            $bus->subscribe("c", $hear, gap: $gap);');
        $server->ask('$server->publish("b", "before");');
        self::assertSame(['before'], $process->next('heard'));
        $server->stop();
        $this->serve();
        self::assertEqualsCanonicalizing([[null, 'a'], [null, 'c']], [$process->next('gap'), $process->next('gap')]);
        self::assertSame(1, $this->bus()->publish('b', 'after')->reach);
        self::assertSame(['after'], $process->next('heard'));
    }

    public function test_a_process_goes_on_from_a_position_and_is_told_what_is_not_kept_any_more(): void
    {
        $this->serve(['history' => ['kept' => ['count' => 3]]]);
        $bus = $this->bus();
        [$first, $second] = [$bus->publish('kept', 'one')->position, $bus->publish('kept', 'two')->position];
        $process = $this->subscriber('
            $say = fn (string $what) => fn (string $topic, string $data, ?string $from, Heartbus\Position $position) => say($what, $data, (string) $position);
            $gap = fn (?int $missed, string $filter) => say("gap", $missed, $filter);
            $bus->subscribe("kept", $say("heard"), Heartbus\Position::fromString("' . $first . '"), $gap);');
        self::assertSame(['two', (string) $second], $process->next('heard'));
        $third = $bus->publish('kept', 'three')->position;
        self::assertSame(['three', (string) $third], $process->next('heard'));
        self::assertSame([], $process->said('gap'));
        // Another process, later: all that is kept, and one that was away for too long.
        $fourth = $bus->publish('kept', 'four')->position;
        $all = $this->subscriber('$bus->subscribe("kept", fn (string $topic, string $data) => say("heard", $data), new Heartbus\Position, fn () => say("gap"));');
        self::assertSame([['two'], ['three'], ['four']], [$all->next('heard'), $all->next('heard'), $all->next('heard')]);
        self::assertCount(1, $all->said('gap'), 'the first one is not kept any more');
        $process->ask('$bus->subscribe("kept", $GLOBALS["say"]("again"), new Heartbus\Position(' . $third->offset . ', ' . $third->epoch . '), $GLOBALS["gap"]);');
        self::assertSame(['four', (string) $fourth], $process->next('again'));
        $process->ask('$bus->subscribe("kept", $GLOBALS["say"]("lost"), new Heartbus\Position(99, ' . $third->epoch . '), $GLOBALS["gap"]);');
        self::assertSame([null, 'kept'], $process->next('gap'));
        self::assertSame(['two', (string) $second], $process->next('lost'));
    }

    public function test_a_process_that_is_busy_is_told_how_much_it_has_missed_and_in_which_place(): void
    {
        $server = $this->serve(['bus_queue_events' => 3]);
        $process = $this->subscriber('
            $seen = 0;
            $bus->subscribe("t", function (string $topic, string $data, ?string $from, Heartbus\Position $position) use (&$seen) {
                $seen++;
                if ($data === "last") { say("last", $seen, $position->offset); }
                if ($data === "first") { say("first"); while (!is_file($GLOBALS["go"])) { usleep(1000); clearstatcache(); } }
            }, gap: function (?int $missed) use (&$seen) { $seen += $missed; say("gap", $missed); });', 'go');
        $bus = $this->bus();
        $bus->publish('t', 'first');
        $process->next('first');
        $payload = str_repeat('x', 60_000);
        for ($published = 1; $server->counter('bus_messages_dropped') < 5; $published++) {
            self::assertSame(1, $bus->publish('t', $payload)->reach);
            self::assertLessThan(2000, $published);
        }
        touch($this->socket . '.go');
        // What found no room is told, whatever comes next, and all that was published was seen or missed.
        $process->next('gap');
        self::assertSame($published + 1, $bus->publish('t', 'last')->position->offset);
        self::assertSame([$published + 1, $published + 1], $process->next('last'));
    }

    public function test_a_callback_that_throws_takes_a_message_from_nobody_else(): void
    {
        $this->serve();
        $process = $this->script('
            $bus = Heartbus\Bus::connect("' . $this->socket . '", 10.0);
            $told = [];
            $tell = function (string $who) use (&$told) {
                return function (string $topic, string $data) use (&$told, $who) { $told[] = "$who $data"; throw new DomainException($who); };
            };
            foreach (["a/b" => "name", "a/+" => "level", "#" => "rest"] as $filter => $who) { $bus->subscribe($filter, $tell($who)); }
            $bus->publish("a/b", "one");
            $bus->publish("a/b", "two");
            for ($thrown = []; count($told) < 6;) {
                try { Heartbus\Bus::poll(10.0); } catch (DomainException $e) { $thrown[] = $e->getMessage(); }
            }
            say("told", $told, $thrown);');
        $each = fn (string $data) => array_map(fn (string $who) => "$who $data", ['name', 'rest', 'level']);
        self::assertSame([[...$each('one'), ...$each('two')], ['name', 'rest', 'level', 'name', 'rest', 'level']], $process->next('told'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_run_ends_when_nothing_is_subscribed_to_any_more_and_when_a_signal_comes(): void
    {
        $this->serve();
        $script = '
            $bus = Heartbus\Bus::connect("' . $this->socket . '", 10.0);
            $bus->subscribe("t", function (string $topic, string $data) use ($bus) { say("heard", $data); if ($data === "end") { $bus->unsubscribe("t"); } });
            say("subscribed");
            Heartbus\Bus::run();
            say("returned");';
        [$ends, $stopped] = [$this->script($script), $this->script($script)];
        $ends->next('subscribed');
        $stopped->next('subscribed');
        $this->bus()->publish('t', 'x');
        self::assertSame([['x'], ['x']], [$ends->next('heard'), $stopped->next('heard')]);
        $stopped->signal(SIGTERM);
        $stopped->next('returned');
        $this->bus()->publish('t', 'end');
        $ends->next('returned');
        self::assertSame([0, 0], [$ends->exitCode(), $stopped->exitCode()]);
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_the_loop_that_runs_tells_it_and_ends_when_nothing_is_left(string $name): void
    {
        $this->serve();
        $loop = EventLoop::named($name);
        $process = $loop->run('
            inside(function () {
                $bus = Heartbus\Bus::connect("' . $this->socket . '", 10.0);
                $bus->subscribe("t", function (string $topic, string $data) use ($bus) {
                    say("heard", $data);
                    if ($data === "wait") { nap(0.05); say("waited"); }
                    if ($data === "end") { $bus->unsubscribe("t"); }
                });
                say("subscribed");
            });
            say("the loop ended");');
        $process->next('subscribed');
        foreach (['one', 'wait', 'two', 'end'] as $data) {
            $this->bus()->publish('t', $data);
            self::assertSame([$data], $process->next('heard'));
        }
        $process->next('waited');
        if (!$loop->isWorkerman()) {
            $process->next('the loop ended');
            self::assertSame(0, $process->exitCode());
        }
    }

    private function serve(array $config = [], string $script = ''): TestServer
    {
        return TestServer::start($config + ['bus' => $this->socket], $script);
    }

    private function bus(): Bus
    {
        return Bus::connect($this->socket, 10.0);
    }

    /** A process with `$bus` that tells what it has subscribed to, and answers ask(). */
    private function subscriber(string $script, string $file = ''): PhpProcess
    {
        $process = $this->script("
            \$go = '$this->socket.$file';
            \$bus = Heartbus\\Bus::connect('$this->socket', 10.0);
            $script
            say('ready');
            stream_set_blocking(STDIN, false);
            while (true) {
                Heartbus\\Bus::poll(0.005);
                answer(['bus' => \$bus]);
            }");
        $process->next('ready');
        return $process;
    }

    /** What the call is refused with. */
    private function refusal(PhpProcess $process, string $call, string $class): string
    {
        return $process->ask("
            try { \$bus->$call; } catch (Throwable \$error) { return \$error instanceof \\$class ? \$error->getMessage() : throw \$error; }
            return '';") ?: self::fail("$call was not refused");
    }
}
