<?php

namespace Heartbus\Tests\Examples;

use Heartbus\Tests\{Frame, Peer, PhpProcess, Port, TestCase};

/** The chat of php-examples/: its server, its client with and without a terminal, and strangers on the wire. */
final class ChatTest extends TestCase
{
    private const FOLDER = __DIR__ . '/../../../php-examples';

    private PhpProcess $server;
    private int $port;

    protected function setUp(): void
    {
        $this->port = Port::free();
        $this->startServer();
    }

    public function test_people_in_a_room_hear_each_other_and_nobody_else_does(): void
    {
        [$ann, $annSays] = $this->join('ann');
        [$bob, $bobSays] = $this->join('bob');
        [$eve, $eveSays] = $this->join('eve', 'tea');
        $this->until(fn () => str_contains($ann->output(), "bob is here\n"), 'ann learns that bob came');
        self::assertStringContainsString("In lobby: ann, bob\n", $bob->output());

        $annSays('good morning, 早上好');
        $this->until(fn () => str_contains($bob->output(), "ann: good morning, 早上好\n"), 'bob hears ann');
        $this->until(fn () => str_contains($ann->output(), "ann: good morning"), 'ann sees what she said');
        $eveSays('/to bob psst');
        $this->until(fn () => str_contains($bob->output(), "eve (only to bob): psst\n"), 'a private word crosses rooms');
        $eveSays('/all dinner is ready');
        foreach ([$ann, $bob, $eve] as $person) {
            $this->until(fn () => str_contains($person->output(), "eve (to all): dinner is ready\n"), 'everybody hears what is said to all');
        }
        $bobSays('/join tea');
        $this->until(fn () => str_contains($eve->output(), "bob is here\n"), 'bob is in the other room');
        $bobSays('only for tea');
        $this->until(fn () => str_contains($eve->output(), "bob: only for tea\n"), 'eve hears bob');
        $annSays('/rooms');
        $this->until(fn () => str_contains($ann->output(), "Rooms: lobby (1), tea (2)\n"), 'ann sees the rooms');

        $bobSays('/quit');
        self::assertSame(0, $bob->exitCode());
        self::assertStringEndsWith("See you.\n", $bob->output());
        $this->until(fn () => str_contains($eve->output(), "bob left\n"), 'eve learns that bob left');
        self::assertStringNotContainsString('good morning', $eve->output());
        self::assertStringNotContainsString('only for tea', $ann->output());
        self::assertStringNotContainsString('psst', $ann->output());
        self::assertStringContainsString("[tea] bob left\n", $this->server->output());
        self::assertSame('', $ann->errors() . $bob->errors() . $eve->errors());
    }

    public function test_piped_lines_are_said_answered_and_left_with(): void
    {
        $piped = PhpProcess::file(self::FOLDER . '/chat.php', ['cron', '--port', $this->port],
            ['wrap' => ['sh', '-c', 'printf "the backup is done\n\n/who\n/nonsense\n/to nobody hello\nlast" | exec "$@"', 'sh']]);
        self::assertSame(0, $piped->exitCode(), $piped->transcript());
        self::assertSame("Welcome, cron. You are in lobby. /help says what you can do.\nIn lobby: cron\ncron: the backup is done\nIn lobby: cron\n"
            . "There is no /nonsense. /help says what there is.\nThere is no 'nobody' here: /to NAME TEXT\ncron: last\nSee you.\n", $piped->output());
    }

    public function test_names_are_one_persons_only(): void
    {
        $first = $this->stranger('n1', ['name' => 'ann']);
        self::assertSame('Welcome, ann. You are in lobby. /help says what you can do.', $this->hears($first));
        $second = $this->stranger('n2', ['name' => 'ann']);
        self::assertStringStartsWith('Welcome, ann-2.', $this->hears($second));
        $this->hears($second);
        $second->send(Frame::DATA, '/name ann');
        self::assertStringContainsString('is not taken', $this->hears($second));
        $second->send(Frame::DATA, '/name Zoë');
        self::assertSame('You are Zoë now.', $this->hears($second));
    }

    public function test_a_person_whose_connection_is_replaced_is_there_once(): void
    {
        $before = $this->stranger('7', ['name' => 'ann']); // an id that PHP makes an integer of, as the key of an array
        // Both lines of the greeting: what is sent to an id later on goes to whoever has the id then.
        $this->hears($before);
        $this->hears($before);
        $again = $this->stranger('7', ['name' => 'ann']);
        self::assertStringStartsWith('Welcome, ann.', $this->hears($again));
        self::assertSame('In lobby: ann', $this->hears($again));
        $again->send(Frame::DATA, 'hello');
        self::assertSame('hello', $this->hears($again));
    }

