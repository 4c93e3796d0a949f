--TEST--
The extension loads and brings the classes of the PHP library
--EXTENSIONS--
heartbus
--FILE--
<?php
$extension = new ReflectionExtension('heartbus');
var_dump($extension->getVersion() === phpversion('heartbus'));
var_dump(preg_match('/^\d+\.\d+\.\d+/', phpversion('heartbus')));

$library = 'PfinalClub\AsyncioHeartbeat';
foreach (['Client\HeartbeatClient', 'Node\Node', 'Protocol\HeartbeatProtocol', 'Protocol\Message', 'Server\HeartbeatServer'] as $class) {
    printf("%s: %s\n", $class, (new ReflectionClass("$library\\$class"))->getExtensionName());
}
// Loading alone starts no thread: PHP's own is the only one.
echo count(glob('/proc/self/task/*')), " thread\n";
?>
--EXPECT--
bool(true)
int(1)
Client\HeartbeatClient: heartbus
Node\Node: heartbus
Protocol\HeartbeatProtocol: heartbus
Protocol\Message: heartbus
Server\HeartbeatServer: heartbus
1 thread
