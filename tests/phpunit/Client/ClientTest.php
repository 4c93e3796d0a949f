<?php

namespace Heartbus\Tests\Client;

use Heartbus\Tests\{FakeServer, Frame, PhpProcess, Port, TestCase};

/** HeartbeatClient on the wire and in PHP, against a server that the test plays frame by frame. */
final class ClientTest extends TestCase
{
    private const TELLING_LOGGER = '
        PfinalClub\AsyncioHeartbeat\Utils\Logger::getInstance()->setLogger(new class {
            public function log($level, $message, array $context = []): void { say("log", $level, $message, $context); }
        });';

    public function test_before_connect_there_is_nothing(): void
    {
        $process = $this->script('
            $client = new HeartbeatClient();
            say("state", $client->isConnected(), $client->getNodeId(), $client->getChannelId(), $client->send("x"), $client->ping());
            say("stats", $client->getStats());
            $client->disconnect();');
        self::assertSame(0, $process->exitCode());
        self::assertSame([false, null, null, false, false], $process->next('state'));
        [$stats] = $process->next('stats');
        self::assertEqualsCanonicalizing(['connected', 'node_id', 'channel_id', 'messages_sent', 'messages_received', 'reconnect_attempts', 'uptime', 'channels', 'nodes',
            'subscriptions', 'reads_paused', 'frames_refused', 'bytes_waiting', 'bytes_kept'],
            array_keys($stats));
        self::assertSame([false, null, null, 0, 0, 0], [$stats['connected'], $stats['node_id'], $stats['channel_id'], $stats['messages_sent'],
            $stats['messages_received'], $stats['reconnect_attempts']]);
        self::assertStringContainsString('Cannot send: Not connected to server', $process->output() . $process->errors());
        self::assertStringContainsString('Cannot ping: Not connected to server', $process->output() . $process->errors());
    }

    /**
     * @dataProvider protocols
     * @param list<string> $more what follows the PHP library's keys
     */
    public function test_the_first_frame_is_a_register_like_the_php_library_s(array $config, array $more): void
    {
        $server = FakeServer::listen();
        $since = microtime(true);
        $this->client($server->port, $config + ['node_id' => 'n/1é', 'metadata' => ['v' => '1.0', 'deep' => [1, 2]]]);
        $frame = $server->accept()->expect(Frame::REGISTER);
        self::assertSame(0, $frame->channel);
        self::assertStringStartsWith('{"node_id":"n\/1\u00e9","metadata":{"v":"1.0","deep":[1,2]},"timestamp":', $frame->payload);
        self::assertSame([1, ['node_id', 'metadata', 'timestamp', ...$more]], [$frame->dialect, array_keys($frame->json())]);
        self::assertSince($since, $frame->json()['timestamp']);
    }

    public static function protocols(): array
    {
        return ['byte for byte in v1' => [['protocol' => 1], []], 'with the wish for v2' => [[], ['protocol']]];
    }

    public function test_without_an_id_it_makes_one_up_and_metadata_is_an_empty_list(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer, $request] = $server->register(12);
        self::assertMatchesRegularExpression('/^client_[0-9a-f]{13}_[0-9a-f]{8}$/', $request['node_id']);
        self::assertSame([], $request['metadata']);
        self::assertSame([$request['node_id'], 12], $client->next('register'));
        self::assertSame([true, $request['node_id'], 12], $client->ask('return [$client->isConnected(), $client->getNodeId(), $client->getChannelId()];'));
        unset($peer);
    }

    public function test_events_come_in_order_with_their_arguments(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['node_id' => 'a', 'auto_reconnect' => false], '
            $client->on("register", function (string $id, int $channel) use ($client) { say("register", $id, $channel); $client->heartbeat("a"); });');
        [$peer] = $server->register(7);
        $peer->expect(Frame::HEARTBEAT_REQ);
        $peer->send(Frame::HEARTBEAT_RES, '{"timestamp":1}')->send(Frame::DATA, "text é \0", 99)->send(Frame::PONG)
            ->send(Frame::ERROR, '{"message":"Rate limit exceeded","code":429}');
        $peer->close();
        $client->next('close');
        self::assertSame([['connect'], ['register', 'a', 7], ['heartbeat'], ['data', "text é \0", 99], ['pong'],
            ['server_error', ['message' => 'Rate limit exceeded', 'code' => 429]], ['close', 'peer closed', '']], $client->history());
    }