    public function test_strangers_are_refused_in_words_and_harm_nobody(): void
    {
        $stranger = $this->stranger('x', ['name' => ['not', 'text'], 'room' => "\033[2J"]);
        self::assertStringStartsWith('Welcome, guest. You are in lobby.', $this->hears($stranger));
        $this->hears($stranger);
        foreach (['/join no room' => 'A room has a name', '/name ' . str_repeat('x', 21) => 'A name has', '/to' => "There is no ''", '/all' => 'Say what to all',
            str_repeat('x', 2001) => 'That is too long', '/to guest' => 'Say what'] as $line => $answer) {
            $stranger->send(Frame::DATA, $line);
            self::assertStringStartsWith($answer, $this->hears($stranger));
        }
        $stranger->send(Frame::UNREGISTER)->send(Frame::DATA, 'am I still here?');
        $stranger->expectSilence();
        self::assertSame('', $this->server->errors());
    }

    public function test_what_could_steer_a_terminal_is_not_printed(): void
    {
        [$ann] = $this->join('ann');
        $this->stranger('x', ['name' => 'x'])->send(Frame::DATA, "a\033[2Jb\u{202e}c\rd\u{9b}e");
        $this->until(fn () => str_contains($ann->output(), "x: a[2Jbcde\n"), 'only letters are left');
    }

    public function test_a_lost_server_is_told_once_and_found_again(): void
    {
        [$ann, $annSays] = $this->join('ann');
        $this->server->signal(SIGTERM);
        self::assertSame(0, $this->server->exitCode());
        $this->until(fn () => str_contains($ann->output(), 'The connection is gone. Trying again...'), 'ann is told');
        $annSays('is anybody there?');
        $this->startServer();
        $this->until(fn () => str_contains($ann->output(), "ann: is anybody there?\n"), 'what was said meanwhile arrives', 20);
        self::assertSame(1, substr_count($ann->output(), 'The connection is gone'));
    }

    public function test_without_a_server_it_gives_up_and_says_so(): void
    {
        $alone = PhpProcess::file(self::FOLDER . '/chat.php', ['ann', '--port', Port::free()], ['wrap' => ['sh', '-c', 'exec "$@" < /dev/null', 'sh']]);
        self::assertSame(1, $alone->exitCode(20));
        self::assertStringContainsString('Trying again...', $alone->output());
    }

    public function test_on_a_terminal_what_arrives_goes_above_the_line_being_typed(): void
    {
        $command = implode(' ', array_map('escapeshellarg', [PHP_BINARY, '-d', 'extension=' . PhpProcess::extension(), self::FOLDER . '/chat.php',
            'ann', '--port', (string) $this->port]));
        [$keys, $type] = $this->keyboard();
        $terminal = PhpProcess::run('passthru("script -qec " . escapeshellarg($argv[1]) . " /dev/null", $code); exit($code);', [$command],
            ['wrap' => ['sh', '-c', "exec \"\$@\" < $keys", 'sh']]);
        $this->until(fn () => str_contains($terminal->output(), 'In lobby: ann'), 'ann is in');
        $type("wrong\x15hellp\x7fo, w\033[D");
        $this->until(fn () => str_contains($terminal->output(), "\r\033[?7l> hello, w\033[K"), 'the line is edited');
        $this->stranger('b', ['name' => 'bob'])->send(Frame::DATA, 'hi');
        $this->until(fn () => preg_match('/bob\033\[0m: hi\r?\n\r\033\[\?7l> hello, w\033\[K/', $terminal->output()) === 1, 'the typed line is written again below');
        $type("orld\r");
        $this->until(fn () => str_contains($terminal->output(), "ann\033[0m: hello, world"), 'the line is said');
        $type("\x03");
        self::assertSame(0, $terminal->exitCode(), $terminal->transcript());
        self::assertStringContainsString('See you.', $terminal->output());
    }

    private function startServer(): void
    {
        $this->server = PhpProcess::file(self::FOLDER . '/chat_server.php', ['--host', '127.0.0.1', '--port', $this->port]);
        $this->until(fn () => str_contains($this->server->output(), "port $this->port"), 'the chat is there');
    }

    /** @return array{0: PhpProcess, 1: callable(string): void} a client that is in, and what types a line of it */
    private function join(string $name, string $room = 'lobby'): array
    {
        [$keys, $type] = $this->keyboard();
        $person = PhpProcess::file(self::FOLDER . '/chat.php', [$name, '--room', $room, '--port', $this->port],
            ['wrap' => ['sh', '-c', "exec \"\$@\" < $keys", 'sh']]);
        $this->until(fn () => str_contains($person->output(), "In $room: "), "$name is in");
        return [$person, fn (string $line) => $type("$line\n")];
    }

    /** @return array{0: string, 1: callable(string): void} a pipe with a name, and what writes into it */
    private function keyboard(): array
    {
        $pipe = tempnam(PhpProcess::folder(), 'keys');
        unlink($pipe);
        self::assertTrue(posix_mkfifo($pipe, 0600));
        $end = fopen($pipe, 'r+'); // also for reading: opening waits for nobody, and the pipe never ends
        return [$pipe, fn (string $bytes) => fwrite($end, $bytes)];
    }

    private function stranger(string $nodeId, array $metadata): Peer
    {
        $peer = Peer::connect($this->port);
        $peer->register($nodeId, $metadata);
        return $peer;
    }

    private function hears(Peer $peer): string
    {
        return $peer->expect(Frame::DATA)->json()['text'];
    }
}
