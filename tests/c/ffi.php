<?php
// PHP without the extension: heartbus_ffi.h and libheartbus.so through FFI. A server and a client say hello to each other.

[, $header, $library] = $argv;
$heartbus = FFI::cdef(file_get_contents($header), $library);

function ok(FFI $heartbus, int $status): void
{
    if ($status !== $heartbus->HEARTBUS_OK) {
        throw new RuntimeException($heartbus->heartbus_status_name($status) . ': ' . $heartbus->heartbus_last_error());
    }
}

/** The next event that has this type; what comes before it is passed over. */
function wait(FFI $heartbus, callable $poll, int $type): FFI\CData
{
    $events = $heartbus->new('heartbus_event[1]');
    $count = $heartbus->new('size_t');
    for ($until = microtime(true) + 20; microtime(true) < $until;) {
        ok($heartbus, $poll($events, 1, 1000, FFI::addr($count)));
        if ($count->cdata === 1 && $events[0]->type === $type) {
            return $events;
        }
    }
    throw new RuntimeException('Waited in vain for ' . $heartbus->heartbus_event_name($type));
}

$server = $heartbus->new('heartbus_server *');
$config = json_encode(['host' => '127.0.0.1', 'port' => 0]);
ok($heartbus, $heartbus->heartbus_server_start($config, strlen($config), $heartbus->HEARTBUS_ON_DATA, FFI::addr($server)));
$port = $heartbus->new('uint16_t');
ok($heartbus, $heartbus->heartbus_server_port($server, FFI::addr($port)));

$clients = $heartbus->new('heartbus_clients *');
ok($heartbus, $heartbus->heartbus_clients_start(null, 0, FFI::addr($clients)));
$client = $heartbus->new('uint64_t');
$config = json_encode(['port' => $port->cdata, 'node_id' => 'php', 'metadata' => ['v' => '1.0']]);
ok($heartbus, $heartbus->heartbus_client_connect($clients, $config, strlen($config), FFI::addr($client)));

$fromServer = fn (...$arguments) => $heartbus->heartbus_server_poll($server, ...$arguments);
$fromClients = fn (...$arguments) => $heartbus->heartbus_clients_poll($clients, ...$arguments);

wait($heartbus, $fromClients, $heartbus->HEARTBUS_EVENT_CLIENT_REGISTER);
ok($heartbus, $heartbus->heartbus_client_send($clients, $client->cdata, 'hello', 5, 0));
$event = wait($heartbus, $fromServer, $heartbus->HEARTBUS_EVENT_DATA)[0];
$text = $event->node_id . ' says ' . FFI::string($event->payload, $event->payload_len);
ok($heartbus, $heartbus->heartbus_server_send($server, 'php', 3, $text, strlen($text), 0));
$event = wait($heartbus, $fromClients, $heartbus->HEARTBUS_EVENT_CLIENT_DATA)[0];
echo 'ok      ', FFI::string($event->payload, $event->payload_len), PHP_EOL;

ok($heartbus, $heartbus->heartbus_clients_free($clients));
ok($heartbus, $heartbus->heartbus_server_free($server));
exit($text === 'php says hello' ? 0 : 1);
