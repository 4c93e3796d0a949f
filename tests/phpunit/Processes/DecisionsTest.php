<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{EventLoop, Frame, Peer, PhpProcess, Port, ServerApp, TestCase, TestServer, WorkermanApp};

/** What a server's callbacks decide before it happens, in the engine's own process and in PHP workers. */
final class DecisionsTest extends TestCase
{
    /** Lets in who brings a good token. Says whom it was asked about, and who came. */
    private const POLICY = '
        $server->on("authenticate", function (string $nodeId, array $metadata, string $ip): bool|array {
            say("asked", $nodeId, $metadata, $ip);
            return match ($metadata["token"] ?? "") {
                "good" => true,
                "rich" => ["user" => ["id" => 7], "token" => "taken away"],
                "nothing" => [],
                "list" => ["a", "b"],
                default => false,
            };
        });
        $server->on("register", fn (Node $node) => say("register", $node->id, $node->metadata));';

    /** @return array<string, array{0: string, 1: string}> */
    public static function starts(): array
    {
        $starts = ["the engine's process" => ['own', '']];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            $starts["$name, two workers"] = ['workers', $folder];
            $starts["$name, without workers"] = ['whole', $folder];
        }
        return $starts;
    }

    /** @dataProvider starts */
    public function test_who_brings_a_good_token_is_let_in_and_who_does_not_is_told_401_and_closed(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman);
        $good = Peer::connect($server->port);
        $good->register('a', ['token' => 'good']);
        self::assertSame(['a', ['token' => 'good'], '127.0.0.1'], $server->next('asked'));
        self::assertSame(['a', ['token' => 'good']], $server->next('register'));
        foreach ([['token' => 'bad'], []] as $metadata) {
            $bad = Peer::connect($server->port);
            $bad->bytes(Frame::registration('b', $metadata));
            $bad->expectError(401, 'Not authenticated');
            $bad->expectClosed();
            self::assertSame(['b', $metadata, '127.0.0.1'], $server->next('asked'));
        }
        $good->beat();
        self::assertSame([3, 2, 0], array_map($server->counter(...), ['decisions', 'decisions_refused', 'decisions_timed_out']));
    }

    /** @dataProvider starts */
    public function test_an_array_becomes_metadata_of_the_node_from_the_beginning(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman);
        $peer = Peer::connect($server->port);
        $peer->register('a', ['token' => 'rich', 'color' => 'red']);
        self::assertSame(['a', ['token' => 'taken away', 'color' => 'red', 'user' => ['id' => 7]]], $server->next('register'));
        // The node says something else of itself, and the host is asked again.
        $peer->register('a', ['token' => 'rich', 'user' => 'root']);
        $peer->register('b', ['token' => 'nothing']);
        self::assertSame(['b', ['token' => 'nothing']], $server->next('register'));
        $peer->register('c', ['token' => 'list']);
        self::assertSame(['c', ['token' => 'list', '0' => 'a', '1' => 'b']], $server->next('register'));
        $metadata = $this->busOf($server)->node('a')->metadata;
        ksort($metadata);
        self::assertSame(['token' => 'taken away', 'user' => ['id' => 7]], $metadata);
    }

    /** @dataProvider starts */
    public function test_an_online_id_is_taken_over_only_by_whom_the_host_lets_in(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman);
        $owner = Peer::connect($server->port);
        $owner->register('device', ['token' => 'good']);
        $stranger = Peer::connect($server->port);
        $stranger->bytes(Frame::registration('device', ['token' => 'stolen']));
        $stranger->expectError(401, 'Not authenticated');
        $stranger->expectClosed();
        $owner->beat();
        self::assertSame(0, $server->counter('nodes_replaced'));
        $moved = Peer::connect($server->port);
        $moved->register('device', ['token' => 'good']);
        $owner->expectError(409, 'Replaced by a newer connection');
        $moved->beat();
    }

    /** @dataProvider starts */
    public function test_a_gateway_whose_one_node_is_refused_keeps_the_others_and_their_order(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman);
        $peer = Peer::connect($server->port);
        // All at once, and heartbeats of those that are there in between.
        $peer->register('a', ['token' => 'good']);
        $peer->bytes(Frame::registration('b', ['token' => 'good']) . Frame::registration('c') . Frame::registration('d', ['token' => 'good']));
        $answers = array_map(fn () => $peer->receive(), range(1, 3));
        self::assertSame([Frame::REGISTER, Frame::ERROR, Frame::REGISTER], array_map(fn (Frame $frame) => $frame->type, $answers));
        self::assertSame(['b', 'd'], [$answers[0]->json()['node_id'], $answers[2]->json()['node_id']]);
        $peer->beat();
    }

    /** @dataProvider starts */
    public function test_what_is_not_decided_in_time_is_refused_and_an_answer_behind_that_ignored(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman, ['decision_timeout' => 0.2], '
            $server->on("authenticate", function (string $nodeId) {
                if ($nodeId === "slow") {
                    say("waits");
                    while (!is_file(getenv("GO"))) { usleep(1000); clearstatcache(); }
                }
                return true;
            });', $go = PhpProcess::folder() . '/go');
        $slow = Peer::connect($server->port);
        $slow->bytes(Frame::registration('slow'));
        $slow->expectError(401, 'Not authenticated in time');
        $slow->expectClosed();
        $server->next('waits');
        touch($go);
        $this->until(fn () => $this->busOf($server)->stats()['engine']['decisions_ignored'] === 1, 'its answer has come');
        self::assertSame(1, $server->counter('decisions_timed_out'));
        $quick = Peer::connect($server->port);
        $quick->register('quick');
        self::assertSame(1, $this->busOf($server)->stats()['nodes']['online']);
    }

    public function test_a_callback_that_throws_or_returns_nonsense_refuses_and_the_exception_is_told(): void
    {
        $port = Port::free();
        $process = $this->script("\$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);" . '
            $server->on("start", fn () => say("ready"));
            $server->on("authenticate", fn (string $nodeId) => match ($nodeId) {
                "throws" => throw new DomainException("not you"),
                "null" => null,
                "one" => 1,
                "bytes" => ["name" => "\xff"],
                "long" => ["name" => str_repeat("x", 70000)],
                "end" => $server->stop() ?? true,
                default => true,
            });
            do {
                $again = false;
                try { $server->start(); } catch (Throwable $e) { say("thrown", $e::class, $e->getMessage()); $again = true; }
            } while ($again);');
        $process->next('ready');
        foreach ([
            'throws' => ['DomainException', 'not you'],
            'null' => ['TypeError', "The callback of 'authenticate' must return a bool or an array, null returned"],
            'one' => ['TypeError', "The callback of 'authenticate' must return a bool or an array, int returned"],
            'bytes' => ['InvalidArgumentException', 'metadata cannot be encoded as JSON'],
            'long' => ['Heartbus\Exception\LimitException', 'The metadata of a node must have at most 65536 bytes'],
        ] as $id => $thrown) {
            $peer = Peer::connect($port);
            $peer->bytes(Frame::registration($id));
            self::assertSame($thrown, $process->next('thrown'), $id);
            $peer->expectError(401, 'Not authenticated');
            $peer->expectClosed();
        }
        $peer = Peer::connect($port);
        $peer->register('well');
        Peer::connect($port)->bytes(Frame::registration('end'));
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider \Heartbus\Tests\EventLoop::foreign */
    public function test_a_callback_that_suspends_its_fiber_answers_when_it_returns(string $name): void
    {
        $loop = EventLoop::named($name);
        $port = Port::free();
        $process = $loop->run("inside(function () {
            \$server = new HeartbeatServer('127.0.0.1', $port, ['worker_count' => 2, 'php_workers' => 0]);" . '
            $come = false;
            $server->on("register", function (Node $node) use (&$come) { $come = $come || $node->id === "quick"; });
            $server->on("authenticate", function (string $nodeId) use (&$come) {
                for (say("asked", $nodeId); $nodeId !== "quick" && !$come;) { nap(0.005); }
                return $nodeId !== "refused";
            });
            $server->on("start", fn () => say("ready"));
            $server->start();
        });');
        $process->next('ready');
        [$slow, $refused, $quick] = [Peer::connect($port), Peer::connect($port), Peer::connect($port)];
        $slow->bytes(Frame::registration('slow'));
        self::assertSame(['slow'], $process->next('asked'));
        $refused->bytes(Frame::registration('refused'));
        self::assertSame(['refused'], $process->next('asked'));
        self::assertSame('', $slow->peek(), 'it waits');
        $quick->register('quick');
        self::assertSame('slow', $slow->expect(Frame::REGISTER)->json()['node_id']);
        $refused->expectError(401, 'Not authenticated');
        $refused->expectClosed();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_what_a_worker_dies_of_is_asked_of_another(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], '
            $server->on("authenticate", function (string $nodeId) use ($server) {
                say("asked", $nodeId, $server->event()["redelivered"]);
                if ($nodeId === "deadly" && !$server->event()["redelivered"]) { posix_kill(getmypid(), SIGKILL); }
                return true;
            });');
        $peer = Peer::connect($server->port);
        $peer->register('deadly');
        self::assertSame([['deadly', false], ['deadly', true]], [$server->next('asked'), $server->next('asked')]);
        $peer->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_while_no_worker_is_there_a_registration_waits_for_one_or_for_its_time(string $workerman): void
    {
        $app = WorkermanApp::make($workerman);
        $script = '
            $server->on("start", function () { while (!is_file("go")) { usleep(1000); clearstatcache(); } });
            $server->on("authenticate", fn (string $nodeId) => true);';
        $server = ServerApp::at($app, Port::free(), ['decision_timeout' => 1.0], $script);
        Peer::served($server->port)->close();
        $peer = Peer::connect($server->port);
        $peer->bytes(Frame::registration('early'));
        $peer->expectError(401, 'Not authenticated in time');
        touch("$app->folder/go");
        $server->next('ready');
        Peer::connect($server->port)->register('late');
    }

    /** Decides about topics: says who asks for what. */
    private const TOPICS = '
        $name = fn (Node|Heartbus\Peer $who) => $who instanceof Node ? "node $who->id" : "peer $who->user";
        $server->on("subscribe.before", function (Node|Heartbus\Peer $who, array $topics) use ($name): array|bool {
            say("subscribes", $name($who), $topics);
            return match ($topics[0]) { "secret" => false, "list" => ["list", "more"], "other" => ["more"], "none" => [], default => true };
        });
        $server->on("publish.before", function (Node|Heartbus\Peer $who, string $topic, string $data) use ($name): array|bool {
            say("publishes", $name($who), $topic, $data);
            return match ($data) {
                "no" => false, "shout" => ["data" => "SHOUT"], "elsewhere" => ["topic" => "more"], "both" => ["topic" => "more", "data" => "\xff"],
                default => true,
            };
        });';

    /** @dataProvider starts */
    public function test_the_host_decides_who_subscribes_to_what(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman, [], self::TOPICS);
        $node = $this->node($server, 'n');
        $node->subscribe('free');
        self::assertSame(['node n', ['free']], $server->next('subscribes'));
        foreach (['secret', 'other', 'none'] as $topic) {
            $node->send(Frame::SUBSCRIBE, json_encode(['filter' => $topic]));
            self::assertSame(['message' => 'Refused by the server', 'code' => 403, 'topic' => $topic], $node->expect(Frame::ERROR)->json());
        }
        $node->subscribe('list');
        $bus = $this->busOf($server);
        self::assertEqualsCanonicalizing(['free', 'list', 'more'], $bus->topicsOf('n'));
        // Who is put into a topic by the server itself has nothing to ask for.
        $bus->join('n', 'secret');
        self::assertSame([5, 2], array_map($server->counter(...), ['decisions', 'decisions_refused']));
        $bus->publish('more', 'hello');
        self::assertSame(['more', 'hello'], $node->message());
    }

    /** @dataProvider starts */
    public function test_the_host_decides_what_is_published(string $start, string $workerman): void
    {
        $server = $this->start($start, $workerman, [], self::TOPICS);
        [$node, $other] = [$this->node($server, 'n'), $this->node($server, 'o')];
        array_map($other->subscribe(...), ['t', 'more']);
        foreach (['plain', 'no', 'shout', 'elsewhere'] as $id => $data) {
            $node->send(Frame::PUBLISH, json_encode(['topic' => 't', 'data' => $data, 'id' => $id]));
            $answer = $node->receive();
            self::assertSame([$data === 'no' ? Frame::ERROR : Frame::PUBLISH, $id], [$answer->type, $answer->json()['id']]);
            self::assertSame(['node n', 't', $data], $server->next('publishes'));
        }
        self::assertSame([['t', 'plain'], ['t', 'SHOUT'], ['more', 'elsewhere']], array_map(fn () => $other->message(), range(1, 3)));
        // Nobody decides on what the server publishes.
        $this->busOf($server)->publish('t', 'no');
        self::assertSame(['t', 'no'], $other->message());
    }

    public function test_a_client_of_firetowers_is_a_peer_with_its_user(): void
    {
        $server = $this->start('own', '', ['websocket' => true, 'firetower_conventions' => true], self::TOPICS);
        $stream = stream_socket_client("tcp://127.0.0.1:$server->port", timeout: 10);
        stream_set_timeout($stream, 10);
        fwrite($stream, "GET /ws?user_id=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
        while (trim((string) fgets($stream)) !== '');
        $say = function (string $type, string $topic, string $data) use ($stream): void {
            $text = sprintf('{"type":"%s","topic":"%s","data":%s}', $type, $topic, $data);
            fwrite($stream, chr(0x81) . chr(0x80 | strlen($text)) . "\0\0\0\0" . $text);
        };
        $hear = function () use ($stream): string {
            $head = fread($stream, 2);
            return fread($stream, ord($head[1]));
        };
        $say('subscribe', 'free', '""');
        $say('publish', 'free', '"hi"');
        self::assertSame(['peer 7', ['free']], $server->next('subscribes'));
        self::assertSame(['peer 7', 'free', '"hi"'], $server->next('publishes'));
        self::assertSame(['{"type":"onSubscribe","data":1}', '"hi"'], [$hear(), $hear()]);
        $say('subscribe', 'secret,free', '""');
        self::assertSame(['peer 7', ['secret', 'free']], $server->next('subscribes'));
        $say('publish', 'free', '"again"');
        self::assertSame('"again"', $hear());
        self::assertSame(0, $this->busOf($server)->subscribers('secret'));
    }

    public function test_an_answer_about_topics_that_means_nothing_refuses_and_is_told(): void
    {
        $port = Port::free();
        $process = $this->script("\$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);" . '
            $server->on("start", fn () => say("ready"));
            $server->on("subscribe.before", fn (Node $node, array $topics) => match ($topics[0]) {
                "array" => [["a"]], "filter" => ["a/#/b"], "text" => "yes", "throws" => throw new DomainException("no"), default => true,
            });
            $server->on("publish.before", fn (Node $node, string $topic) => match ($topic) {
                "empty" => [], "wild" => ["topic" => "a/#"], "array" => ["data" => []], "end" => $server->stop() ?? true,
            });
            do {
                $again = false;
                try { $server->start(); } catch (Throwable $e) { say("thrown", $e::class, $e->getMessage()); $again = true; }
            } while ($again);');
        $process->next('ready');
        $node = Peer::connect($port);
        $node->register('n');
        foreach ([
            [Frame::SUBSCRIBE, 'array', 'TypeError', "The callback of 'subscribe.before' must return a bool or an array of topics"],
            [Frame::SUBSCRIBE, 'filter', 'InvalidArgumentException', 'What is to be subscribed to must be topics or filters'],
            [Frame::SUBSCRIBE, 'text', 'TypeError', "The callback of 'subscribe.before' must return a bool or an array, string returned"],
            [Frame::SUBSCRIBE, 'throws', 'DomainException', 'no'],
            [Frame::PUBLISH, 'empty', 'TypeError', "The callback of 'publish.before' must return a bool or an array with texts for topic, data or both"],
            [Frame::PUBLISH, 'array', 'TypeError', "The callback of 'publish.before' must return a bool or an array with texts for topic, data or both"],
            [Frame::PUBLISH, 'wild', 'InvalidArgumentException', 'Nothing can be published under this name'],
        ] as [$type, $topic, $class, $message]) {
            $node->send($type, json_encode($type === Frame::SUBSCRIBE ? ['filter' => $topic] : ['topic' => $topic, 'data' => 'x', 'id' => 1]));
            self::assertSame([$class, $message], $process->next('thrown'), $topic);
            self::assertSame([403, $topic], [($error = $node->expect(Frame::ERROR)->json())['code'], $error['topic']]);
        }
        $node->send(Frame::PUBLISH, json_encode(['topic' => 'end', 'data' => 'x']));
        self::assertSame(0, $process->exitCode());
    }

    private function node(TestServer|ServerApp $server, string $id): Peer
    {
        $peer = Peer::connect($server->port);
        $peer->register($id);
        return $peer;
    }

    /** @return TestServer|ServerApp */
    private function start(string $start, string $workerman, array $config = [], string $script = self::POLICY, string $go = ''): TestServer|ServerApp
    {
        $script = "putenv('GO=$go');$script";
        return match ($start) {
            'own' => TestServer::start($config, $script),
            'workers' => ServerApp::start($workerman, ['php_workers' => 2] + $config, $script),
            'whole' => ServerApp::start($workerman, ['php_workers' => 0] + $config, $script),
        };
    }

    private function busOf(TestServer|ServerApp $server): \Heartbus\Bus
    {
        return $server instanceof ServerApp ? $server->bus() : \Heartbus\Bus::connect(PhpProcess::folder() . "/$server->port.sock", 10.0);
    }
}
