--TEST--
php --ri heartbus shows version, engine, features and settings
--EXTENSIONS--
heartbus
--INI--
heartbus.log_level=info
--FILE--
<?php
(new ReflectionExtension('heartbus'))->info();
?>
--EXPECTF--
heartbus

Heartbus => enabled
Version => %d.%d.%S
Engine => heartbus-core %d.%d.%S
Wire => v1%S
Features => server, client, %s
Event loops => auto, native, workerman, %s
Thread safety => none: for NTS builds of PHP only

Server setting => Default
heartbeat_timeout => 30 seconds
%A
Directive => Local Value => Master Value
heartbus.log => stderr => stderr
heartbus.log_file => no value => no value
heartbus.log_level => info => info
heartbus.socket => no value => no value
heartbus.loop => auto => auto
