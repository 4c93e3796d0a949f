<?php

/**
 * PHP without the extension: libheartbus through FFI. A server and a client in one process say hello to each other, and both
 * are waited for in one stream_select().
 *
 *     php -d ffi.enable=1 echo.php [/usr/local/include/heartbus_ffi.h [libheartbus.so]]
 */

final class Heartbus
{
    public FFI $ffi;

    public function __construct(string $header = '/usr/local/include/heartbus_ffi.h', string $library = 'libheartbus.so.1')
    {
        $this->ffi = FFI::cdef(file_get_contents($header), $library);
        if ($this->ffi->heartbus_abi_version() !== 1) {
            throw new RuntimeException('This program was written for ABI 1 of libheartbus');
        }
    }

    /** Calls a function, and throws what it says when it fails. */
    public function __call(string $function, array $arguments): void
    {
        $status = $this->ffi->{"heartbus_$function"}(...$arguments);
        if ($status !== $this->ffi->HEARTBUS_OK) {
            throw new RuntimeException($this->ffi->heartbus_status_name($status) . ': ' . $this->ffi->heartbus_last_error());
        }
    }

    /** Memory for a result, and where it is. */
    public function place(string $type): array
    {
        $place = $this->ffi->new($type);
        return [$place, FFI::addr($place)];
    }

    /** The descriptor of a server or a group of clients, as PHP waits for it. It is never read from. */
    public function stream(string $kind, FFI\CData $handle)
    {
        [$fd, $at] = $this->place('int');
        $this->{"{$kind}_fd"}($handle, $at);
        return fopen("php://fd/{$fd->cdata}", 'r');
    }

    /** What waits, copied into plain arrays: the library's memory is gone at the next poll. */
    public function poll(string $kind, FFI\CData $handle): array
    {
        $events = $this->ffi->new('heartbus_event[64]');
        [$count, $at] = $this->place('size_t');
        $this->{"{$kind}_poll"}($handle, $events, 64, 0, $at);
        $copies = [];
        for ($i = 0; $i < $count->cdata; $i++) {
            $copies[] = [
                'name' => $this->ffi->heartbus_event_name($events[$i]->type),
                'node' => $events[$i]->node_id,
                'payload' => $events[$i]->payload_len ? FFI::string($events[$i]->payload, $events[$i]->payload_len) : '',
            ];
        }
        return $copies;
    }
}

$heartbus = new Heartbus(...array_slice($argv, 1));
$ffi = $heartbus->ffi;

[$server, $at] = $heartbus->place('heartbus_server *');
$config = json_encode(['host' => '127.0.0.1', 'port' => 0]);
$heartbus->server_start($config, strlen($config), $ffi->HEARTBUS_ON_REGISTER | $ffi->HEARTBUS_ON_DATA | $ffi->HEARTBUS_ON_LEFT, $at);
[$port, $at] = $heartbus->place('uint16_t');
$heartbus->server_port($server, $at);

[$clients, $at] = $heartbus->place('heartbus_clients *');
$heartbus->clients_start(null, 0, $at);
[$me, $at] = $heartbus->place('uint64_t');
$config = json_encode(['port' => $port->cdata, 'node_id' => 'php', 'metadata' => ['v' => '1.0']]);
$heartbus->client_connect($clients, $config, strlen($config), $at);

$streams = ['server' => $heartbus->stream('server', $server), 'clients' => $heartbus->stream('clients', $clients)];
for ($finished = $left = false; !$finished || !$left;) {
    [$readable, $none, $nothing] = [$streams, null, null];
    if (!stream_select($readable, $none, $nothing, 20)) {
        exit("Nothing happened for 20 seconds\n");
    }
    if (isset($readable['server'])) {
        foreach ($heartbus->poll('server', $server) as $event) {
            echo "server: {$event['node']} {$event['name']} {$event['payload']}\n";
            if ($event['name'] === 'data') {
                $answer = "hello {$event['node']}";
                $heartbus->server_send($server, $event['node'], strlen($event['node']), $answer, strlen($answer), 0);
            }
            $left = $left || $event['name'] === 'unregister';
        }
    }
    if (isset($readable['clients'])) {
        foreach ($heartbus->poll('clients', $clients) as $event) {
            echo "client: {$event['name']} {$event['payload']}\n";
            match ($event['name']) {
                'client_register' => $heartbus->client_send($clients, $me->cdata, 'hello', 5, 0),
                'client_data' => $heartbus->client_disconnect($clients, $me->cdata),
                'client_finished' => $finished = true,
                default => null,
            };
        }
    }
}

try {
    $heartbus->server_send($server, 'nobody', 6, '?', 1, 0);
} catch (RuntimeException $refused) {
    echo "refused: {$refused->getMessage()}\n";
}
$heartbus->clients_free($clients);
$heartbus->server_free($server);
