--TEST--
php.ini decides what a configuration array leaves open
--EXTENSIONS--
heartbus
--INI--
heartbus.loop=manual
heartbus.log_level=error
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Client\HeartbeatClient;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/free_port.inc';

function refusal(callable $call): void
{
    try {
        $call();
        echo "accepted\n";
    } catch (Exception $exception) {
        echo get_class($exception), ': ', $exception->getMessage(), "\n";
    }
}

$log = __DIR__ . '/009_ini.tmp';
ini_set('heartbus.log_file', $log);

echo "loop: ";
$server = new HeartbeatServer('127.0.0.1', free_port());
$server->start();
echo "start() came back\n";
$server->stop();
while ($server->getStats()['monitor']['running']) {
    $server->poll(1.0);
}

echo "log: ";
var_dump((new HeartbeatClient())->send('to nobody'));
echo preg_replace('/^\[.{19}\]/', '[date]', file_get_contents($log));

echo "a wrong value, overruled by the array: ";
ini_set('heartbus.loop', 'whatever');
refusal(fn () => new HeartbeatServer('127.0.0.1', 9501, ['loop' => 'native']));
echo "a wrong value: ";
refusal(fn () => new HeartbeatServer());
refusal(fn () => (new HeartbeatClient())->connect());
?>
--CLEAN--
<?php
unlink(__DIR__ . '/009_ini.tmp');
?>
--EXPECTF--
loop: start() came back
log: bool(false)
[date] [ERROR] Cannot send: Not connected to server
a wrong value, overruled by the array: accepted
a wrong value: RuntimeException: Configuration validation failed: heartbus.loop must be one of 'auto', 'native', %s
InvalidArgumentException: heartbus.loop must be one of 'auto', 'native', %s
