<?php

/** What the stubs say beyond Reflection, by the name of the class, method, property or function. */

$library = 'PfinalClub\AsyncioHeartbeat';

// What the configuration arrays may hold; the README says what each key does.
['server' => $serverKeys, 'client' => $clientKeys] = require __DIR__ . '/settings.php';

// What every question to an engine in another process may end with.
$throws = <<<'TEXT'
    @throws \Heartbus\Exception\IoException when no server is there, or it does not let this user in
    @throws \Heartbus\Exception\TimeoutException when it does not answer in time: it may still do what it was asked
    @throws \Heartbus\Exception\ClosedException when it hung up, or stopped, before it answered
    @throws \Heartbus\Exception\ProtocolException when it is of another release
    TEXT;
$elsewhere = <<<'TEXT'
    @throws \Heartbus\Exception\WrongProcessException after a fork, and in another worker of the script when the server's bus cannot be asked
    @throws \Heartbus\Exception\TimeoutException when an engine in another process does not answer
    TEXT;
// Topics, as servers and the bus have them.
$topics = fn (string $class, string $away, string $throws, string $ofPublish = ''): array => [
    "$class::publish" => <<<TEXT
        Publishes to a topic: to all who have subscribed to it, less the nodes of \$except, and to what is kept of it, where 'history'
        says so. It goes out behind this call; reach is for how many subscriptions it was queued, those of \$except among them.

        @param array<string> \$except ids of nodes
        @throws \TypeError when one of them is no string
        @throws \InvalidArgumentException when nothing can be published to the topic: 1 to 255 bytes of UTF-8 without control
            characters, no level that is + or #, no \\$ at the beginning
        @throws \Heartbus\Exception\LimitException when it is longer than a frame may be, there are too many topics, or too much waits for
            subscribers; nobody gets it then
        $ofPublish$throws
        TEXT,
    "$class::subscribers" => <<<TEXT
        How many have subscribed to a topic, by its name and through filters that match it.$away

        @throws \InvalidArgumentException when it is no topic
        $throws
        TEXT,
    "$class::topics" => <<<TEXT
        The topics that somebody has subscribed to by name or of which something is kept, page by page: next is the \$page of the
        next call, null after the last. A page has up to \$limit topics, 1000 at most.$away

        @return array{topics: list<array{topic: string, subscribers: int}>, next: ?int}
        @throws \InvalidArgumentException when the limit is wrong
        $throws
        TEXT,
    "$class::join" => <<<TEXT
        Puts a node into a topic: it gets the topic's messages without having asked, until it leaves or is taken out. False when it is
        not online.

        @throws \InvalidArgumentException when it is no topic
        @throws \Heartbus\Exception\LimitException when there are too many topics
        $throws
        TEXT,
    "$class::leave" => <<<TEXT
        Takes a node out of a topic, or ends its subscription to a filter, whoever has made it; one that is not there is no error. False
        when the node is not online.

        @throws \InvalidArgumentException when it is no filter
        $throws
        TEXT,
    "$class::unsubscribeNode" => <<<TEXT
        The same as leave().

        @throws \InvalidArgumentException when it is no filter
        $throws
        TEXT,
    "$class::members" => <<<TEXT
        The ids of the nodes that are in a topic by its name, whether they have subscribed or were put there, page by page as topics().
        The engine's threads are asked, which takes half a second at most.$away

        @return array{nodes: list<string>, next: ?int}
        @throws \InvalidArgumentException when it is no topic, or the limit is wrong
        $throws
        TEXT,
    "$class::topicsOf" => <<<TEXT
        The topics and filters that a node has subscribed to or was put into, in no particular order; none when it is not online.

        @return list<string>
        $throws
        TEXT,
];

