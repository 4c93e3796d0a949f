--TEST--
heartbus.log=logger brings the engine's messages into the Logger of an unchanged application
--EXTENSIONS--
heartbus
--INI--
heartbus.log=logger
heartbus.log_level=info
heartbus.loop=native
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;
use PfinalClub\AsyncioHeartbeat\Utils\Logger;

require __DIR__ . '/free_port.inc';

// More than any system has descriptors for: the engine says so.
$server = new HeartbeatServer('127.0.0.1', free_port(), ['max_connections' => PHP_INT_MAX]);
$server->every(0.05, fn () => Logger::getInstance()->getBuffer() && $server->stop());
$server->every(20.0, fn () => $server->stop());
$server->start();
?>
--EXPECTF--
%A[WARNING] max_connections lowered %s
[%d-%d-%d %d:%d:%d] [INFO] HeartbeatServer starting {"host":"127.0.0.1",%s}
%A
