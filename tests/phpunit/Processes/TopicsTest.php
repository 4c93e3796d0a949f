<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, ServerApp, TestCase, TestServer, WorkermanApp};

/** Topics, asked for wherever a server can be asked: in its own process, in a PHP worker, over the bus. What they say is the same. */
final class TopicsTest extends TestCase
{
    /** @return array<string, array{0: string, 1: string}> */
    public static function starts(): array
    {
        $starts = ["the engine's process" => ['own', ''], 'the bus' => ['bus', '']];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            $starts["$name, in one of two workers"] = ['worker', $folder];
            $starts["$name, without workers"] = ['whole', $folder];
        }
        return $starts;
    }

    /** @dataProvider starts */
    public function test_what_is_published_reaches_those_who_have_subscribed_and_nobody_else(string $start, string $workerman): void
    {
        [$ask, $port] = $this->start($start, $workerman);
        [$a, $b, $c] = array_map(fn (string $id) => $this->node($port, $id), ['a', 'b', 'c']);
        $answer = $a->subscribe('chat/one');
        $b->subscribe('chat/+');
        $c->subscribe('chat/two');
        self::assertSame([2, 2, 1, 0], $ask('return array_map($server->subscribers(...), ["chat/one", "chat/two", "chat/x", "news"]);'));
        [$class, $position, $reach] = $ask('$p = $server->publish("chat/one", "hello \u{e9}"); return [$p::class, (string) $p->position, $p->reach];');
        self::assertSame(['Heartbus\Publication', "1@$answer[epoch]", 2], [$class, $position, $reach]);
        self::assertSame([['chat/one', 'hello é'], ['chat/one', 'hello é']], [$a->message(), $b->message()]);
        self::assertSame("2@$answer[epoch]", $ask('return (string) $server->publish(topic: "chat/one", data: "again", except: ["b", "nobody", "\xff"])->position;'));
        self::assertSame(['chat/one', 'again'], $a->message());
        array_map(fn (Peer $peer) => $peer->expectSilence(), [$a, $b, $c]);
        self::assertSame([null, 0], $ask('$p = $server->publish("news", "nobody"); return [$p->position, $p->reach];'));
    }

    /** @dataProvider starts */
    public function test_a_broadcast_leaves_out_those_it_is_told_to(string $start, string $workerman): void
    {
        [$ask, $port] = $this->start($start, $workerman);
        [$a, $b, $c] = array_map(fn (string $id) => $this->node($port, $id), ['a', 'b', 'c']);
        self::assertSame(3, $ask('return $server->broadcast("all") - count(array_filter($ids(), fn ($id) => $id === "asker"));'));
        $ask('return $server->broadcast(data: "some", except: ["b", "nobody", 7]);');
        self::assertSame([['all', 'some'], ['all'], ['all', 'some']], [
            array_map(fn () => $a->expect(Frame::DATA)->payload, range(1, 2)),
            array_map(fn () => $b->expect(Frame::DATA)->payload, range(1, 1)),
            array_map(fn () => $c->expect(Frame::DATA)->payload, range(1, 2)),
        ]);
        array_map(fn (Peer $peer) => $peer->expectSilence(), [$a, $b, $c]);
    }

    /** @dataProvider starts */
    public function test_the_host_puts_nodes_into_topics_and_takes_them_out_again(string $start, string $workerman): void
    {
        [$ask, $port] = $this->start($start, $workerman);
        [$a, $b] = array_map(fn (string $id) => $this->node($port, $id), ['a', 'b']);
        self::assertSame([true, true, true], $ask('return [$server->join("a", "room/1"), $server->join("b", "room/1"), $server->join("a", "room/2")];'));
        $b->subscribe('room/#');
        self::assertSame([false, []], $ask('return [$server->join("nobody", "room/1"), $server->topicsOf("nobody")];'));
        self::assertSame([false, false, []], $ask('return [$server->join("\xff", "room/1"), $server->leave("\xff", "room/1"), $server->topicsOf("\xff")];'));
        self::assertSame(1, $ask('return $server->publish("room/1", "for both", ["b"])->reach === 3 ? 1 : 0;'), 'a, b, and the filter of b');
        self::assertSame(['room/1', 'for both'], $a->message());
        self::assertSame([['room/1', 'room/2'], ['room/#', 'room/1']], $ask('return array_map(function ($id) use ($server) { $of = $server->topicsOf($id); sort($of); return $of; }, ["a", "b"]);'));
        self::assertSame([['a', 'b'], ['a'], []], $ask('return array_map(function ($topic) use ($server) { $of = $server->members($topic)["nodes"]; sort($of); return $of; }, ["room/1", "room/2", "room/3"]);'));
        // One that is not there is no error.
        self::assertSame([true, true, true, false], $ask('return [$server->leave("a", "room/1"), $server->leave("a", "room/1"), $server->unsubscribeNode("b", "room/#"), $server->leave("nobody", "room/1")];'));
        $ask('$server->publish("room/1", "for b");');
        self::assertSame(['room/1', 'for b'], $b->message());
        array_map(fn (Peer $peer) => $peer->expectSilence(), [$a, $b]);
        $this->until(fn () => $ask('return $server->publish("room/1", "once more")->reach;') === 1, 'their threads have taken them out');
        // What somebody else's node is in ends with its registration.
        $b->close();
        $this->until(fn () => $ask('return $server->subscribers("room/1");') === 0, 'it has left');
    }

    /** @dataProvider starts */
    public function test_topics_and_members_come_in_pages(string $start, string $workerman): void
    {
        [$ask, $port] = $this->start($start, $workerman);
        array_map(fn (int $number) => $this->node($port, "n$number"), range(1, 8));
        $ask('foreach (range(1, 25) as $number) { $server->join("n1", (string) $number); } foreach (range(1, 8) as $number) { $server->join("n$number", "all"); }');
        $pages = '
            $pages = function (callable $ask, string $of) {
                $page = null;
                do { [$of => $found, "next" => $page] = $ask($page); $pages[] = $found; } while ($page !== null);
                return $pages;
            };';
        $topics = $ask($pages . 'return $pages(fn (?int $page) => $server->topics($page, 4), "topics");');
        self::assertGreaterThan(6, count($topics));
        self::assertLessThanOrEqual(4, max(array_map(count(...), $topics)));
        $counts = array_column(array_merge(...$topics), 'subscribers', 'topic');
        self::assertEquals(['all' => 8] + array_fill_keys(range(1, 25), 1), $counts);
        $members = $ask($pages . 'return $pages(fn (?int $page) => $server->members("all", $page, 3), "nodes");');
        self::assertGreaterThan(2, count($members));
        self::assertEqualsCanonicalizing(array_map(fn (int $number) => "n$number", range(1, 8)), array_merge(...$members));
        foreach (['topics(null, 0)', 'topics(limit: 1001)', 'members("all", null, -1)'] as $call) {
            self::assertStringContainsString('A page has 1 to 1000', $this->refusal($ask, $call, 'InvalidArgumentException'));
        }
        $this->refusal($ask, 'topics("x")', 'TypeError');
    }

    /** @dataProvider starts */
    public function test_bad_topics_and_data_are_refused_in_words_and_nothing_else_happens(string $start, string $workerman): void
    {
        [$ask, $port] = $this->start($start, $workerman, ['max_frame_bytes' => 10_000, 'max_topics' => 2]);
        $a = $this->node($port, 'a');
        $invalid = 'InvalidArgumentException';
        self::assertStringContainsString('has no level that is + or #', $this->refusal($ask, 'publish("a/#", "x")', $invalid));
        self::assertStringContainsString('at least one byte', $this->refusal($ask, 'publish("", "x")', $invalid));
        self::assertStringContainsString('belong to the server', $this->refusal($ask, 'publish("\$nodes", "x")', $invalid));
        foreach (['publish("\xff", "x")', 'subscribers("\xff")', 'join("a", "\xff")', 'leave("a", "\xff")', 'members("\xff")'] as $call) {
            self::assertStringContainsString('UTF-8', $this->refusal($ask, $call, $invalid));
        }
        foreach (['subscribers("+")', 'join("a", "a/+")', 'leave("a", "#/x")', 'members("a\nb")', 'unsubscribeNode("a", "")'] as $call) {
            $this->refusal($ask, $call, $invalid);
        }
        self::assertStringContainsString('($except) must hold strings only, array given', $this->refusal($ask, 'publish("t", "x", [[]])', 'TypeError'));
        self::assertStringContainsString('($except) must hold strings only, array given', $this->refusal($ask, 'broadcast("x", [[]])', 'TypeError'));
        self::assertStringContainsString('longer than a frame', $this->refusal($ask, 'publish("t", str_repeat("x", 20000))', 'Heartbus\Exception\LimitException'));
        $ask('$server->join("a", "one"); $server->join("a", "two");');
        self::assertStringContainsString('Too many topics', $this->refusal($ask, 'join("a", "three")', 'Heartbus\Exception\LimitException'));
        $a->expectSilence();
        self::assertSame(1, $ask('return $server->publish("one", "still there")->reach;'));
        self::assertSame(['one', 'still there'], $a->message());
    }

    /** @dataProvider starts */
    public function test_what_is_kept_of_a_topic_is_the_configuration_s_to_say_and_is_given_to_who_comes_back(string $start, string $workerman): void
    {
        [$ask, $port] = $this->start($start, $workerman, ['history' => ['chat/secret' => ['count' => 0], 'chat/#' => ['count' => 2], 'last/+' => ['count' => 1, 'ttl' => 60.0]]]);
        $publish = 'return array_map(fn (int $number) => (string) $server->publish("%s", "$number")->position, range(1, 3));';
        [$first, , $third] = $ask(sprintf($publish, 'chat/hall'));
        $epoch = explode('@', $first)[1];
        self::assertSame(["1@$epoch", "3@$epoch"], [$first, $third], 'kept, so it has positions, though nobody listens');
        $ask(sprintf($publish, 'last/word'));
        self::assertSame(['', '', ''], $ask(sprintf($publish, 'other')));
        self::assertEqualsCanonicalizing([['chat/hall', 0], ['last/word', 0]], array_map(array_values(...), $ask('return $server->topics()["topics"];')));
        $peer = $this->node($port, 'a');
        self::assertSame([2, false], [($answer = $peer->subscribe('chat/hall', ['offset' => 0, 'epoch' => 0]))['offset'] - 1, $answer['recovered']]);
        self::assertSame([['chat/hall', '2'], ['chat/hall', '3']], [$peer->message(), $peer->message()]);
        self::assertTrue($peer->subscribe('chat/hall', ['offset' => 2, 'epoch' => (int) $epoch])['recovered']);
        self::assertSame(['chat/hall', '3'], $peer->message());
        $peer->subscribe('last/word', ['offset' => 0, 'epoch' => 0]);
        self::assertSame(['last/word', '3'], $peer->message());
        $ask(sprintf($publish, 'chat/secret'));
        $peer->subscribe('chat/secret', ['offset' => 0, 'epoch' => 0]);
        $peer->expectSilence();
    }

    public function test_a_server_hears_what_is_published_to_the_topics_it_has_subscribed_to(): void
    {
        $server = TestServer::start([], '
            $hear = fn (string $who) => fn (string $topic, string $data, ?string $from, ?Heartbus\Position $position) => say($who, $topic, $data, $from, $position?->offset);
            $server->subscribe("chat/+", $hear("filter"));
            $server->subscribe("chat/hall", $hear("name"));
            $server->subscribe("silent");
            $server->on("message", $hear("all"));');
        $a = $server->node('a');
        foreach (['chat/hall' => 'one', 'news' => 'not heard', 'chat/attic' => 'two', 'silent' => 'three'] as $topic => $data) {
            $a->send(Frame::PUBLISH, json_encode(['topic' => $topic, 'data' => $data]));
        }
        self::assertSame(['chat/hall', 'one', 'a', 1], $server->next('name'));
        self::assertSame([['chat/hall', 'one', 'a', 1], ['chat/attic', 'two', 'a', null]], [$server->next('filter'), $server->next('filter')]);
        $all = array_map(fn () => $server->next('all'), range(1, 3));
        self::assertSame([['chat/hall', 'one', 'a', 1], ['chat/attic', 'two', 'a', null], ['silent', 'three', 'a', 1]], $all);
        // Its own publications as well, whatever bytes.
        $server->ask('$server->publish("chat/hall", "own \xff", ["a"]);');
        self::assertSame(3, $server->ask('return $server->subscribers("chat/hall") + $server->subscribers("silent");'));
        self::assertSame(2, $server->ask('
            $server->subscribe("late", function (string $topic, string $data, ?string $from) use ($server) { say("late", strlen($data), $from, $server->unsubscribe($topic), $server->unsubscribe($topic)); });
            return $server->publish("late", "\xff\0")->reach + $server->publish("late", "again")->reach;'));
        self::assertSame([2, null, true, false], $server->next('late'));
        self::assertSame(0, $server->ask('return $server->publish("late", "nobody")->reach;'));
        // The second one was on its way already; nothing is told to who has ended it.
        self::assertCount(1, $server->process->said('late'));
        foreach (['subscribe("a/#/b")', 'subscribe("")', 'subscribe("\xff")'] as $call) {
            $this->refusal(fn (string $code) => $server->ask($code), $call, 'InvalidArgumentException');
        }
        $this->refusal(fn (string $code) => $server->ask($code), 'subscribe("a", "no_such_function")', 'TypeError');
        self::assertFalse($server->ask('return $server->unsubscribe("never");'));
        self::assertSame(0, $server->stop());
    }

    public function test_a_callback_that_throws_takes_a_message_from_nobody_else(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", ' . Port::free() . ', ["loop" => "native"]);
            $told = [];
            $tell = function (string $who) use ($server, &$told) {
                return function (string $topic, string $data) use ($server, &$told, $who) {
                    $told[] = "$who $data";
                    if (count($told) === 8) { say("told", $told); $server->stop(); }
                    if ($data === "one" && $who !== "all") { throw new DomainException($who); }
                };
            };
            $server->subscribe("a/b", $tell("name"));
            $server->subscribe("a/+", $tell("level"));
            $server->subscribe("#", $tell("rest"));
            $server->subscribe("a/#");
            $server->on("message", $tell("all"));
            $timer = $server->every(0.01, function () use ($server, &$timer) {
                $server->cancel($timer);
                array_map(fn (string $data) => $server->publish("a/b", $data), ["one", "two"]);
            });
            for ($thrown = []; count($told) < 8;) {
                try { $server->start(); } catch (DomainException $e) { $thrown[] = $e->getMessage(); }
            }
            say("thrown", $thrown);');
        $each = fn (string $data) => array_map(fn (string $who) => "$who $data", ['name', 'rest', 'level', 'all']);
        self::assertSame([[...$each('one'), ...$each('two')]], $process->next('told'));
        self::assertSame([['name', 'rest', 'level']], $process->next('thrown'));
        self::assertSame(0, $process->exitCode());
    }

    public function test_a_callback_of_a_topic_is_replaced_by_the_next_one_and_a_server_that_starts_again_hears_again(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", ' . Port::free() . ', ["loop" => "native"]);
            $server->subscribe("t", fn () => say("the first one"));
            $server->subscribe("t", function (string $topic, string $data) use ($server) { say("heard", $data); $server->stop(); });
            foreach (["once", "twice"] as $round) {
                $timer = $server->every(0.01, function () use ($server, &$timer, $round) { $server->cancel($timer); $server->publish("t", $round); });
                $server->start();
            }
            say("over", $server->unsubscribe("t"));');
        self::assertSame([['once'], ['twice']], [$process->next('heard'), $process->next('heard')]);
        self::assertSame([true], $process->next('over'));
        self::assertSame([], $process->said('the first one'));
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_each_php_worker_that_has_subscribed_hears_each_message_once_also_those_that_come_later(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], '
            $server->on("start", function () use ($server) {
                if ($server->workerId() === 0) { $server->subscribe("for/one", fn (string $topic, string $data) => say("one", getmypid(), $data)); }
                $server->subscribe("for/#", fn (string $topic, string $data, ?string $from, ?Heartbus\Position $position) => say("each", getmypid(), $topic, $data, $from, $position?->offset));
            });
            $server->on("data", function (Node $node, string $data) use ($server) { $server->unsubscribe("for/#"); say("ends", getmypid()); });');
        $bus = $server->bus();
        $this->until(fn () => $bus->subscribers('for/one') === 3, 'both have subscribed');
        $a = $server->node('a');
        for ($number = 1; $number <= 20; $number++) {
            $a->send(Frame::PUBLISH, json_encode(['topic' => 'for/all', 'data' => "$number"]));
        }
        $a->expectSilence();
        $bus->publish('for/one', 'from outside');
        $this->until(fn () => count($server->process->said('each')) === 42 && $server->process->said('one') !== [], 'all is told');
        $told = [];
        foreach ($server->process->said('each') as [$pid, $topic, $data, $from, $offset]) {
            $told[$pid][] = [$topic, $data, $from, $offset];
        }
        self::assertEqualsCanonicalizing($server->phpWorkers(), array_keys($told));
        $expected = [...array_map(fn (int $number) => ['for/all', "$number", 'a', null], range(1, 20)), ['for/one', 'from outside', null, 1]];
        self::assertSame([$expected, $expected], array_values($told));
        self::assertCount(1, $server->process->said('one'));
        // A worker that ends it hears no more; one that replaces another hears from its start on.
        $a->send(Frame::DATA, 'end it');
        [$ended] = $server->next('ends');
        $this->until(fn () => $bus->subscribers('for/all') === 1, 'the engine knows');
        $bus->publish('for/all', 'to the other');
        $this->until(fn () => count($server->process->said('each')) === 43, 'it is told');
        $server->untilAllIsTold();
        $each = $server->process->said('each');
        self::assertNotSame($ended, end($each)[0]);
        $server->command('reload');
        $this->until(fn () => $bus->subscribers('for/one') === 3 && array_intersect(array_keys($told), $server->phpWorkers()) === [], 'those that come have subscribed', 20);
        $bus->publish('for/all', 'to the new ones');
        $this->until(fn () => count($server->process->said('each')) === 45, 'they hear');
        self::assertSame([], array_intersect(array_keys($told), array_column(array_slice($server->process->said('each'), -2), 0)));
    }

    public function test_where_no_server_runs_there_is_nothing_and_a_publication_says_so(): void
    {
        $process = $this->script('
            $server = new HeartbeatServer("127.0.0.1", ' . Port::free() . ', ["loop" => "native"]);
            $ask = function (string $when) use ($server) {
                try { $server->publish("t", "x"); } catch (Throwable $e) { $refusal = $e::class; }
                say($when, $refusal ?? null, $server->join("a", "t"), $server->leave("a", "t"), $server->subscribers("t"), $server->topics(), $server->members("t"), $server->topicsOf("a"));
            };
            $ask("before");
            $server->every(0.01, fn () => $server->stop());
            $server->start();
            $ask("after");');
        $nothing = ['Heartbus\Exception\ClosedException', false, false, 0, ['topics' => [], 'next' => null], ['nodes' => [], 'next' => null], []];
        self::assertSame($nothing, $process->next('before'));
        self::assertSame($nothing, $process->next('after'));
        self::assertSame(0, $process->exitCode());
    }

    /** @return array{0: callable, 1: int} what runs code with `$server`, and the port */
    private function start(string $start, string $workerman, array $config = []): array
    {
        // Who answers in a worker is a node itself.
        $ids = '$ids = fn () => method_exists($server, "getNodeManager") ? array_map(strval(...), array_keys($server->getNodeManager()->getAllNodes())) : [];';
        if ($start === 'worker') {
            $server = ServerApp::start($workerman, ['php_workers' => 2] + $config, '
                $server->on("data", function (Node $node, string $code) use ($server) {
                    try { $answer = (function (string $code) use ($server) { return eval(IMPORTS . $code); })($code); }
                    catch (Throwable $e) { $answer = ["thrown" => $e::class . ": " . $e->getMessage()]; }
                    $server->sendTo($node->id, json_encode(["answer" => $answer]));
                });');
            $asker = $server->node('asker');
            return [function (string $code) use ($asker, $ids): mixed {
                $asker->bytes(Frame::bytes(Frame::DATA, $ids . $code));
                do {
                    $answer = json_decode($asker->expect(Frame::DATA)->payload, true);
                } while (!is_array($answer) || !array_key_exists('answer', $answer));
                return isset($answer['answer']['thrown']) ? throw new \Exception($answer['answer']['thrown']) : $answer['answer'];
            }, $server->port];
        }
        if ($start === 'whole') {
            $server = ServerApp::start($workerman, ['php_workers' => 0] + $config, '');
            return [fn (string $code): mixed => $server->process->ask($ids . $code), $server->port];
        }
        $socket = PhpProcess::folder() . '/topics.sock';
        $native = TestServer::start($config + ['bus' => $socket]);
        if ($start === 'own') {
            return [fn (string $code): mixed => $native->ask($ids . $code), $native->port];
        }
        $process = $this->script("stream_set_blocking(STDIN, false); \$bus = Heartbus\\Bus::connect('$socket', 10.0); while (true) { answer(['server' => \$bus]); usleep(1000); }");
        return [fn (string $code): mixed => $process->ask($ids . $code), $native->port];
    }

    private function node(int $port, string $id): Peer
    {
        $peer = Peer::connect($port);
        $peer->register($id);
        return $peer;
    }

    /** What the call is refused with. */
    private function refusal(callable $ask, string $call, string $class): string
    {
        try {
            $ask("return \$server->$call;");
        } catch (\Throwable $error) {
            self::assertStringContainsString("$class: ", $error->getMessage(), $call);
            return $error->getMessage();
        }
        self::fail("$call was not refused");
    }
}
