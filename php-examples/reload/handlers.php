<?php

/** What the server does with its events. Change something, say `php server.php reload`, and nobody is disconnected. */

use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Server\HeartbeatServer;

const VERSION = 1;

return function (HeartbeatServer $server): void {
    $server->on('register', fn (Node $node) => $server->sendTo($node->id, 'welcome to version ' . VERSION));
    $server->on('data', fn (Node $node, string $payload) => $server->sendTo($node->id, 'version ' . VERSION . " heard: $payload"));
};
