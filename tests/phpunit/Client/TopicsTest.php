<?php

namespace Heartbus\Tests\Client;

use Heartbus\Tests\{PhpProcess, Port, TestCase, TestServer};

/** Topics of a client: what it hears, what it says, and what comes back by itself. */
final class TopicsTest extends TestCase
{
    private const KEEPING = ['history' => ['kept/#' => ['count' => 1000000, 'bytes' => 1 << 24, 'ttl' => 3600]]];

    public function test_a_client_hears_what_it_subscribed_to_with_each_callback_that_is_meant(): void
    {
        $server = $this->server(self::KEEPING);
        $client = $this->subscriber($server->port, '
            say("subscribed before", $client->subscribe("kept/a", $hear("a")), $client->subscribe("kept/+", $hear("filter")), $client->getStats()["subscriptions"]);');
        self::assertSame([true, true, 2], $client->next('subscribed before'));
        $answers = [$client->next('subscribed'), $client->next('subscribed')];
        self::assertSame([['kept/a', true], ['kept/+', true]], array_map(fn (array $answer) => [$answer[0], $answer[2]], $answers));
        self::assertSame(['Heartbus\Position', null], array_column($answers, 1));
        $epoch = $server->ask('return $server->publish("kept/a", "one \u{e9}")->position->epoch;');
        self::assertSame(['kept/a', 'one é', "1@$epoch"], $client->next('a'));
        self::assertSame(['kept/a', 'one é', "1@$epoch"], $client->next('filter'));
        $server->ask('$server->publish("kept/b", "two"); $server->publish("other", "three"); $server->publish("kept/a", "\xff");');
        self::assertSame(['kept/b', 'two'], array_slice($client->next('filter'), 0, 2));
        self::assertSame(['kept/a', 'hex:ff'], array_slice($client->next('a'), 0, 2));
        self::assertSame(['kept/a', 'hex:ff'], array_slice($client->next('filter'), 0, 2));

        // Another callback takes the place of the first one; the subscription stays as it was.
        self::assertTrue($client->ask('return $client->subscribe("kept/a", $GLOBALS["hear"]("another"));'));
        $server->ask('$server->publish("kept/a", "four");');
        self::assertSame(['kept/a', 'four', "3@$epoch"], $client->next('another'));
        self::assertSame([true, false, 1], $client->ask('return [$client->unsubscribe("kept/+"), $client->unsubscribe("kept/+"), $client->getStats()["subscriptions"]];'));
        $this->until(fn () => $server->ask('return $server->subscribers("kept/x");') === 0, 'the server knows');
        $server->ask('$server->publish("kept/b", "five"); $server->publish("kept/a", "six");');
        self::assertSame(['kept/a', 'six'], array_slice($client->next('another'), 0, 2));
        self::assertCount(4, $client->said('filter'), 'what it heard with the callback before, and with the filter');
        self::assertSame([], $client->said('message'));
    }

    public function test_a_client_publishes_and_learns_position_and_reach_or_why_not(): void
    {
        $server = $this->server();
        $client = $this->subscriber($server->port, '$client->subscribe("t", $hear("t"));');
        $client->next('subscribed');
        self::assertSame([true, true], $client->ask('return [$client->publish("t", "silent"), $client->publish(topic: "t", data: "asked", number: 4294967295)];'));
        self::assertSame(['silent', 'asked'], [$client->next('t')[1], $client->next('t')[1]]);
        [$number, $position, $reach] = $client->next('published');
        self::assertSame([4294967295, 'Heartbus\Position', 1], [$number, $position, $reach]);
        self::assertTrue($client->ask('return $client->publish("\$own", "x", 7) && $client->publish("\$own", "x") && $client->subscribe("\$own", fn () => 0);'));
        self::assertSame(['$own', 403, 'Topics that begin with $ belong to the server', 7], $client->next('publish.refused'));
        self::assertSame(['$own', 403, 'Topics that begin with $ belong to the server', 0], $client->next('publish.refused'));
        self::assertSame(['$own', 403, 'Topics that begin with $ belong to the server'], $client->next('subscribe.refused'));
        self::assertSame([false, []], [$client->ask('return $client->unsubscribe("\$own");'), $client->said('server_error')]);
        $expected = [
            'A topic has at least one byte', 'In a filter # stands for the rest, so it is the last level', 'A topic is valid UTF-8',
            'A filter has no position to go on from',
            'PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient::subscribe(): Argument #3 ($since) must be of type ?Heartbus\Position, string given',
            'A topic to publish to has no level that is + or #', 'The number of a publication is 0 to 4294967295, not -1', 'A topic is valid UTF-8',
        ];
        self::assertSame($expected, $client->ask('
            $calls = [["subscribe", "", "strlen"], ["subscribe", "#/a", "strlen"], ["subscribe", "\xff", "strlen"], ["subscribe", "+", "strlen", new Heartbus\Position],
                ["subscribe", "a", "strlen", "1@2"], ["publish", "a/#", "x"], ["publish", "a", "x", -1], ["unsubscribe", "\xff"]];
            return array_map(function (array $call) use ($client): string {
                $method = array_shift($call);
                try { return json_encode($client->$method(...$call)); } catch (InvalidArgumentException | TypeError $e) { return $e->getMessage(); }
            }, $calls);'));
        self::assertSame(1, $client->ask('return $client->getStats()["subscriptions"];'));
    }

    public function test_what_was_subscribed_to_comes_along_to_the_next_connect_from_where_it_was(): void
    {
        $server = $this->server(self::KEEPING);
        $client = $this->subscriber($server->port, '$client->subscribe("kept/a", $hear("a")); $client->subscribe("+", $hear("filter"));', ['max_subscriptions' => 2]);
        $client->next('subscribed');
        $client->next('subscribed');
        $server->ask('$server->publish("kept/a", "1");');
        self::assertSame('1', $client->next('a')[1]);
        $client->ask('$client->disconnect();');
        $client->next('close');
        self::assertFalse($client->ask('return $client->subscribe("too-much", fn () => 0);'));
        self::assertStringContainsString('Cannot subscribe: The client has as many subscriptions as it may', $client->output() . $client->errors());
        $server->ask('foreach (range(2, 100) as $n) { $server->publish("kept/a", (string) $n); }');
        $client->ask('$client->connect();');
        self::assertSame(['kept/a', 'Heartbus\Position', true], $client->next('subscribed'));
        self::assertSame(array_map(strval(...), range(2, 100)), array_map(fn () => $client->next('a')[1], range(2, 100)));
        self::assertSame('+', $client->next('subscribed')[0]);
        // A new client goes on with a position that was kept, or has all there is.
        foreach (['Heartbus\Position::fromString("98@' . $server->ask('return $server->publish("kept/a", "101")->position->epoch;') . '")' => range(99, 101), 'new Heartbus\Position' => range(1, 101)] as $since => $numbers) {
            $other = $this->subscriber($server->port, "\$client->subscribe('kept/a', \$hear('a'), $since);", ['node_id' => 'other']);
            self::assertSame(array_map(strval(...), $numbers), array_map(fn () => $other->next('a')[1], $numbers));
            $other->signal(SIGKILL);
        }
    }

    public function test_a_callback_that_throws_keeps_no_other_from_its_message(): void
    {
        $server = $this->server();
        $client = $this->subscriber($server->port, '
            foreach (["t", "+", "#"] as $filter) {
                $client->subscribe($filter, function (string $topic, string $data) use ($filter): void {
                    say("heard", $filter, $data);
                    throw new DomainException("of $filter");
                });
            }', attend: 'stream_set_blocking(STDIN, false);
            while (true) {
                try { HeartbeatClient::poll(0.05); } catch (DomainException $e) { say("thrown", $e->getMessage()); }
                answer(["client" => $client]);
            }');
        array_map(fn () => $client->next('subscribed'), range(1, 3));
        $server->ask('$server->publish("t", "1"); $server->publish("t", "2");');
        $heard = array_map(fn () => $client->next('heard'), range(1, 6));
        self::assertSame([['t', '1'], ['#', '1'], ['+', '1'], ['t', '2'], ['#', '2'], ['+', '2']], $heard);
        self::assertSame([['of t'], ['of #'], ['of +'], ['of t'], ['of #'], ['of +']], array_map(fn () => $client->next('thrown'), range(1, 6)));
    }

    public function test_a_gateway_hears_for_which_of_its_devices_the_server_has_put_them_into_a_topic(): void
    {
        $server = $this->server();
        $client = $this->subscriber($server->port, '$client->addNode("device"); $client->subscribe("room", $hear("room"));');
        $client->next('subscribed');
        $this->until(fn () => $server->stats()['nodes']['online'] === 2, 'both are registered');
        $server->ask('$server->join("device", "room"); $server->join("client", "hall"); $server->publish("room", "1"); $server->publish("hall", "2");');
        self::assertSame(['room', '1'], array_slice($client->next('room'), 0, 2));
        $messages = [$client->next('message'), $client->next('message')];
        sort($messages);
        self::assertSame([['hall', '2', 'client'], ['room', '1', 'device']], array_map(fn (array $told) => [$told[0], $told[1], $told[3]], $messages));
        self::assertCount(1, $client->said('room'));
    }

    /** @return array<string, array{0: array<string, mixed>}> */
    public static function histories(): array
    {
        return ['what the server keeps goes with its process' => [self::KEEPING], 'nothing is kept' => [[]]];
    }

    /**
     * @dataProvider histories
     * @param array<string, mixed> $config
     */
    public function test_when_the_server_is_killed_and_started_again_nothing_comes_twice_and_what_is_missing_is_told(array $config): void
    {
        $port = Port::free();
        // It publishes numbers without end, from where its predecessor was, which is the length of a file: only what is told as missing may
        // be missing.
        $file = tempnam(PhpProcess::folder(), 'count');
        $start = function () use ($port, $config, $file): PhpProcess {
            $server = $this->script(sprintf('
                $server = new HeartbeatServer("127.0.0.1", %d, %s + ["loop" => "native"]);
                $server->every(0.002, function () use ($server): void {
                    file_put_contents(%3$s, "x", FILE_APPEND);
                    clearstatcache();
                    $server->publish("kept/a", (string) filesize(%3$s));
                });
                serve($server);', $port, var_export($config, true), var_export($file, true)));
            $server->next('ready');
            return $server;
        };
        $server = $start();
        $client = $this->subscriber($port, '
            $last = $missed = 0;
            $isGap = true;
            $numbers = [];
            $client->on("subscribed", function (string $topic, $position, bool $recovered) use (&$isGap): void {
                $isGap = $isGap || !$recovered;
                say("subscribed", $topic, $position, $recovered);
            });
            $client->subscribe("kept/a", function (string $topic, string $data) use (&$last, &$isGap, &$missed, &$numbers): void {
                $number = (int) $data;
                if ($number <= $last) { say("twice or out of order", $last, $number); }
                if (!$isGap && $number !== $last + 1) { say("a gap that was not told", $last, $number); }
                $missed += $number - $last - 1;
                [$last, $isGap] = [$number, false];
                $numbers[] = $number;
            });');
        $count = fn (): int => $client->ask('return count($GLOBALS["numbers"]);');
        for ($round = 1; $round <= 3; $round++) {
            $enough = $count() + 50;
            $this->until(fn () => $count() >= $enough, "messages of round $round", 30);
            $server->signal(SIGKILL);
            $client->next('close');
            $server = $start();
        }
        $enough = $count() + 50;
        $this->until(fn () => $count() >= $enough, 'messages of the last server', 30);
        self::assertSame([[], []], [$client->said('twice or out of order'), $client->said('a gap that was not told')]);
        // Another life of the topic each time, although what the server keeps begins with its first publication.
        self::assertSame([true, false, false, false], array_column($client->said('subscribed'), 2));
        [$last, $numbers, $missed] = $client->ask('return [$GLOBALS["last"], count($GLOBALS["numbers"]), $GLOBALS["missed"]];');
        self::assertSame($last, $numbers + $missed);
    }

    /** Cut in the middle of the load, by the server itself; what it keeps makes up for it. */
    public function test_a_connection_that_is_cut_again_and_again_misses_nothing(): void
    {
        $server = $this->server(self::KEEPING, '
            $number = 0;
            $server->every(0.001, function () use ($server, &$number): void {
                for ($i = 0; $i < 20 && $number < 20000; $i++) { $server->publish("kept/a", (string) ++$number); }
                if ($number < 20000 && $number % 2000 < 20) { $server->disconnect("client"); }
            });');
        $client = $this->subscriber($server->port, '
            $next = 1;
            $client->subscribe("kept/a", function (string $topic, string $data, $position) use (&$next): void {
                if ((int) $data !== $next || $position->offset !== $next) { say("wrong", $next, $data, $position->offset); }
                $next++;
            }, new Heartbus\Position);');
        $this->until(fn () => $client->ask('return $GLOBALS["next"];') === 20001, 'all of it', 60);
        self::assertSame([], $client->said('wrong'));
        self::assertGreaterThan(2, count($client->said('subscribed')), 'it was cut');
        self::assertNotContains(false, array_column($client->said('subscribed'), 2));
    }

    public function test_in_a_forked_process_the_subscriptions_are_the_parent_s(): void
    {
        $server = $this->server();
        $client = $this->subscriber($server->port, '$client->subscribe("t", $hear("t"));');
        $client->next('subscribed');
        self::assertSame(['subscribe', 'unsubscribe', 'publish'], $client->ask('
            $calls = ["subscribe" => ["b", "strlen"], "unsubscribe" => ["t"], "publish" => ["t", "x"]];
            [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
            if (pcntl_fork() === 0) {
                $thrown = [];
                foreach ($calls as $method => $arguments) {
                    try { $client->$method(...$arguments); } catch (Heartbus\Exception\WrongProcessException) { $thrown[] = $method; }
                }
                fwrite($theirs, json_encode($thrown) . "\n");
                posix_kill(getmypid(), SIGKILL);
            }
            pcntl_wait($status);
            return json_decode(fgets($ours), true);'));
        $server->ask('$server->publish("t", "still");');
        self::assertSame('still', $client->next('t')[1]);
    }

    /** A client that says what it hears; `$hear("a")` makes a callback that says it as "a". */
    private function subscriber(int $port, string $script, array $config = [], string $attend = 'attend(["client" => $client]);'): PhpProcess
    {
        return $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, %s);
            say_events($client, "subscribed", "message", "published", "subscribe.refused", "publish.refused", "server_error", "close");
            $hear = fn (string $as) => fn (string $topic, string $data, ?Heartbus\Position $position) => say($as, $topic, $data, $position === null ? null : (string) $position);
            %s
            $client->connect();
            %s', $port, var_export($config + ['node_id' => 'client', 'reconnect_interval' => 0.1], true), $script, $attend));
    }
}
