<?php

namespace Heartbus\Tests\Client;

use Heartbus\Tests\{FakeServer, Frame, Port, TestCase, Wait};

/** Losing the server and finding it again. */
final class ReconnectTest extends TestCase
{
    public function test_a_lost_connection_comes_back_with_the_same_id(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['reconnect_interval' => 0.1, 'log_level' => 'info']);
        [$peer, $request] = $server->register(1);
        $id = $request['node_id'];
        foreach ([2, 3, 4] as $channel) {
            $peer->close();
            $client->next('close');
            [$peer, $request] = $server->register($channel);
            self::assertSame($id, $request['node_id'], 'a made-up id is kept');
        }
        foreach ([1, 2, 3, 4] as $channel) {
            self::assertSame([$id, $channel], $client->next('register'));
        }
        self::assertCount(4, $client->said('connect'));
        self::assertSame(0, $client->ask('return $client->getStats()["reconnect_attempts"];'), 'a success starts the count anew');
        self::assertStringContainsString('Scheduling reconnect', $client->output() . $client->errors());
    }

    public function test_a_failed_connect_tells_error_one_and_close_and_tries_again(): void
    {
        $port = Port::free();
        $client = $this->client($port, ['reconnect_interval' => 0.1]);
        [$code, $message, $cause] = $client->next('error');
        self::assertSame([1, 'connection refused'], [$code, $cause]);
        self::assertMatchesRegularExpression("/^connect 127\.0\.0\.1:$port fail after [0-9.]+ seconds$/", $message);
        self::assertSame(['connect failed', 'Connection refused (os error 111)'], $client->next('close'));
        $client->next('error');
        $server = FakeServer::listen($port);
        $server->register(5, 20);
        self::assertSame(5, $client->next('register')[1]);
        self::assertCount(1, $client->said('connect'), 'connect is told once, when it succeeds');
    }

    public function test_a_name_without_an_address_is_an_error_that_says_so(): void
    {
        $process = $this->script('
            $client = new HeartbeatClient("no-such-host.invalid", 9501, ["auto_reconnect" => false]);
            say_events($client, "error", "close");
            $client->connect();
            HeartbeatClient::run();');
        self::assertSame([1, 'no such host'], [($error = $process->next('error', 60))[0], $error[2]]);
        self::assertSame('connect failed', $process->next('close')[0]);
    }

    public function test_callbacks_of_the_arguments_that_there_were_go_on_working(): void
    {
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["auto_reconnect" => false]);
            $client->on("error", fn (int $code, string $message) => say("error", $code));
            $client->on("close", fn () => say("close"));
            $client->connect();
            HeartbeatClient::run();', Port::free()));
        self::assertSame([1], $process->next('error', 30));
        self::assertSame([], $process->next('close'));
    }

    public function test_attempts_are_limited_when_asked_and_run_ends_then(): void
    {
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["reconnect_interval" => 0.1, "max_reconnect_attempts" => 3]);
            say_events($client, "error", "close");
            $client->connect();
            HeartbeatClient::run();
            say("ended", $client->getStats()["reconnect_attempts"]);', Port::free()));
        self::assertSame(0, $process->exitCode(30));
        self::assertSame([3], $process->next('ended'));
        self::assertCount(4, $process->said('error'), 'the first try and three more');
        self::assertCount(4, $process->said('close'));
        self::assertStringContainsString('Max reconnect attempts reached', $process->output() . $process->errors());
    }

    public function test_the_delays_grow_and_are_random_within_their_bounds(): void
    {
        // What is decided is in the log: how fast the machine is does not matter.
        $process = $this->script(sprintf('
            for ($i = 0; $i < 30; $i++) {
                $client = new HeartbeatClient("127.0.0.1", %d, ["reconnect_interval" => 0.1, "max_reconnect_attempts" => 5, "log_level" => "info"]);
                $client->connect();
            }
            HeartbeatClient::run();', Port::free()));
        self::assertSame(0, $process->exitCode(60));
        preg_match_all('/\[INFO\] Scheduling reconnect (\{.*\})$/m', $process->errors(), $found);
        $delays = [];
        foreach ($found[1] as $context) {
            ['attempt' => $attempt, 'interval' => $delays[$attempt][]] = json_decode($context, true);
        }
        self::assertSame([1, 2, 3, 4, 5], array_keys($delays));
        foreach ($delays as $attempt => $some) {
            self::assertCount(30, $some);
            $longest = 0.1 * 2 ** ($attempt - 1);
            self::assertGreaterThanOrEqual(0.1, min($some));
            self::assertLessThanOrEqual($longest, max($some));
            // Thirty draws, of which at least one is in the upper half and most are different: else nothing grows, or nothing is random.
            self::assertGreaterThan($longest / 2, max($some), "attempt $attempt");
        }
        self::assertSame(0.1, max($delays[1]));
        self::assertGreaterThan(15, count(array_unique($delays[5])));
    }

    public function test_the_delay_is_never_shorter_than_a_tenth_of_a_second(): void
    {
        $client = $this->client(Port::free(), ['reconnect_interval' => 0.01], '
            $client->on("error", fn () => say("error", microtime(true)));
            say("began", microtime(true));');
        [$began] = $client->next('began', 20);
        $times = [];
        for ($i = 0; $i < 5; $i++) {
            $times[] = $client->next('error', 20)[0];
        }
        // Four delays together, from before the first try: an event that is told late can only add to that.
        self::assertGreaterThan(0.39, $times[4] - $began);
    }

    public function test_without_auto_reconnect_it_stays_away_and_run_ends(): void
    {
        $server = FakeServer::listen();
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["auto_reconnect" => false, "reconnect_interval" => 0.1]);
            say_events($client, "register", "close");
            $client->connect();
            HeartbeatClient::run();
            say("ended", $client->isConnected());', $server->port));
        [$peer] = $server->register();
        $process->next('register');
        $peer->close();
        self::assertSame([false], $process->next('ended'));
        self::assertSame(0, $process->exitCode());
        self::assertCount(1, $process->said('close'));
        self::assertFalse($server->isCalled(0));
    }

    public function test_after_being_replaced_it_stays_away(): void
    {
        $server = $this->server();
        $client = $this->client($server->port, ['node_id' => 'a', 'reconnect_interval' => 0.1]);
        $client->next('register');
        $newer = $server->node('a');
        self::assertSame([['message' => 'Replaced by a newer connection', 'code' => 409]], $client->next('server_error'));
        $client->next('close');
        Wait::pass(0.5);
        $newer->beat();
        self::assertCount(1, $client->said('connect'));
        self::assertSame(1, $server->stats()['nodes']['online']);
    }

    public function test_a_server_that_says_it_shuts_down_is_tried_again(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['reconnect_interval' => 0.1]);
        [$peer] = $server->register(3);
        $peer->send(Frame::ERROR, '{"message":"Server is shutting down","code":503}');
        $peer->close();
        $client->next('close');
        $server->register(9);
        self::assertSame(3, $client->next('register')[1]);
        self::assertSame(9, $client->next('register')[1]);
    }

    public function test_a_server_that_no_longer_answers_heartbeats_is_noticed_within_two_intervals(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['heartbeat_interval' => 3, 'reconnect_interval' => 0.1]);
        [$peer] = $server->register();
        $peer->expect(Frame::HEARTBEAT_REQ, 20);
        $peer->send(Frame::HEARTBEAT_RES, '{"timestamp":1}');
        // From the next heartbeat on the server is half-open: connected, and silent.
        $peer->expect(Frame::HEARTBEAT_REQ, 20);
        // When the one after that is due, the connection ends instead.
        $peer->expectClosed(20);
        $client->next('close', 20);
        $server->register();
        $client->next('register');
        $client->next('register');
    }

    public function test_a_server_that_never_answers_the_register_is_noticed_too(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['heartbeat_interval' => 3, 'reconnect_interval' => 0.1]);
        $mute = $server->accept();
        $mute->expect(Frame::REGISTER);
        $client->next('close', 20);
        $server->register();
        $client->next('register');
    }

    public function test_garbage_from_the_server_ends_the_connection_and_nothing_else(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['reconnect_interval' => 0.1]);
        foreach (["HTTP/1.1 400 Bad Request\r\n\r\n", "\xAB\x12\x03\xFF\xFF\xFF\xFF", "\xAB\x12\x03\0\0\0\x09{\"a\":"] as $garbage) {
            [$peer] = $server->register();
            $client->next('register');
            $peer->bytes($garbage);
            $peer->finish();
            $client->next('close');
        }
        [$peer] = $server->register();
        $client->next('register');
        self::assertTrue($client->ask('return $client->send("fine");'));
        self::assertSame('fine', $peer->expect(Frame::DATA)->payload);
    }

    public function test_disconnect_while_waiting_to_reconnect_ends_it(): void
    {
        $client = $this->client(Port::free(), ['reconnect_interval' => 0.2]);
        $client->next('error');
        // What has happened before may be told later.
        $client->ask('$client->disconnect(); while (HeartbeatClient::poll(0.1) > 0);');
        $errors = count($client->said('error'));
        Wait::pass(1.0);
        self::assertLessThanOrEqual($errors + 1, count($client->said('error')), 'one try may have been under way');
    }

    public function test_a_server_that_restarts_gets_all_its_clients_back(): void
    {
        $port = Port::free();
        $start = fn () => $this->script("\$server = new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native']);\nserve(\$server);");
        $server = $start();
        $server->next('ready');
        $process = $this->script("
            \$registered = 0;
            for (\$i = 0; \$i < 100; \$i++) {
                \$c = \$clients[] = new HeartbeatClient('127.0.0.1', $port, ['node_id' => \"n\$i\", 'reconnect_interval' => 0.2]);
                \$c->on('register', function () use (&\$registered) { \$registered++; });
                \$c->connect();
            }
            drive(function () use (&\$registered) { return \$registered >= 100; }, 30);
            say('once');
            drive(function () use (&\$registered) { return \$registered >= 200; }, 60);
            say('twice');
            fgets(STDIN);");
        $process->next('once', 30);
        $server->signal(SIGTERM);
        self::assertSame(0, $server->exitCode());
        $server = $start();
        $server->next('ready');
        $process->next('twice', 60);
        self::assertSame(100, $server->ask('return $server->getStats();')['nodes']['online']);
    }
}