    public function test_learns_its_channel_from_the_original_server_s_nested_reply_too(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['node_id' => 'a']);
        $peer = $server->accept();
        $peer->expect(Frame::REGISTER);
        $peer->send(Frame::REGISTER, '{"node_id":"a","metadata":{"channel_id":31,"status":"ok","server_time":1.5},"timestamp":1.5}');
        self::assertSame(['a', 31], $client->next('register'));
    }

    public function test_heartbeats_start_one_interval_after_the_connect_and_carry_the_time(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['heartbeat_interval' => 3]);
        [$peer, $request] = $server->register();
        for ($i = 1; $i <= 3; $i++) {
            $frame = $peer->expect(Frame::HEARTBEAT_REQ, 20);
            self::assertSame(0, $frame->channel);
            self::assertMatchesRegularExpression('/^{"timestamp":\d{10}(\.\d{1,6})?}$/', $frame->payload);
            // By the client's own clock: how late it arrives here says nothing.
            self::assertGreaterThan(3 * $i - 0.05, $frame->json()['timestamp'] - $request['timestamp']);
            $peer->send(Frame::HEARTBEAT_RES, '{"timestamp":1}');
            $client->next('heartbeat');
        }
    }

    public function test_send_uses_its_own_channel_unless_another_is_given(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer] = $server->register(7);
        $client->next('register');
        self::assertSame([true, true, true], $client->ask('return [$client->send("own"), $client->send("negative", -5), $client->send("named", 1234)];'));
        foreach ([['own', 7], ['negative', 7], ['named', 1234]] as $expected) {
            $frame = $peer->expect(Frame::DATA);
            self::assertSame($expected, [$frame->payload, $frame->channel]);
        }
    }

    public function test_send_before_the_register_reply_returns_false_and_throws_nothing(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, [], '$client->on("connect", fn () => say("early", $client->send("too early"), $client->isConnected()));');
        self::assertSame([false, true], $client->next('early'));
        [$peer] = $server->register(7);
        $client->next('register');
        self::assertTrue($client->ask('return $client->send("now");'));
        self::assertSame('now', $peer->expect(Frame::DATA)->payload);
    }

    public function test_ping_is_sent_and_pong_is_told(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer] = $server->register();
        $client->next('register');
        self::assertTrue($client->ask('return $client->ping();'));
        self::assertSame('', $peer->expect(Frame::PING)->payload);
        $peer->send(Frame::PONG);
        self::assertSame([], $client->next('pong'));
    }

    public function test_payloads_that_json_can_carry_travel_and_others_are_refused_and_logged(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer] = $server->register();
        $client->next('register');
        foreach ([implode('', array_map('chr', range(0, 127))), 'é中😀', '', str_repeat('x', 1_000_000)] as $text) {
            self::assertTrue($client->ask('return $client->send(base64_decode("' . base64_encode($text) . '"));'));
            self::assertSame(bin2hex($text), bin2hex($peer->expect(Frame::DATA)->payload));
        }
        self::assertFalse($client->ask('return $client->send("\xFF");'));
        self::assertFalse($client->ask('return $client->send("\xC0\x80");'));
        self::assertFalse($client->ask('return $client->send(str_repeat("x", 10485761));'));
        self::assertStringContainsString('Failed to send data: ', $client->output() . $client->errors());
        self::assertTrue($client->ask('return $client->send("still fine");'));
        self::assertSame('still fine', $peer->expect(Frame::DATA)->payload);
    }

    public function test_stats_count_what_was_sent_and_received(): void
    {
        $server = FakeServer::listen();
        $began = microtime(true);
        $client = $this->client($server->port, ['node_id' => 'a']);
        [$peer] = $server->register(7);
        $client->next('register');
        $client->ask('$client->send("x"); $client->ping(); $client->heartbeat("a");');
        $peer->expect(Frame::DATA);
        $peer->expect(Frame::PING);
        $peer->expect(Frame::HEARTBEAT_REQ);
        $peer->send(Frame::HEARTBEAT_RES, '{}')->send(Frame::PONG);
        $client->next('heartbeat');
        $client->next('pong');
        $stats = $client->ask('return $client->getStats();');
        self::assertSame([true, 'a', 7, 3, 3, 0], [$stats['connected'], $stats['node_id'], $stats['channel_id'], $stats['messages_sent'],
            $stats['messages_received'], $stats['reconnect_attempts']]);
        self::assertGreaterThan(0, $stats['uptime']);
        self::assertLessThan(microtime(true) - $began + 0.01, $stats['uptime']);
    }

    /** @dataProvider refusedConfigurations */
    public function test_the_constructor_checks_nothing_and_connect_names_the_key(string $text, array $config, int $port = 9501): void
    {
        $process = $this->script('
            $client = new HeartbeatClient("127.0.0.1", ' . $port . ', ' . var_export($config, true) . ');
            try { $client->connect(); } catch (InvalidArgumentException | RuntimeException $e) { say("refused", $e->getMessage(), $e::class); }
            say("state", $client->isConnected(), $client->getStats()["reconnect_attempts"]);
            HeartbeatClient::run();');
        self::assertSame([ltrim($text, '!'), str_starts_with($text, '!') ? 'Heartbus\Exception\ConfigException' : 'InvalidArgumentException'], $process->next('refused'));
        self::assertSame([false, 0], $process->next('state'));
        self::assertSame(0, $process->exitCode());
    }

    public static function refusedConfigurations(): array
    {
        $positive = fn (string $key): string => "$key must be a number of seconds greater than 0";
        return [
            'heartbeat_interval 0' => [$positive('heartbeat_interval'), ['heartbeat_interval' => 0]],
            'heartbeat_interval a word' => [$positive('heartbeat_interval'), ['heartbeat_interval' => 'often']],
            'reconnect_interval negative' => [$positive('reconnect_interval'), ['reconnect_interval' => -1]],
            'connect_timeout an array' => [$positive('connect_timeout'), ['connect_timeout' => []]],
            'heartbeat_interval infinite' => ['heartbeat_interval must be a number of seconds from 0.001 to 1000000000', ['heartbeat_interval' => INF]],
            'connect_timeout beyond all measure' => ['connect_timeout must be a number of seconds from 0.001 to 1000000000', ['connect_timeout' => 1e300]],
            'reconnect_interval not a number' => [$positive('reconnect_interval'), ['reconnect_interval' => NAN]],
            'attempts beyond all measure' => ['max_reconnect_attempts must be an integer <= 4294967295', ['max_reconnect_attempts' => PHP_INT_MAX]],
            'attempts negative' => ['max_reconnect_attempts must be an integer >= 0', ['max_reconnect_attempts' => -1]],
            'attempts a string' => ['max_reconnect_attempts must be an integer >= 0', ['max_reconnect_attempts' => '3']],
            'node_id an array' => ['node_id must be of type string, array given', ['node_id' => []]],
            'node_id not UTF-8' => ['node_id must be valid UTF-8', ['node_id' => "\xFF"]],
            'node_id empty' => ['!node_id must have 1 to 255 bytes', ['node_id' => '']],
            'node_id too long' => ['!node_id must have 1 to 255 bytes', ['node_id' => str_repeat('x', 256)]],
            'metadata a string' => ['metadata must be of type array, string given', ['metadata' => 'x']],
            'metadata not UTF-8' => ['metadata cannot be encoded as JSON', ['metadata' => ['k' => "\xFF"]]],
            'outbox_bytes 0' => ['outbox_bytes must be an integer >= 1', ['outbox_bytes' => 0]],
            'max_nodes 0' => ['max_nodes must be an integer >= 1', ['max_nodes' => 0]],
            'max_nodes a string' => ['max_nodes must be an integer >= 1', ['max_nodes' => '20']],
            'loop unknown' => ["loop must be one of 'auto', 'native', 'workerman', 'revolt', 'react', 'manual'", ['loop' => 'swoole']],
            'log_level unknown' => ["log_level must be one of 'debug', 'info', 'warning', 'error', 'off'", ['log_level' => 'loud']],
            'port 0' => ['!port must be between 1 and 65535', [], 0],
            'port too high' => ['Invalid port: 65536', [], 65536],
        ];
    }

    public function test_stats_tell_the_channels_and_an_uptime_that_goes_on_after_the_end(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['auto_reconnect' => false]);
        $stats = fn (): array => $client->ask('return $client->getStats();');
        $peer = $server->accept();
        $client->next('connect');
        self::assertSame(0, $stats()['channels'], 'no channel before the register reply');
        $request = $peer->expect(Frame::REGISTER)->json();
        $peer->send(Frame::REGISTER, json_encode(['node_id' => $request['node_id'], 'channel_id' => 7]));
        $client->next('register');
        self::assertSame(1, $stats()['channels']);
        $peer->close();
        $client->next('close');
        $ended = $stats();
        self::assertSame([false, 0], [$ended['connected'], $ended['channels']]);
        self::assertGreaterThan(0, $ended['uptime']);
        $this->until(fn () => $stats()['uptime'] > $ended['uptime'] + 0.1, 'it counts from the last connect, connected or not');
    }

    public function test_the_log_has_the_messages_of_the_php_library_with_level_and_context(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['node_id' => 'n', 'log' => 'logger', 'log_level' => 'info', 'max_reconnect_attempts' => 1,
            'reconnect_interval' => 0.1], self::TELLING_LOGGER);
        [$peer] = $server->register(7);
        $peer->send(Frame::ERROR, '{"message":"Too bad","code":499}');
        $client->next('server_error');
        // Nobody listens any more: the one attempt fails.
        $server->close();
        $peer->close();
        $this->until(fn () => in_array('Max reconnect attempts reached', array_column($client->said('log'), 1)), 'it gives up');
        $client->ask('return [$client->send("x"), $client->ping()];');
        $this->until(fn () => in_array('Cannot ping: Not connected to server', array_column($client->said('log'), 1)), 'the last line');
        $ids = array_unique(array_map(fn (array $line) => $line[2]['client_id'] ?? null, $client->said('log')));
        self::assertCount(1, $ids, 'each line says whose it is');
        self::assertGreaterThan(0, $ids[0]);
        $log = array_map(fn (array $line) => [$line[0], preg_replace('/after [\d.]+ seconds/', 'after ? seconds', $line[1]),
            array_diff_key($line[2], ['client_id' => 0])], $client->said('log'));
        self::assertSame([
            ['info', 'Connected to server', ['host' => '127.0.0.1', 'port' => $server->port]],
            ['info', 'Sending registration', ['node_id' => 'n']],
            ['info', 'Registration successful', ['node_id' => 'n', 'channel_id' => 7]],
            ['error', 'Server error', ['message' => 'Too bad', 'code' => 499]],
            ['info', 'Connection closed', ['reason' => 'peer closed']],
            ['info', 'Scheduling reconnect', ['attempt' => 1, 'interval' => 0.1]],
            ['error', "Connection error: connect 127.0.0.1:{$server->port} fail after ? seconds", ['code' => 1, 'cause' => 'connection refused']],
            ['info', 'Connection closed', ['reason' => 'connect failed', 'detail' => 'Connection refused (os error 111)']],
            ['error', 'Max reconnect attempts reached', []],
            ['error', 'Cannot send: Not connected to server', []],
            ['error', 'Cannot ping: Not connected to server', []],
        ], $log);
    }

    public function test_what_finds_the_buffer_full_is_refused_and_logged_and_nothing_else_happens(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['log' => 'logger', 'outbox_bytes' => 1], self::TELLING_LOGGER);
        [$peer] = $server->register(7);
        $client->next('register');
        // The server reads nothing: sooner or later the system's buffers are full too.
        $client->ask('while ($client->ping()) { $client->send(str_repeat("x", 1 << 20)); } while ($client->send("x"));');
        foreach (['Failed to send ping: The outbox is full', 'Failed to send data: The outbox is full'] as $message) {
            $this->until(fn () => in_array($message, array_column($client->said('log'), 1)), $message);
        }
        self::assertTrue($client->ask('return $client->isConnected();'));
        self::assertSame([], $client->said('error'));
        unset($peer);
    }

    public function test_sending_over_a_broken_connection_is_error_two(): void
    {
        $server = FakeServer::listen();
        // While the callback waits, the inbox fills and the client stops reading: it can learn of the end from its writing only.
        $process = $this->script(sprintf('
            $client = new HeartbeatClient("127.0.0.1", %d, ["auto_reconnect" => false, "heartbeat_interval" => 3600]);
            say_events($client, "register", "error", "close");
            $client->on("data", function () use ($client) {
                $client->on("data", fn () => null);
                while ($client->getStats()["messages_received"] <= 65536) { usleep(1000); }
                say("full");
                fgets(STDIN);
                $client->send("into the void");
            });
            $client->connect();
            HeartbeatClient::run();', $server->port));
        [$peer] = $server->register(7);
        $process->next('register');
        $peer->bytes(str_repeat(Frame::bytes(Frame::DATA, 'x', 7), 70_000), 30);
        $process->next('full', 30);
        $peer->reset();
        // The client's side of it, by the port that it is connected to.
        $isOpen = sprintf('/:%04X 01 /', $server->port);
        $this->until(fn () => preg_match($isOpen, file_get_contents('/proc/net/tcp')) === 0, 'the reset has arrived');
        $process->tell('go on');
        self::assertSame([2, 'client closed', 'connection lost'], $process->next('error', 30));
        self::assertSame('connection lost', $process->next('close')[0]);
        self::assertSame(0, $process->exitCode());
    }

    /** @dataProvider strangeErrors */
    public function test_an_error_reaches_the_callback_as_an_array_and_as_null_when_it_is_none(string $payload, ?array $expected): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer] = $server->register();
        $peer->send(Frame::ERROR, $payload);
        self::assertSame([$expected], $client->next('server_error'));
        self::assertTrue($client->ask('return $client->isConnected();'));
    }

    public static function strangeErrors(): array
    {
        return [
            'no JSON' => ['oops', null], 'a number' => ['5', null], 'null' => ['null', null], 'nothing' => ['', null],
            'other keys' => ['{"message":"m","code":1,"detail":{"a":[1]}}', ['message' => 'm', 'code' => 1, 'detail' => ['a' => [1]]]],
            'no keys' => ['{}', []],
        ];
    }

    public function test_what_a_client_does_not_know_it_ignores(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer] = $server->register();
        foreach ([0, Frame::HEARTBEAT_REQ, Frame::PING, Frame::UNREGISTER, 99] as $type) {
            $peer->send($type, 'x');
        }
        $peer->send(Frame::DATA, 'after all that', 1);
        self::assertSame(['after all that', 1], $client->next('data'));
    }

    public function test_frames_split_and_glued_are_understood(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port);
        [$peer] = $server->register();
        $bytes = Frame::bytes(Frame::DATA, 'one é', 1) . Frame::bytes(Frame::PONG) . Frame::bytes(Frame::DATA, 'two', 2);
        foreach (str_split($bytes) as $byte) {
            $peer->bytes($byte);
        }
        $peer->bytes($bytes);
        foreach ([['one é', 1], ['two', 2], ['one é', 1], ['two', 2]] as $data) {
            self::assertSame($data, $client->next('data'));
        }
    }

    public function test_unknown_event_names_are_accepted_and_the_last_callback_wins(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, [], '
            $client->on("whatever", fn () => null);
            $client->on("data", fn () => say("first"));
            $client->on("data", fn (string $payload) => say("second", $payload));');
        [$peer] = $server->register();
        $peer->send(Frame::DATA, 'x');
        self::assertSame(['x'], $client->next('second'));
        self::assertSame([], $client->said('first'));
    }

    public function test_disconnect_says_goodbye_and_does_not_come_back(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, ['node_id' => 'a', 'reconnect_interval' => 0.1]);
        [$peer] = $server->register(7);
        $client->next('register');
        $client->ask('$client->disconnect();');
        self::assertSame('', $peer->expect(Frame::UNREGISTER)->payload);
        $peer->expectClosed();
        $client->next('close');
        self::assertSame([false, 'a', 7, false], $client->ask('return [$client->isConnected(), $client->getNodeId(), $client->getChannelId(), $client->send("x")];'));
        self::assertFalse($server->isCalled(1.0), 'it stays away');

        $client->ask('$client->connect();');
        [, $request] = $server->register(8);
        self::assertSame('a', $request['node_id']);
        self::assertSame(['a', 8], $client->next('register'));
    }

    public function test_connect_while_connected_or_connecting_does_nothing(): void
    {
        $server = FakeServer::listen();
        $client = $this->client($server->port, [], '$client->connect(); $client->connect();');
        [$peer] = $server->register();
        $client->next('register');
        $client->ask('$client->connect();');
        self::assertFalse($server->isCalled(0.5));
        unset($peer);
    }

    public function test_ipv6_and_host_names(): void
    {
        foreach (Port::hasIpv6() ? ['::1', 'localhost'] : ['localhost'] as $host) {
            $server = $this->server([], 'say_events($server, "register");', ['host' => $host]);
            $client = $this->script("\$c = new HeartbeatClient('$host', {$server->port}, ['node_id' => 'n', 'auto_reconnect' => false]);
                \$c->connect(); drive(fn () => \$c->getChannelId() !== null); \$c->disconnect(); HeartbeatClient::run();");
            self::assertSame(0, $client->exitCode());
            self::assertSame(['n'], $server->next('register'));
        }
    }

    public function test_with_the_real_server_heartbeats_keep_it_alive_and_data_is_answered(): void
    {
        $server = $this->server(['heartbeat_timeout' => 8], '
            $server->on("data", fn (Node $node, string $text, int $channel) => $server->sendTo($node->id, "echo: $text", $channel));
            say_events($server, "timeout", "unregister");');
        $client = $this->client($server->port, ['node_id' => 'real', 'heartbeat_interval' => 3]);
        [$id, $channel] = $client->next('register');
        self::assertSame('real', $id);
        $client->ask('$client->send("hello é");');
        self::assertSame(['echo: hello é', $channel], $client->next('data'));
        for ($i = 0; $i < 3; $i++) {
            $client->next('heartbeat', 20);
        }
        self::assertSame([], $server->process->said('timeout'));
        $client->ask('$client->disconnect();');
        self::assertSame(['real'], $server->next('unregister'));
    }

    public function test_thousands_of_clients_live_on_one_thread_of_one_process(): void
    {
        $server = $this->server();
        $process = $this->script(sprintf('
            $registered = $answered = 0;
            for ($i = 0; $i < 2000; $i++) {
                $c = $clients[] = new HeartbeatClient("127.0.0.1", %d, ["node_id" => "n$i", "auto_reconnect" => false]);
                $c->on("register", function () use (&$registered) { $registered++; });
                $c->on("pong", function () use (&$answered) { $answered++; });
                $c->connect();
            }
            drive(function () use (&$registered) { return $registered === 2000; }, 30);
            foreach ($clients as $c) { $c->ping() || throw new Exception("no ping"); }
            drive(function () use (&$answered) { return $answered === 2000; }, 30);
            say("threads", count(scandir("/proc/self/task")) - 2);
            fgets(STDIN);', $server->port));
        self::assertSame([6], $process->next('threads', 60), 'PHP, the clients, and four that look names up');
        self::assertSame(2000, $server->stats()['nodes']['online']);
    }

    public function test_a_client_inside_of_a_native_server_s_process_uses_its_loop(): void
    {
        $server = $this->server([], '
            $server->on("start", function () use ($server) {
                $GLOBALS["client"] = $client = new HeartbeatClient("127.0.0.1", $server->getStats()["server"]["port"], ["node_id" => "inside"]);
                $client->on("register", fn (string $id) => say("client registered", $id));
                $client->on("data", fn (string $payload) => say("client data", $payload));
                $client->connect();
            });
            $server->on("register", fn (Node $node) => $server->sendTo($node->id, "welcome"));');
        self::assertSame(['inside'], $server->next('client registered'));
        self::assertSame(['welcome'], $server->next('client data'));
        self::assertSame(0, $server->stop());
    }

    /** Without heartbeats unless they are what is tested: a server that the test plays answers none by itself. */
    protected function client(int $port, array $config = [], string $script = '', array $options = []): PhpProcess
    {
        return parent::client($port, $config + ['heartbeat_interval' => 3600], $script, $options);
    }
}
