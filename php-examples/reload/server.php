<?php

/**
 * A server whose code is replaced while its clients stay connected: start it, change handlers.php, reload it.
 *
 * The engine has a process of its own, which a reload leaves alone: it holds the connections and answers the heartbeats.
 * This file is read once, when everything starts; a change of it wants `restart`. handlers.php is read in the `start` event,
 * by each PHP worker when it begins its work: that is what a reload replaces.
 */

use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

require __DIR__ . '/../options.php';

const USAGE = <<<'TEXT'
Usage: php server.php start|stop|restart|reload|status|connections [-d] [-g] [options]

Starts a server under Workerman. Change handlers.php while clients are connected, then: php server.php reload

  --host H      address to listen on (0.0.0.0)
  --port P      port to listen on (9501)
  --workers N   PHP processes that run the callbacks (2)
  --name N      name of the server and of its bus socket (HeartbeatServer)
  --help        this text

TEXT;

[$options, $words] = read_options(USAGE, ['host' => '0.0.0.0', 'port' => 9501, 'workers' => 2, 'name' => 'HeartbeatServer']);
require_extension();
array_intersect($words, ['start', 'stop', 'restart', 'reload', 'status', 'connections']) !== [] || refuse_usage('say what to do', USAGE);
foreach ([__DIR__ . '/../../vendor/autoload.php', __DIR__ . '/../../../../autoload.php'] as $autoload) {
    if (is_file($autoload)) {
        require_once $autoload;
    }
}
if (!class_exists('Workerman\Worker')) {
    fwrite(STDERR, "Workerman is not installed: composer require workerman/workerman\n");
    exit(1);
}

try {
    $server = new HeartbeatServer($options['host'], $options['port'], [
        'loop' => 'workerman',
        'php_workers' => $options['workers'],
        'name' => $options['name'],
    ]);
    // In each PHP worker, when it begins: at the start, after a reload, and when it had to be replaced.
    $server->on('start', function (HeartbeatServer $server): void {
        $subscribe = require __DIR__ . '/handlers.php';
        $subscribe($server);
    });
    $server->start();
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
