<?php

/**
 * The engine alone: nodes register, heartbeat and are pushed to, and no PHP code has a part in it. Other processes of this
 * machine use it through Heartbus\Bus, as push.php does.
 */

require __DIR__ . '/options.php';

const USAGE = <<<'TEXT'
Usage: php host.php [options]

Runs a server without PHP code until Ctrl-C or SIGTERM. Push to its clients with: php push.php NODE TEXT

  --host H      address to listen on (0.0.0.0)
  --port P      port to listen on (9501)
  --timeout S   seconds of silence after which a node is down, 1 or more (30)
  --name N      name of the server and of its bus socket (HeartbeatServer)
  --group G     a group whose members may use the bus socket as well, www-data for PHP-FPM
  --help        this text

TEXT;

[$options, $words] = read_options(USAGE, ['host' => '0.0.0.0', 'port' => 9501, 'timeout' => 30.0, 'name' => 'HeartbeatServer', 'group' => '']);
$words === [] || refuse_usage("unknown argument '$words[0]'", USAGE);
require_extension();

try {
    Heartbus\Host::run([
        'host' => $options['host'],
        'port' => $options['port'],
        'heartbeat_timeout' => $options['timeout'],
        'name' => $options['name'],
        'bus_group' => $options['group'] === '' ? null : $options['group'],
    ]);
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
