<?php

/**
 * Chats through chat_server.php: sends the lines you type and shows what the others say.
 *
 * It waits for the keyboard and for the bus in one stream_select(), so that nothing has to be asked for in turns. Without
 * a terminal it sends the lines of its input, shows the answers and leaves.
 */

use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php chat.php [name] [options]

Joins the chat of chat_server.php. Ctrl-D or /quit leaves it; /help shows the commands.

  --room R   the room to begin in (lobby)
  --host H   server (127.0.0.1)
  --port P   its port (9501)
  --help     this text

TEXT;

/** How long we wait for the server when we want to leave, or, without a terminal, at the beginning. */
const PATIENCE = 5.0;

[$options, $words] = read_options(USAGE, ['room' => 'lobby', 'host' => '127.0.0.1', 'port' => 9501]);
count($words) <= 1 || refuse_usage("unknown argument '$words[1]'", USAGE);
require_extension();

$unsent = []; // lines for which there is no connection yet
$isDone = false;
$leavesAt = null; // when we leave at the latest, once we want to
$isIn = false;
$exitCode = 1; // until we were in

$client = new HeartbeatClient($options['host'], $options['port'], [
    'metadata' => ['name' => $words[0] ?? get_current_user(), 'room' => $options['room']],
    'heartbeat_interval' => 5,
    'reconnect_interval' => 1,
    'log_level' => 'off',
]);
$send = function () use ($client, &$unsent): void {
    while ($unsent !== [] && $client->send($unsent[0])) {
        array_shift($unsent);
    }
};
$terminal = new Terminal(function (?string $line) use (&$terminal, $send, &$unsent, &$leavesAt): void {
    if ($line === null || trim($line) === '/quit') {
        $line = '/quit';
        $leavesAt ??= microtime(true) + PATIENCE;
    }
    if (trim($line) === '') {
        return;
    }
    if (preg_match('//u', $line) !== 1) {
        $terminal->note('That was no UTF-8 text; it was not sent.');
        return;
    }
    $unsent[] = $line;
    $send();
});
$client->on('register', function () use ($send, &$isIn, &$exitCode): void {
    $isIn = true;
    $exitCode = 0;
    $send();
});
$client->on('data', function (string $payload) use ($terminal, &$isDone): void {
    $message = json_decode($payload, true) ?? [];
    [$kind, $from, $text] = [$message['kind'] ?? 'note', (string) ($message['from'] ?? ''), (string) ($message['text'] ?? $payload)];
    match ($kind) {
        'say' => $terminal->message($from, '', $text),
        'all' => $terminal->message($from, ' (to all)', $text),
        'private' => $terminal->message($from, ' (only to ' . ($message['to'] ?? 'you') . ')', $text),
        default => $terminal->note($text),
    };
    $isDone = $isDone || $kind === 'bye';
});
$client->on('server_error', fn (?array $error) => $terminal->note('The server says: ' . ($error['message'] ?? 'nothing readable')));
$client->on('error', fn (int $code, string $message) => $terminal->note("$message. Trying again..."));
$client->on('close', function () use ($terminal, &$isIn, &$isDone): void {
    $isDone || !$isIn || $terminal->note('The connection is gone. Trying again...');
    $isIn = false; // told once, not for every attempt
});
$client->connect();

$events = HeartbeatClient::getEventStream();
while (!$isDone && ($leavesAt === null || microtime(true) < $leavesAt)) {
    $read = $terminal->isOpen() ? [$events, STDIN] : [$events];
    $write = $except = null;
    if (@stream_select($read, $write, $except, 1) === false) {
        continue; // a signal
    }
    HeartbeatClient::poll();
    if (in_array(STDIN, $read, true)) {
        $terminal->read();
    }
}
$terminal->close();
$client->disconnect();
HeartbeatClient::run(); // until our goodbye is on its way
exit($exitCode);

/**
 * Lines in, lines out. On a terminal what arrives goes above the line that is being typed: we take the keys one by one then,
 * and edit the line ourselves. Trusts nothing that it is to print.
 */
final class Terminal
{
    private bool $isColourful;
    private bool $isOpen = true;
    /** What was typed, or read, of a line that is not finished. */
    private string $line = '';
    /** How the terminal was set before us, if we have changed that. */
    private ?string $settings = null;

    /** @param Closure(?string): void $onLine gets each line without its end, and null when there are no more */
    public function __construct(private Closure $onLine)
    {
        $this->isColourful = stream_isatty(STDOUT);
        if (!stream_isatty(STDIN)) {
            stream_set_blocking(STDIN, false);
        } elseif ($this->isColourful && ($settings = trim((string) shell_exec('stty -g 2>/dev/null'))) !== '') {
            $this->settings = $settings;
            shell_exec('stty -icanon -echo -isig'); // Ctrl-C is a key like any other: we leave in order
            register_shutdown_function($this->close(...));
            $this->prompt();
        }
    }

    public function isOpen(): bool
    {
        return $this->isOpen;
    }

    /** To be called when there is something to read. */
    public function read(): void
    {
        $input = (string) fread(STDIN, 8192);
        if ($this->settings !== null && $input !== '') {
            array_map($this->key(...), preg_split('/(\e[\[O][0-9;]*[~A-Za-z]|.)/s', $input, flags: PREG_SPLIT_DELIM_CAPTURE | PREG_SPLIT_NO_EMPTY));
            $this->prompt();
            return;
        }
        $lines = explode("\n", $this->line . $input);
        $this->line = array_pop($lines);
        array_map($this->onLine, $lines);
        if (feof(STDIN)) {
            $this->line === '' || ($this->onLine)($this->line);
            $this->end();
        }
    }

    public function note(string $text): void
    {
        $this->show($this->isColourful ? "\033[2m" . printable($text) . "\033[0m" : printable($text));
    }

    /** Something said, each person in a colour of their own. */
    public function message(string $from, string $how, string $text): void
    {
        $name = $this->isColourful ? sprintf("\033[1;%dm%s\033[0m", 31 + crc32($from) % 6, printable($from)) : printable($from);
        $this->show($name . printable("$how: $text"));
    }

    /** Gives the terminal back as it was. */
    public function close(): void
    {
        if ($this->settings !== null) {
            echo "\r\033[K";
            shell_exec('stty ' . escapeshellarg($this->settings));
            $this->settings = null;
        }
    }

    /** One byte, or the several of a key like the arrows, which do nothing here. */
    private function key(string $key): void
    {
        if ($key === "\n" || $key === "\r") {
            [$line, $this->line] = [$this->line, ''];
            ($this->onLine)($line);
        } elseif ($key === "\x7f" || $key === "\x08") {
            $this->line = preg_replace('/.$/su', '', $this->line) ?? '';
        } elseif ($key === "\x15") {
            $this->line = '';
        } elseif ($key === "\x03" || ($key === "\x04" && $this->line === '')) {
            $this->isOpen && $this->end();
        } elseif (strlen($key) === 1 && ord($key) >= 0x20) {
            $this->line .= $key;
        }
    }

    private function end(): void
    {
        $this->isOpen = false;
        ($this->onLine)(null);
    }

    private function show(string $text): void
    {
        if ($this->settings === null) {
            echo "$text\n";
        } else {
            echo "\r\033[K$text\n";
            $this->prompt();
        }
    }

    /** The end of what is being typed, as far as it fits. */
    private function prompt(): void
    {
        preg_match('/.{0,70}$/su', $this->line, $end);
        echo "\r\033[?7l> ", $end[0] ?? '', "\033[K\033[?7h";
    }
}