return [
    'Heartbus\Exception\HeartbusException' => 'What the engine throws. Its code is the number of its kind, the same as in the C library.',
    'Heartbus\Exception\ConfigException' => 'A configuration value is wrong, or the configuration does not fit this process (code 1).',
    'Heartbus\Exception\IoException' => 'The operating system refused something: an address in use, no descriptor left (code 2).',
    'Heartbus\Exception\ProtocolException' => 'The other side broke the protocol (code 3).',
    'Heartbus\Exception\ClosedException' => 'The engine, client or connection is closed or not connected (code 4).',
    'Heartbus\Exception\TimeoutException' => 'Something did not happen in time (code 5).',
    'Heartbus\Exception\LimitException' => 'A limit of the configuration was reached (code 6).',
    'Heartbus\Exception\NotFoundException' => 'No such node, channel or handle (code 7).',
    'Heartbus\Exception\InternalException' => 'A fault of the extension (code 8).',
    'Heartbus\Exception\WrongProcessException' => 'The object belongs to the process that this one was forked from (code 10).',

    "$library\\Protocol\\Message" => 'One frame of the v1 wire.',
    "$library\\Protocol\\Message::encode" => <<<'TEXT'
        The bytes of the frame. A payload that is not UTF-8 cannot be carried: the result is then a header of length 0.
        TEXT,
    "$library\\Protocol\\Message::decode" => <<<'TEXT'
        The first frame of the buffer; null while it is incomplete.

        @throws \RuntimeException when the bytes are no frame
        TEXT,
    "$library\\Protocol\\Message::getPackageLength" => 'Bytes of the first frame: 0 when they cannot be known yet, -1 when this is no frame.',
    "$library\\Protocol\\Message::toArray" => '@return array{type: int, type_name: string, channel_id: int, payload: string}',
    "$library\\Protocol\\Message::createRegister" => '@param array<string, mixed> $metadata',

    "$library\\Protocol\\HeartbeatProtocol" => 'Constants and checks of the v1 protocol.',
    "$library\\Protocol\\HeartbeatProtocol::getInfo" => <<<'TEXT'
        @return array{version: string, magic: string, header_length: int, max_message_length: int, max_channel_id: int, message_types: array<string, int>}
        TEXT,

    "$library\\Node\\Node" => 'What is known of a node. The callbacks of a server get a copy of the engine\'s record at that moment.',
    "$library\\Node\\Node::\$metadata" => '@var array<mixed>',
    "$library\\Node\\Node::setMetadata" => <<<'TEXT'
        Of a node of a running server, from a callback, a NodeManager or a Bus: the engine keeps it, as JSON, for every process to see, as
        long as the node is registered; the node itself is sent nothing. Of any other it is this object's.

        @throws \InvalidArgumentException when the value cannot be encoded as JSON
        @throws \Heartbus\Exception\LimitException when the node's metadata would be longer than 64 KiB
        TEXT,
    "$library\\Node\\Node::\$status" => "@var 'online'|'offline'",
    "$library\\Node\\Node::toArray" => <<<'TEXT'
        @return array{id: string, ip: string, port: int, connection_id: int, status: string, last_heartbeat: float, seconds_since_heartbeat: float, heartbeat_count: int, total_messages: int, created_at: float, lifetime: float, metadata: array<mixed>}
        TEXT,

    "$library\\Node\\NodeManager" => 'Nodes by their ids and by their connections.',
    "$library\\Node\\NodeManager::getAllNodes" => '@return array<Node> by node id',
    "$library\\Node\\NodeManager::getOnlineNodes" => '@return array<Node> by node id',
    "$library\\Node\\NodeManager::getOfflineNodes" => '@return array<Node> by node id',
    "$library\\Node\\NodeManager::iterateNodes" => <<<'TEXT'
        As getAllNodes(), but only a page of nodes is there at a time: for servers with very many nodes. Nodes that come or go
        meanwhile may be among them or not; no other is missed or told twice.

        @return \Generator<Node> by node id
        TEXT,
    "$library\\Node\\NodeManager::checkTimeout" => <<<'TEXT'
        Marks the nodes offline that were silent for longer than the timeout, and removes none.

        @return list<int|string> their ids
        TEXT,
    "$library\\Node\\NodeManager::cleanupOffline" => 'Removes the nodes that are offline. Returns how many.',
    "$library\\Node\\NodeManager::getStats" => <<<'TEXT'
        @return array{total: int, online: int, offline: int, total_registered: int, total_unregistered: int, total_timeout: int, nodes: list<array<string, mixed>>}
        TEXT,
    "$library\\Node\\NodeManager::getStatsSummary" => <<<'TEXT'
        @return array{total: int, online: int, offline: int, total_registered: int, total_unregistered: int, total_timeout: int, total_heartbeats: int, total_messages: int}
        TEXT,

    "$library\\Node\\HeartbeatMonitor" => <<<'TEXT'
        Lets a NodeManager check its nodes now and then, by a timer of whichever event loop runs. The nodes of a server are
        checked by the engine: a monitor over a server's manager is told at once.
        TEXT,
    "$library\\Node\\HeartbeatMonitor::onTimeout" => '@param callable(Node): mixed $callback called after those that were given before',
    "$library\\Node\\HeartbeatMonitor::getStats" => '@return array{running: bool, check_interval: float, check_count: int, timeout_callbacks: int}',

    "$library\\Server\\HeartbeatServer" => 'A heartbeat server: the engine does the work on its own threads, the callbacks run on PHP\'s.',
    "$library\\Server\\HeartbeatServer::__construct" => <<<TEXT
        @param array{{$serverKeys}} \$config
        @throws \RuntimeException when the configuration is wrong; its previous one is an \InvalidArgumentException
        TEXT,
    "$library\\Server\\HeartbeatServer::start" => <<<'TEXT'
        Starts the server and runs until it is stopped: on Workerman where it is installed, else on a loop of its own. Under
        Workerman the engine has a process of its own, and the callbacks run in others, which a reload replaces.

        @throws \Heartbus\Exception\IoException when the address or the bus socket cannot be listened on
        @throws \Heartbus\Exception\ConfigException outside of the PHP CLI; with several php_workers, a user or a group, and no Workerman;
            when there is no such user, group or bus_group, or log_file cannot be opened
        @throws \Heartbus\Exception\WrongProcessException in another worker of a script that has started it
        @throws \LogicException under Workerman, when other servers of the script wait to be started: see prepare()
        TEXT,
    "$library\\Server\\HeartbeatServer::prepare" => <<<'TEXT'
        Makes the server's workers of Workerman's without running them: Worker::runAll(), or start() of another server, runs all. Doing
        so again does nothing.

        @throws \LogicException when they run already, or 'loop' asks for another loop
        @throws \Heartbus\Exception\ConfigException without Workerman, or when there is no such user or group
        TEXT,
    "$library\\Server\\HeartbeatServer::stop" => <<<'TEXT'
        Tells every client that the server is shutting down, and closes. start() returns. Under Workerman it stops all of the script,
        from whichever of its workers.

        @throws \Heartbus\Exception\WrongProcessException when another process runs it that did not start it by Workerman
        TEXT,
    "$library\\Server\\HeartbeatServer::workerId" => <<<'TEXT'
        Which of the PHP workers this process is: from 0 on, and the same for whoever replaces it. 0 where there are no others.

        @throws \Heartbus\Exception\WrongProcessException in a process that runs no callbacks of the server
        TEXT,
    "$library\\Server\\HeartbeatServer::on" => <<<'TEXT'
        One callback per event, the last one wins:
        connect (string $ip, int $port, int $connectionId, string $transport), register (Node), heartbeat (Node),
        data (Node, string $payload, int $channelId), data.batch (list<Node>, list<string> $payloads, list<int> $channelIds),
        unregister (Node), timeout (Node), replaced (Node), disconnected (Node),
        close (int $connectionId, string $reason), offline (Heartbus\Peer, string $reason), buffer.full (Node), buffer.drain (Node),
        message (string $topic, string $data, ?string $from, ?Position $position), authenticate (string $nodeId, array $metadata, string $ip),
        subscribe.before (Node|Heartbus\Peer, array $topics), publish.before (Node|Heartbus\Peer, string $topic, string $data),
        subscribe (Node|Heartbus\Peer, string $topic), unsubscribe (Node|Heartbus\Peer, string $topic),
        start (HeartbeatServer), stop (HeartbeatServer).
        authenticate decides whether a node may register, which waits for it: true lets it in, false refuses it (ERROR 401), an array lets it
        in and becomes metadata of the node. subscribe.before decides in the same way, with the topics and filters that it may be in an array, and
        publish.before, with topic, data or both. What is not decided within decision_timeout is refused, and what a callback throws at.
        connect comes once a connection may speak, close and offline once for each of them. subscribe and unsubscribe come for each topic or
        filter; a node that leaves is told by its leaving alone.
        data.batch gets the messages that wait, 1,024 or 1 MiB at most, and never waits for more; it and data replace each other.
        A node that leaves gets exactly one of unregister, timeout, replaced and disconnected. In PHP workers each is told start
        and stop; what is subscribed to in start holds for that worker.

        @param 'connect'|'register'|'heartbeat'|'data'|'data.batch'|'unregister'|'timeout'|'replaced'|'disconnected'|'close'|'buffer.full'|'buffer.drain'|'message'|'authenticate'|'subscribe.before'|'publish.before'|'subscribe'|'unsubscribe'|'offline'|'start'|'stop' $event
        @throws \InvalidArgumentException when there is no such event
        @throws \Heartbus\Exception\WrongProcessException in another worker of the script: the server calls its own workers only
        TEXT,
    "$library\\Server\\HeartbeatServer::subscribe" => <<<'TEXT'
        Lets this process hear what is published from now on to the topics that a filter matches: each publication once, in the order of
        its topic. The callback gets those that its filter matches, on('message') all of them. $from is the id of the node that has
        published it, null when it was none. A later callback for the same filter replaces the former one. In PHP workers each has
        subscriptions of its own; it stays over a restart of the engine.

        @param ?callable(string $topic, string $data, ?string $from, ?\Heartbus\Position $position): mixed $callback
        @throws \InvalidArgumentException when it is no filter
        @throws \Heartbus\Exception\LimitException when there are too many topics
        @throws \Heartbus\Exception\WrongProcessException after a fork, and in another worker of the script
        TEXT,
    "$library\\Server\\HeartbeatServer::unsubscribe" => <<<'TEXT'
        Ends a subscription of this process. False when there was none. What is on its way is still told to on('message').

        @throws \Heartbus\Exception\WrongProcessException after a fork, and in another worker of the script
        TEXT,
    "$library\\Server\\HeartbeatServer::event" => <<<'TEXT'
        Of the event whose callback runs: its number, and whether it may have been told before, to a worker that died. Empty
        outside of callbacks. In data.batch the number is that of the first message; one that may have been told before comes
        alone.

        @return array{}|array{sequence: int, redelivered: bool}
        TEXT,
    "$library\\Server\\HeartbeatServer::every" => <<<'TEXT'
        Calls back every so many seconds, on the loop that runs. The result is for cancel().

        @param callable(): mixed $callback
        @throws \InvalidArgumentException when the number of seconds is not from 0.000001 to 1,000,000,000
        TEXT,
    "$library\\Server\\HeartbeatServer::cancel" => 'Ends a timer of every(). False when there is none.',
    "$library\\Server\\HeartbeatServer::sendTo" => <<<TEXT
        Sends data to a node, on its main channel when the channel is 0. True when it is queued, which is no receipt: what waits is
        lost when the connection ends. False when it is not online, its outbox is full, or the data cannot be sent: nothing is
        queued then, and nothing else has changed.

        $elsewhere
        TEXT,
    "$library\\Server\\HeartbeatServer::broadcast" => <<<TEXT
        Sends data to every node but those of \$except. Returns for how many it was queued; nothing happens to the others.

        @param array<string> \$except ids of nodes
        @throws \TypeError when one of them is no string
        $elsewhere
        TEXT,
    ...$topics("$library\\Server\\HeartbeatServer", ' None while the server does not run.', $elsewhere,
        "@throws \Heartbus\Exception\ClosedException when the server does not run\n"),
    "$library\\Server\\HeartbeatServer::disconnect" => <<<TEXT
        Takes a node off the bus; closes its connection unless it has other nodes. False when there is no such node.

        $elsewhere
        TEXT,
    "$library\\Server\\HeartbeatServer::poll" => <<<'TEXT'
        For loops of others: runs the callbacks that are due, of all servers and clients of this process. With none due, waits
        for one for up to so many seconds. Returns how many ran.

        @throws \InvalidArgumentException when the timeout is not from 0 to 1,000,000,000
        TEXT,
    "$library\\Server\\HeartbeatServer::getEventStream" => <<<'TEXT'
        A stream that is readable while poll() has something to do.

        @return resource
        TEXT,
    "$library\\Server\\HeartbeatServer::getNodeManager" => <<<'TEXT'
        The nodes of this server, always the same object. Once the server has started it shows what the engine knows at that
        moment: counts cost nothing, lists are made when they are asked for, and the same registration is the same Node
        object while somebody holds it. unregister() takes a node off the bus, register() throws, updateHeartbeat() keeps a
        node alive, setHeartbeatTimeout() changes the server's, checkTimeout() and cleanupOffline() find nothing to do.
        TEXT,
    "$library\\Server\\HeartbeatServer::getChannelScheduler" => <<<'TEXT'
        The channels of this server's nodes, always the same object. Once the server has started, send() on a channel goes
        out on the wire, and recv() and recvAsync() get what the node sent while somebody holds the channel, or has begun to
        receive from it. close() ends this side only; the channel of a node that left is closed.
        TEXT,
    "$library\\Server\\HeartbeatServer::getStats" => '@return array{server: array<string, mixed>, nodes: array<string, int>, channels: array<string, int>, connections: array<string, int|float>, router: array<string, int>, monitor: array<string, mixed>, engine: array<string, int>}',
    "$library\\Server\\HeartbeatServer::onMessage" => <<<'TEXT'
        A native server reads its connections itself.

        @throws \LogicException always
        TEXT,

    "$library\\Server\\ConnectionPool" => 'A bounded number of connections of Workerman\'s, by ids of its own.',
    "$library\\Server\\ConnectionPool::add" => <<<'TEXT'
        Returns the id, which the connection has from now on.

        @throws \RuntimeException when the pool is full
        TEXT,
    "$library\\Server\\ConnectionPool::getAll" => '@return array<int, \Workerman\Connection\TcpConnection>',
    "$library\\Server\\ConnectionPool::clear" => 'Closes all connections.',
    "$library\\Server\\ConnectionPool::getStats" => <<<'TEXT'
        @return array{active_connections: int, max_connections: int, total_connections: int, total_closed: int, usage_percent: float}
        TEXT,

    "$library\\Server\\TcpMultiplexServer" => 'Channels that belong to connections of Workerman\'s.',
    "$library\\Server\\TcpMultiplexServer::getStats" => '@return array{connections_with_channels: int, scheduler_stats: array<string, mixed>}',

    "$library\\Client\\HeartbeatClient" => 'A client of a heartbeat server: registers, heartbeats, reconnects. All clients of a process share one thread.',
    "$library\\Client\\HeartbeatClient::__construct" => "@param array{{$clientKeys}} \$config",
    "$library\\Client\\HeartbeatClient::connect" => <<<'TEXT'
        Connects in the background. Does nothing when the client is connected or connecting.

        @throws \InvalidArgumentException when a value of the configuration is wrong
        @throws \Heartbus\Exception\ConfigException when it is the length of node_id or metadata, the number of protocol, or port 0, or log_file cannot be opened
        TEXT,
    "$library\\Client\\HeartbeatClient::disconnect" => 'Says goodbye and closes. The client does not reconnect.',
    "$library\\Client\\HeartbeatClient::send" => 'Sends data; channel 0 is the node\'s own. False, and a line in the log, when it cannot be sent.',
    "$library\\Client\\HeartbeatClient::addNode" => <<<'TEXT'
        Has the client carry one more node over its connection, and over each that follows, until removeNode() or 'node.lost'.
        May come before connect(). 'register' tells each one's channel. False when the client has such a node, or, with a line in
        the log, as many as it may (max_nodes).

        @param array<mixed> $metadata
        @throws \InvalidArgumentException when the id or the metadata is wrong
        TEXT,
    "$library\\Client\\HeartbeatClient::removeNode" => 'Signs an added node off. False when there is no such node, and for the client\'s first, which disconnect() signs off.',
    "$library\\Client\\HeartbeatClient::sendFrom" => 'Sends data of one of the nodes, on the channel that it has at this moment. False, and a line in the log, when it cannot be sent.',
    "$library\\Client\\HeartbeatClient::heartbeat" => <<<'TEXT'
        Sends a heartbeat of one of the nodes: with 'heartbeat_all' => false those that were added live by these. False when it is not
        registered at this moment.
        TEXT,
    "$library\\Client\\HeartbeatClient::subscribe" => <<<'TEXT'
        Subscribes the client's first node to a topic, or with the levels + and # to all that match, over its connection and over each that
        follows. The callback gets (string $topic, string $data, ?\Heartbus\Position $position). After a reconnect a topic goes on behind
        its last message: what the server keeps of it comes first, once and in order. With $since it begins behind that position, with
        new \Heartbus\Position with all that is kept, also where there is a subscription already; otherwise only the callback is another one. May
        come before connect(). 'subscribed' tells how it went. False, and a line in the log, when the client has as many as it may
        (max_subscriptions).

        @param callable(string, string, ?\Heartbus\Position): mixed $callback
        @throws \InvalidArgumentException when it is no topic and no filter, or a filter and $since
        TEXT,
    "$library\\Client\\HeartbeatClient::unsubscribe" => 'Ends a subscription; its callback is not called any more. False when there is none.',
    "$library\\Client\\HeartbeatClient::publish" => <<<'TEXT'
        Publishes to a topic, in the name of the client's first node. With a number from 1 to 4294967295 it is answered, by 'published' or
        'publish.refused', unless the connection ends before; without one only a refusal is told. False, and a line in the log, when it cannot
        be sent.

        @throws \InvalidArgumentException when nothing can be published under this name, or the number is none
        TEXT,
    "$library\\Client\\HeartbeatClient::on" => <<<'TEXT'
        One callback per event, the last one wins: connect (), register (string $nodeId, int $channelId), heartbeat (),
        data (string $payload, int $channelId), pong (), server_error (?array{message: string, code: int}),
        error (int $code, string $message, string $cause), close (string $reason, string $detail), node.lost (string $nodeId, int $channelId, int $code, string $message):
        the server refused a node or took it away, and the client goes on without it; subscribed (string $topic,
        ?\Heartbus\Position $position, bool $recovered): the server's answer to a subscription after each connect, with the position of the last
        publication before; $recovered is false when something is missing in front of the next message, which is also told in the middle,
        without a position; message (string $topic, string $data, ?\Heartbus\Position $position, ?string $nodeId): of a topic that a node was put
        into by the server, which no subscription's callback takes; published (int $number, ?\Heartbus\Position $position, int $reach);
        subscribe.refused (string $topic, int $code, string $message): the client has no such subscription any more; publish.refused
        (string $topic, int $code, string $message, int $number).
        TEXT,
    "$library\\Client\\HeartbeatClient::getStats" => <<<'TEXT'
        @return array{connected: bool, node_id: ?string, channel_id: ?int, messages_sent: int, messages_received: int, reconnect_attempts: int, uptime: float|int, channels: int, nodes: int, subscriptions: int, reads_paused: int, frames_refused: int, bytes_waiting: int, bytes_kept: int}
        TEXT,
    "$library\\Client\\HeartbeatClient::run" => 'Without a loop of others: drives all clients of this process until none is left or a stop signal comes.',
    "$library\\Client\\HeartbeatClient::poll" => <<<'TEXT'
        For loops of others: runs the callbacks that are due, of all servers and clients of this process. With none due, waits
        for one for up to so many seconds. Returns how many ran.

        @throws \InvalidArgumentException when the timeout is not from 0 to 1,000,000,000
        TEXT,
    "$library\\Client\\HeartbeatClient::getEventStream" => <<<'TEXT'
        A stream that is readable while poll() has something to do.

        @return resource
        TEXT,

    "$library\\Client\\TcpMultiplexClient" => 'Channels by ids that the application gives.',
    "$library\\Client\\TcpMultiplexClient::getAllChannels" => "@return array<int, \\$library\\Channel\\Channel>",

    'Heartbus\Bus' => <<<'TEXT'
        A server of this machine from any PHP process: pages of PHP-FPM, queue workers, cron. The process has one connection for
        each server, which outlives requests and is made again by itself, and another one once it has subscribed to topics. In a fiber under a loop calls suspend; elsewhere they
        block for one round trip. What the server or the way to it is the reason of throws a \Heartbus\Exception\HeartbusException, arguments
        that are wrong in themselves PHP's own exceptions.
        TEXT,
    'Heartbus\Bus::connect' => <<<TEXT
        \$socket is the path of a bus socket, or the name of a server; null: php.ini's heartbus.socket, else the server named
        HeartbeatServer, in the folders that the README lists. No call takes longer than the timeout, in seconds.

        @throws \Heartbus\Exception\ConfigException when no server can have that name
        @throws \InvalidArgumentException when the timeout is not from 0.001 to 3600
        $throws
        TEXT,
    'Heartbus\Bus::sendTo' => <<<TEXT
        Sends data to a node, on its main channel when the channel is 0. False when it is not online or has no room.

        @throws \InvalidArgumentException when the node speaks v1, which cannot carry what is not UTF-8
        $throws
        TEXT,
    'Heartbus\Bus::sendToMany' => <<<TEXT
        Sends data to these nodes. Returns for how many it was queued.

        @param array<string> \$nodeIds
        @throws \TypeError when one of them is no string
        @throws \InvalidArgumentException when none of them can be sent what is not UTF-8
        @throws \Heartbus\Exception\LimitException when they are more than 1,048,576
        $throws
        TEXT,
    'Heartbus\Bus::broadcast' => <<<TEXT
        Sends data to every node but those of \$except. Returns for how many it was queued.

        @param array<string> \$except ids of nodes
        @throws \TypeError when one of them is no string
        @throws \InvalidArgumentException when none of them can be sent what is not UTF-8
        @throws \Heartbus\Exception\LimitException when it is longer than a frame may be
        $throws
        TEXT,
    ...$topics('Heartbus\Bus', '', $throws),
    'Heartbus\Peer' => <<<'TEXT'
        A connection that has no node, as a WebSocket client of Firetower's. The user is who it has said it is, empty where it has not.
        TEXT,
    'Heartbus\Position' => <<<'TEXT'
        Where a publication stands in its topic: the offset counts from 1 within an epoch, one life of the topic. It is a value to be
        kept: as a text, by serialize(), var_export() or as JSON. 0 and 0 stand for the beginning of all that is kept.
        TEXT,
    'Heartbus\Position::__construct' => '@throws \InvalidArgumentException when a number is negative',
    'Heartbus\Position::fromString' => <<<'TEXT'
        What (string) makes of a position: offset@epoch.

        @throws \InvalidArgumentException when it is no such text
        TEXT,
    'Heartbus\Position::__set_state' => <<<'TEXT'
        @param array{offset: int, epoch: int} $properties
        @throws \InvalidArgumentException when they are no position
        TEXT,
    'Heartbus\Position::__serialize' => '@return array{offset: int, epoch: int}',
    'Heartbus\Position::__unserialize' => <<<'TEXT'
        @param array{offset: int, epoch: int} $data
        @throws \InvalidArgumentException when it is no position
        TEXT,
    'Heartbus\Publication' => 'What became of a publication.',
    'Heartbus\Publication::$position' => 'Where it stands in its topic; null where nobody has subscribed by name and nothing is kept: then the topic has no positions.',
    'Heartbus\Publication::$reach' => 'For how many subscriptions it was queued.',
    'Heartbus\Bus::disconnect' => <<<TEXT
        Takes a node off the bus; closes its connection unless it has other nodes. False when there is no such node.

        $throws
        TEXT,
    'Heartbus\Bus::node' => <<<TEXT
        A copy of what the server knows of a node; null when it is not online. What setMetadata() sets of it goes to the server.

        $throws
        TEXT,
    'Heartbus\Bus::nodes' => <<<TEXT
        The nodes that are online, page by page: next is the \$page of the next call, null after the last. A page has up to
        \$limit nodes, 1000 at most; it may be short, even empty, with more to come.

        @param array{id?: string, ip?: string, metadata?: array<string, string|int|float|bool|null>} \$filter id: a pattern with * and ?; ip: an address; metadata: up to 16 members that it must have
        @return array{nodes: list<\PfinalClub\AsyncioHeartbeat\Node\Node>, next: ?int}
        @throws \InvalidArgumentException when the filter or the limit is wrong
        @throws \TypeError when the page is no number
        $throws
        TEXT,
    'Heartbus\Bus::isOnline' => $throws,
    'Heartbus\Bus::setMetadata' => <<<TEXT
        Sets members of a node's metadata, for everybody to see but the node. False when it is not online.

        @param array<mixed> \$metadata
        @throws \InvalidArgumentException when there are none, or they cannot be encoded as JSON
        @throws \Heartbus\Exception\LimitException when the node's metadata would be longer than 64 KiB
        $throws
        TEXT,
    'Heartbus\Bus::stats' => <<<TEXT
        @return array{server: array<string, int|string>, nodes: array<string, int>, channels: array<string, int>, connections: array<string, int|float>, engine: array<string, int>}
        $throws
        TEXT,
    'Heartbus\Bus::metrics' => <<<TEXT
        The numbers of the server as Prometheus text.

        $throws
        TEXT,
    'Heartbus\Bus::getSocket' => 'The path of the bus socket.',
    'Heartbus\Bus::subscribe' => <<<TEXT
        Lets this process hear what is published from now on to the topics that a filter matches: each publication once, in the order of
        its topic. It holds when the call returns, and comes back by itself when the connection was lost: a topic goes on behind its last
        message then, as far as it is kept. With \$since a topic begins behind that position, with new \Heartbus\Position with all that is
        kept, also where there is a subscription already: what is kept comes first, once and in order. The topic \$nodes tells which nodes
        come and go. Whatever loop runs here tells the callbacks: Workerman's (subscribe in onWorkerStart), Revolt's,
        ReactPHP's, a server's or client's of this process, run(), poll(). Nothing waits for this process: what it has no room for is
        dropped, and \$gap is told how many publications are missing there, of all that it has subscribed to over this socket; null when
        nobody knows, because the connection was made anew, or what is behind the position is not kept any more. A later call for the same filter replaces both callbacks. A subscription ends
        with the request.

        @param callable(string \$topic, string \$data, ?string \$from, ?\Heartbus\Position \$position): mixed \$callback \$from is the id of the node that has published it, null when it was none
        @param ?callable(?int \$missed, string \$filter): mixed \$gap
        @throws \InvalidArgumentException when it is no filter, or a filter and \$since
        @throws \Heartbus\Exception\LimitException when there are too many topics, or too many subscriptions of this process
        $throws
        TEXT,
    'Heartbus\Bus::unsubscribe' => 'Ends a subscription of this process; its callbacks are not called any more. False when there was none.',
    'Heartbus\Bus::run' => <<<'TEXT'
        Without a loop of others: runs callbacks until nothing is subscribed to any more and no client of this process is left, or a
        stop signal comes.
        TEXT,
    'Heartbus\Bus::poll' => <<<'TEXT'
        For loops of others: runs the callbacks that are due, of all that is subscribed to and of all servers and clients of this process.
        With none due, waits for one for up to so many seconds. Returns how many ran.

        @throws \InvalidArgumentException when the timeout is not from 0 to 1,000,000,000
        TEXT,
    'Heartbus\Bus::getEventStream' => <<<'TEXT'
        A stream that is readable while poll() has something to do.

        @return resource
        TEXT,

    'Heartbus\Host' => 'A server without PHP code: the engine alone, for those who use Heartbus\Bus.',
    'Heartbus\Host::run' => <<<TEXT
        Serves until a signal comes. Keys: host (0.0.0.0), port (9501), and those of HeartbeatServer.

        @param array{host?: string, port?: int, $serverKeys} \$config
        @throws \Heartbus\Exception\IoException when the address or the bus socket cannot be listened on
        @throws \RuntimeException when the configuration is wrong
        TEXT,

    'Heartbus\Future' => 'A result that is not there yet, with the methods of pfinal-asyncio\'s Future: for applications without that library.',
    'Heartbus\Future::getResult' => '@throws \Throwable the exception that was set',
    'Heartbus\Future::addDoneCallback' => '@param callable(self): mixed $callback',

    "$library\\Channel\\Channel" => 'Two bounded queues in memory: one for sending, one for receiving.',
    "$library\\Channel\\Channel::send" => <<<'TEXT'
        False when the queue is full.

        @throws \RuntimeException when the channel is closed
        TEXT,
    "$library\\Channel\\Channel::trySend" => 'As send(), but false when the channel is closed. A full queue can drop its oldest entry instead.',
    "$library\\Channel\\Channel::recv" => <<<'TEXT'
        The next entry; waits for one for up to so many seconds, 0 without end. Null when the time is up or the channel closed.

        @throws \InvalidArgumentException when the timeout is not from 0 to 1,000,000,000
        @throws \Heartbus\Exception\WrongProcessException for a server's channel in a process that runs no callbacks of the server
        TEXT,
    "$library\\Channel\\Channel::recvAsync" => <<<'TEXT'
        A future of the next entry, null when the channel closes. pfinal-asyncio's own where that is installed, else \Heartbus\Future.

        @throws \Heartbus\Exception\WrongProcessException as recv()
        TEXT,
    "$library\\Channel\\Channel::putRecv" => 'For the receive queue: to whoever waits longest, else into the queue. False when it is full or closed.',
    "$library\\Channel\\Channel::getSendQueue" => <<<'TEXT'
        Takes everything out of the send queue.

        @return list<string>
        TEXT,
    "$library\\Channel\\Channel::getStats" => <<<'TEXT'
        @return array{id: int, node_id: string, closed: bool, send_queue_size: int, recv_queue_size: int, waiting_futures: int, send_count: int, recv_count: int, created_at: float, lifetime: float}
        TEXT,

    "$library\\Channel\\ChannelScheduler" => 'The channels of an application, by their ids and by their nodes.',
    "$library\\Channel\\ChannelScheduler::getNodeChannels" => '@return array<int, Channel>',
    "$library\\Channel\\ChannelScheduler::getAllChannels" => '@return array<int, Channel>',
    "$library\\Channel\\ChannelScheduler::cleanup" => 'Forgets channels that were closed directly. Returns how many.',

    "$library\\Channel\\MessageRouter" => 'Brings messages to channels, or to handlers of their types.',
    "$library\\Channel\\MessageRouter::route" => 'To the open channel that the message names, else to the handler of its type. False when there is neither.',
    "$library\\Channel\\MessageRouter::broadcast" => 'To all channels of a node. Returns how many took it.',
    "$library\\Channel\\MessageRouter::broadcastAll" => 'To all channels. Returns how many took it.',
    "$library\\Channel\\MessageRouter::getStats" => '@return array{total_routed: int, total_failed: int, handlers_count: int, routes_count: int}',

    "$library\\Utils\\ConfigValidator" => 'The checks of configuration arrays.',
    "$library\\Utils\\ConfigValidator::validateServerConfig" => <<<'TEXT'
        @param array<string, mixed> $config
        @throws \InvalidArgumentException
        TEXT,
    "$library\\Utils\\ConfigValidator::validateClientConfig" => <<<'TEXT'
        @param array<string, mixed> $config
        @throws \InvalidArgumentException
        TEXT,
    "$library\\Utils\\ConfigValidator::getRecommendedServerConfig" => '@return array<string, int>',

    "$library\\Utils\\Logger" => 'Lines to the output, to a file and to a buffer, or messages to a logger of the application\'s own.',
    "$library\\Utils\\Logger::setLogger" => 'Where messages go from now on instead: a PSR-3 logger. Null: as before.',
    "$library\\Utils\\Logger::getBuffer" => '@return list<string>',

    "$library\\Utils\\Metrics" => 'The application\'s own metrics, in this process. A histogram keeps counts, no observations.',
    "$library\\Utils\\Metrics::incCounter" => '@param array<string, scalar> $labels',
    "$library\\Utils\\Metrics::setGauge" => '@param array<string, scalar> $labels',
    "$library\\Utils\\Metrics::observeHistogram" => '@param array<string, scalar> $labels',
    "$library\\Utils\\Metrics::export" => 'Everything as Prometheus text: the application\'s own, and what the engine of a server of this process counts, in PHP workers too.',
    "$library\\Utils\\Metrics::getAll" => '@return array{counters: array<mixed>, gauges: array<mixed>, histograms: array<mixed>}',

    "$library\\Utils\\RateLimiter" => 'Token buckets by key.',
    "$library\\Utils\\RateLimiter::allow" => 'Takes the tokens if there are as many. A key that is new starts with a full bucket.',
    "$library\\Utils\\RateLimiter::cleanup" => 'Forgets the buckets that were idle for longer than so many seconds. Returns how many.',
    "$library\\Utils\\RateLimiter::getStats" => <<<'TEXT'
        @return array{active_buckets: int, total_tokens: float|int, capacity_per_bucket: int, refill_rate: float, avg_tokens: float|int}
        TEXT,
];
