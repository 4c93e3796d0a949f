--TEST--
The exceptions of the engine: one class per kind, the kind's number as code
--EXTENSIONS--
heartbus
--FILE--
<?php
use Heartbus\Exception\{ConfigException, HeartbusException, IoException};
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

foreach (['Config', 'Io', 'Protocol', 'Closed', 'Timeout', 'Limit', 'NotFound', 'Internal', 'WrongProcess'] as $kind) {
    $class = "Heartbus\\Exception\\{$kind}Exception";
    var_dump(is_subclass_of($class, RuntimeException::class) && is_subclass_of($class, HeartbusException::class));
}

// They are ordinary exceptions: PHP code can throw them, with file and line.
try {
    throw new ConfigException('of my own', 5);
} catch (HeartbusException $exception) {
    printf("%s %d in %s:%d\n", $exception->getMessage(), $exception->getCode(), basename($exception->getFile()), $exception->getLine());
}

$taken = stream_socket_server('tcp://127.0.0.1:0');
$port = (int) substr(strrchr(stream_socket_get_name($taken, false), ':'), 1);
try {
    (new HeartbeatServer('127.0.0.1', $port, ['loop' => 'native', 'log_level' => 'off']))->start();
} catch (IoException $exception) {
    echo str_replace((string) $port, 'PORT', $exception->getMessage()), ' (', $exception->getCode(), ")\n";
}
?>
--EXPECTF--
bool(true)
bool(true)
bool(true)
bool(true)
bool(true)
bool(true)
bool(true)
bool(true)
bool(true)
of my own 5 in 007_exceptions.php:12
Cannot listen on 127.0.0.1:PORT: Address already in use%S (2)
