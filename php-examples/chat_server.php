<?php

/**
 * A chat between nodes: everybody is in a room, and what somebody says is relayed to the nodes of that room.
 *
 * A node sends plain lines of text; one that begins with `/` is a command. It gets JSON: what `kind` of message it is
 * (`say`, `all`, `private`, `note`, or `bye` at its own wish), `from` whom, in which `room`, and the `text`.
 */

use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php chat_server.php [options]

Serves a chat until Ctrl-C. Join it with: php chat.php YOUR-NAME

  --host H   address to listen on (0.0.0.0)
  --port P   port to listen on (9501)
  --quiet    print nothing but errors
  --help     this text

TEXT;

const HELP = <<<'TEXT'
/who              who is in this room
/rooms            which rooms there are
/join ROOM        go to another room; it is there as soon as somebody goes there
/name NAME        take another name
/to NAME TEXT     say something to one person, wherever they are
/all TEXT         say something to everybody in every room
/quit             leave
TEXT;

[$options, $words] = read_options(USAGE, ['host' => '0.0.0.0', 'port' => 9501, 'quiet' => false]);
$words === [] || refuse_usage("unknown argument '$words[0]'", USAGE);
require_extension();

try {
    $server = new HeartbeatServer($options['host'], $options['port'], [
        'loop' => 'native', 'max_frame_bytes' => 64 * 1024, 'log_level' => $options['quiet'] ? 'error' : 'warning',
    ]);
    $chat = new Chat($server, $options['quiet']);
    $server->on('start', fn () => $chat->log("Chat on {$options['host']} port {$options['port']}. Join with: php chat.php YOUR-NAME --port {$options['port']}"));
    $server->on('register', $chat->enter(...));
    $server->on('data', $chat->hear(...));
    foreach (['unregister' => 'left', 'disconnected' => 'left', 'replaced' => 'came again', 'timeout' => 'fell silent'] as $event => $what) {
        $server->on($event, fn (Node $node) => $chat->leave($node, $what));
    }
    $server->start();
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}

final class Chat
{
    private const FIRST_ROOM = 'lobby';
    private const LONGEST_TEXT = 2000;

    /** @var array<string, array{name: string, room: string}> who is here, by the id of their node */
    private array $people = [];

    public function __construct(private HeartbeatServer $server, private bool $isQuiet)
    {
    }

    public function enter(Node $node): void
    {
        // A node may register again on its connection: it stays who it is.
        $known = $this->people[$node->id] ?? null;
        $wish = $node->metadata['name'] ?? '';
        $room = $node->metadata['room'] ?? '';
        $name = $known['name'] ?? $this->freeName($this->isName($wish) ? $wish : 'guest');
        $this->people[$node->id] = ['name' => $name, 'room' => $known['room'] ?? ($this->isName($room) ? $room : self::FIRST_ROOM)];
        $this->note($node->id, "Welcome, $name. You are in {$this->people[$node->id]['room']}. /help says what you can do.");
        $this->who($node->id);
        $this->inform($node->id, "$name is here");
    }

    public function leave(Node $node, string $what): void
    {
        if (isset($this->people[$node->id])) {
            $this->inform($node->id, "{$this->people[$node->id]['name']} $what");
            unset($this->people[$node->id]);
        }
    }

    /** One line from a node: a command, or something said. */
    public function hear(Node $node, string $line): void
    {
        $id = $node->id;
        if (!isset($this->people[$id]) || trim($line) === '') {
            return;
        }
        if (strlen($line) > self::LONGEST_TEXT) {
            $this->note($id, 'That is too long: ' . self::LONGEST_TEXT . ' bytes at most.');
            return;
        }
        if ($line[0] !== '/') {
            $this->toRoom($this->people[$id]['room'], $this->message('say', $line, $id));
            return;
        }
        [$command, $rest] = explode(' ', $line, 2) + [1 => ''];
        match ($command) {
            '/who' => $this->who($id),
            '/rooms' => $this->rooms($id),
            '/join' => $this->join($id, trim($rest)),
            '/name' => $this->rename($id, trim($rest)),
            '/to' => $this->whisper($id, ...explode(' ', trim($rest), 2) + [1 => '']),
            '/all' => trim($rest) === '' ? $this->note($id, 'Say what to all: /all TEXT') : $this->server->broadcast($this->message('all', $rest, $id)),
            '/help' => $this->note($id, HELP),
            '/quit' => $this->server->sendTo($id, $this->message('bye', 'See you.')),
            default => $this->note($id, "There is no $command. /help says what there is."),
        };
    }

