<?php

namespace Heartbus\Tests\Processes;

use Heartbus\Tests\{Crowd, Frame, ServerApp, TestCase, WorkermanApp};

/** Processes that die: what the others notice of it. */
final class CrashTest extends TestCase
{
    private const BATCH = 512;

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installationsAndWorkers */
    public function test_a_killed_worker_costs_no_connection_and_no_message_and_at_most_one_batch_comes_again(string $workerman, int $workers): void
    {
        $this->killWorkers(ServerApp::start($workerman, ['php_workers' => $workers]), $workers);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installationsAndWorkers */
    public function test_the_same_holds_for_messages_that_are_told_at_once(string $workerman, int $workers): void
    {
        $this->killWorkers(ServerApp::start($workerman, ['php_workers' => $workers], ServerApp::NOTE . '
            $server->on("data.batch", function (array $nodes, array $payloads) use ($server) {
                foreach ($payloads as $i => $payload) { note($server, $nodes[$i], $payload); }
            });'), $workers);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_messages_at_which_a_worker_died_come_again_one_by_one_and_say_so(string $workerman): void
    {
        $server = $this->dieAtOnce($workerman, 'posix_kill(getmypid(), SIGKILL);', 3);
        $first = $sequences = $again = [];
        foreach ($server->process->said('batch') as [$payloads, $sequence, $redelivered]) {
            if ($redelivered) {
                self::assertCount(1, $payloads, 'alone');
                $again[] = $payloads[0];
                self::assertSame($sequences[$payloads[0]] ??= $sequence, $sequence, 'the number of this message');
            } else {
                array_push($first, ...$payloads);
                $fatal = in_array('70', $payloads, true) ? $payloads : $fatal ?? [];
            }
        }
        self::assertSame([], array_diff($again, $first), 'once unmarked before');
        self::assertSame($first, array_values(array_unique($first)));
        self::assertCount(2, array_keys($again, '70', true), 'three workers died of it');
        self::assertSame([], array_diff($fatal, $again), 'what the first of them had been told comes again');
        self::assertSame(1, $server->counter('dispatch_abandoned'));
    }

    /** @dataProvider departures */
    public function test_a_callback_that_throws_or_exits_was_told_all_messages_of_its_call(string $workerman, string $departure): void
    {
        $server = $this->dieAtOnce($workerman, $departure, 1);
        self::assertNotContains(true, array_column($server->process->said('batch'), 2));
        self::assertSame(0, $server->counter('dispatch_redelivered'));
    }

    public static function departures(): array
    {
        $ends = ['exit' => 'exit(7);', 'error' => 'no_such_function();', 'exception' => 'throw new DomainException("from the callback");',
            'out of memory' => 'ini_set("memory_limit", "32M"); str_repeat("x", 1 << 30);'];
        $sets = [];
        foreach (WorkermanApp::installations() as $name => [$folder]) {
            foreach ($ends as $end => $code) {
                $sets["$name, $end"] = [$folder, $code];
            }
        }
        return $sets;
    }

    /** A hundred messages, of which the callback ends its worker by the 70th, so many times. All the others are told, in their order. */
    private function dieAtOnce(string $workerman, string $end, int $times): ServerApp
    {
        $server = ServerApp::start($workerman, [], '
            $server->on("start", fn () => say("start", getmypid()));
            $server->on("data.batch", function (array $nodes, array $payloads) use ($server) {
                if ($payloads === ["wait"]) {
                    say("waits");
                    while (!is_file("go")) { usleep(5000); clearstatcache(); }
                    return;
                }
                say("batch", $payloads, ...array_values($server->event()));
                if (in_array("70", $payloads, true)) { ' . $end . ' }
            });');
        $server->next('start');
        $peer = $server->node('a');
        $peer->send(Frame::DATA, 'wait');
        $server->next('waits');
        $peer->bytes(implode('', array_map(fn (int $number) => Frame::bytes(Frame::DATA, (string) $number), range(1, 100))));
        $this->until(fn () => $server->counter('data_in') === 101, 'all have arrived');
        touch("{$server->app->folder}/go");
        for ($time = 0; $time < $times; $time++) {
            $server->next('start', 30);
        }
        $server->untilAllIsTold();
        $all = array_merge(...array_column($server->process->said('batch'), 0));
        self::assertSame(array_map(strval(...), range(1, 100)), array_values(array_unique($all)));
        self::assertCount($times, array_keys($all, '70', true));
        $peer->beat();
        return $server;
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_what_a_worker_was_at_when_it_died_comes_again_and_says_so(string $workerman): void
    {
        $server = ServerApp::start($workerman, [], ServerApp::NOTE . '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                if ($payload === "wait") {
                    say("waits");
                    while (!is_file("go")) { usleep(5000); clearstatcache(); }
                    return;
                }
                note($server, $node, $payload);
                if ($payload === "700" && !is_file("died")) { touch("died"); posix_kill(getmypid(), SIGKILL); }
            });');
        $server->next('start');
        $peer = $server->node('n0');
        $peer->send(Frame::DATA, 'wait');
        $server->next('waits');
        $peer->bytes(implode('', array_map(fn (int $number) => Frame::bytes(Frame::DATA, (string) $number), range(1, 1500))));
        $this->until(fn () => $server->counter('data_in') === 1501, 'all have arrived');
        touch("{$server->app->folder}/go");
        $server->next('start', 30);
        $this->until(fn () => count(array_unique(array_column($server->notes(), 1))) === 1500, 'all are told');
        $server->untilAllIsTold();
        $this->assertNothingLost($server, 1, 1500, self::BATCH);

        $again = array_filter($server->notes(), fn (array $note) => $note[3]);
        self::assertNotSame([], $again);
        self::assertContains('700', array_column($again, 1), 'it was being told');
        self::assertSame(count($again), $server->counter('dispatch_redelivered'));
        // The same numbers as the first time, and marked from the first to the last: one batch.
        $sequences = [];
        foreach ($server->notes() as [, $payload, $sequence]) {
            self::assertSame($sequences[$payload] ??= $sequence, $sequence);
        }
        self::assertSame(range(min(array_column($again, 2)), max(array_column($again, 2))), array_values(array_column($again, 2)));
        $peer->beat();
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_callback_that_throws_or_exits_costs_its_worker_and_no_connection(string $workerman): void
    {
        $server = ServerApp::start($workerman, [], ServerApp::NOTE . '
            $server->on("data", function (Node $node, string $payload) use ($server) {
                note($server, $node, $payload);
                match ($payload) {
                    "exit" => exit(7),
                    "throw" => throw new DomainException("from the callback"),
                    "fail" => no_such_function(),
                    default => $server->sendTo($node->id, (string) getmypid()),
                };
            });');
        [$pid] = $server->next('start');
        $peer = $server->node('a');
        foreach (['exit', 'throw', 'fail'] as $end) {
            // Both in one read, and so in one batch.
            $peer->bytes(Frame::bytes(Frame::DATA, $end) . Frame::bytes(Frame::DATA, 'who'));
            $answered = (int) $peer->expect(Frame::DATA, 30)->payload;
            self::assertNotSame($pid, $answered);
            $pid = $answered;
            $peer->beat();
            $peer->expectSilence();
        }
        $server->untilAllIsTold();
        $told = [];
        foreach ($server->notes() as [, $payload, , $redelivered]) {
            $told[$payload][] = $redelivered;
        }
        foreach (['exit', 'throw', 'fail'] as $end) {
            // Three workers at most, then it is given up. The first could not know.
            self::assertLessThanOrEqual(3, count($told[$end]));
            self::assertSame([false, ...array_fill(0, count($told[$end]) - 1, true)], $told[$end]);
        }
        self::assertCount(3, $told['who'], 'what came behind is told once');
        self::assertSame(1, $server->bus()->stats()['nodes']['online']);
    }

    /** @dataProvider \Heartbus\Tests\WorkermanApp::installations */
    public function test_a_killed_engine_is_started_again_clients_come_back_and_the_workers_attach_anew(string $workerman): void
    {
        $server = ServerApp::start($workerman, ['php_workers' => 2], ServerApp::NOTE . '
            $server->on("stop", fn () => say("stop", getmypid()));');
        $workers = [$server->next('start')[0], $server->next('start')[0]];
        foreach (['a', 'b', 'c', 'd'] as $id) {
            $clients[$id] = $this->client($server->port, ['node_id' => $id, 'reconnect_interval' => 0.1]);
            $clients[$id]->next('register');
        }
        $engine = $server->engine();
        posix_kill($engine, SIGKILL);
        self::assertEqualsCanonicalizing($workers, [$server->next('stop')[0], $server->next('stop')[0]]);
        self::assertEqualsCanonicalizing($workers, [$server->next('start', 30)[0], $server->next('start', 30)[0]], 'the same processes');
        foreach ($clients as $client) {
            $client->next('close');
            $client->next('register', 30);
        }
        self::assertNotSame($engine, $server->engine());
        self::assertEqualsCanonicalizing($workers, $server->phpWorkers());
        foreach ($clients as $id => $client) {
            self::assertTrue($client->ask("return \$client->send('$id is back');"));
        }
        $this->until(fn () => count($server->notes()) === 4, 'they are heard');
        self::assertEqualsCanonicalizing(['a is back', 'b is back', 'c is back', 'd is back'], array_column($server->notes(), 1));
        self::assertSame(4, $server->bus()->stats()['nodes']['online']);
        self::assertCount(2, $server->process->said('stop'));
        self::assertStringContainsString('stop success', $server->command('stop'));
        self::assertSame(0, $server->process->exitCode());
        self::assertCount(4, $server->process->said('stop'));
    }

    private function killWorkers(ServerApp $server, int $workers): void
    {
        for ($worker = 0; $worker < $workers; $worker++) {
            $server->next('start');
        }
        $crowd = Crowd::join($server->port, 200, 0.1);
        $kills = 3;
        for ($kill = 0; $kill < $kills; $kill++) {
            $crowd->talk(1);
            posix_kill($server->phpWorkers()[0], SIGKILL);
            $server->next('start', 30);
        }
        $rounds = $crowd->finish();
        $this->until(fn () => $server->counter('data_in') === 200 * $rounds, 'all have arrived', 60);
        $server->untilAllIsTold();
        $this->assertNothingLost($server, 200, $rounds, $kills * self::BATCH);
        self::assertSame(0, $server->counter('connections_closed'));
    }

    /** Every message of every node was told, first in its order; what was told again says so. */
    private function assertNothingLost(ServerApp $server, int $nodes, int $messages, int $most): void
    {
        $told = [];
        $again = 0;
        foreach ($server->notes() as [$node, $payload, , $redelivered]) {
            if (isset($told[$node][$payload])) {
                self::assertTrue($redelivered, "$payload of $node came twice and does not say so");
            }
            $told[$node][$payload] = true;
            $again += (int) $redelivered;
        }
        self::assertCount($nodes, $told);
        foreach ($told as $node => $payloads) {
            self::assertSame(range(1, $messages), array_keys($payloads), "what $node said, in its order");
        }
        self::assertLessThanOrEqual($most, $again);
    }
}