    public function log(string $text): void
    {
        $this->isQuiet || print(date('H:i:s ') . printable($text) . "\n");
    }

    // ---- commands ----

    private function who(string $id): void
    {
        $room = $this->people[$id]['room'];
        $names = array_column(array_filter($this->people, fn (array $person): bool => $person['room'] === $room), 'name');
        sort($names);
        $this->note($id, "In $room: " . implode(', ', $names));
    }

    private function rooms(string $id): void
    {
        $rooms = array_count_values(array_column($this->people, 'room'));
        ksort($rooms);
        $this->note($id, 'Rooms: ' . implode(', ', array_map(fn (string $room, int $people): string => "$room ($people)", array_keys($rooms), $rooms)));
    }

    private function join(string $id, string $room): void
    {
        if (!$this->isName($room)) {
            $this->note($id, 'A room has a name of 1 to 20 letters, digits, - or _: /join ROOM');
            return;
        }
        $name = $this->people[$id]['name'];
        $this->inform($id, "$name went to $room");
        $this->people[$id]['room'] = $room;
        $this->who($id);
        $this->inform($id, "$name is here");
    }

    private function rename(string $id, string $name): void
    {
        if (!$this->isName($name) || $this->find($name) !== null) {
            $this->note($id, 'A name has 1 to 20 letters, digits, - or _, and is not taken: /name NAME');
            return;
        }
        $before = $this->people[$id]['name'];
        $this->people[$id]['name'] = $name;
        $this->note($id, "You are $name now.");
        $this->inform($id, "$before is $name now");
    }

    private function whisper(string $id, string $name, string $text): void
    {
        $to = $this->find($name);
        if ($to === null || $text === '') {
            $this->note($id, $to === null ? "There is no '$name' here: /to NAME TEXT" : 'Say what: /to NAME TEXT');
            return;
        }
        $message = $this->message('private', $text, $id, $this->people[$to]['name']);
        $this->server->sendTo($to, $message);
        $to === $id || $this->server->sendTo($id, $message);
    }

    // ---- relaying ----

    private function message(string $kind, string $text, ?string $from = null, ?string $to = null): string
    {
        $person = $from === null ? [] : ['from' => $this->people[$from]['name'], 'room' => $this->people[$from]['room']];
        return json_encode(['kind' => $kind, ...$person, ...array_filter(['to' => $to]), 'text' => $text], JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
    }

    private function note(string $id, string $text): void
    {
        $this->server->sendTo($id, $this->message('note', $text));
    }

    /** Tells the others in the room of a node, and the log. */
    private function inform(string $id, string $text): void
    {
        $this->log("[{$this->people[$id]['room']}] $text");
        $this->toRoom($this->people[$id]['room'], $this->message('note', $text), $id);
    }

    private function toRoom(string $room, string $message, ?string $except = null): void
    {
        foreach ($this->people as $id => $person) {
            if ($person['room'] === $room && (string) $id !== $except) {
                $this->server->sendTo((string) $id, $message); // PHP makes integers of keys that look like them
            }
        }
    }

    // ---- names ----

    private function isName(mixed $name): bool
    {
        return is_string($name) && preg_match('/^[\pL\pN_-]{1,20}$/Du', $name) === 1;
    }

    private function find(string $name): ?string
    {
        foreach ($this->people as $id => $person) {
            if ($person['name'] === $name) {
                return (string) $id;
            }
        }
        return null;
    }

    private function freeName(string $name): string
    {
        for ($free = $name, $number = 2; $this->find($free) !== null; $number++) {
            $free = preg_replace('/^(.{0,15}).*$/u', '$1', $name) . "-$number";
        }
        return $free;
    }
}
