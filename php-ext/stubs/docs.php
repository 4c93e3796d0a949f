<?php

/** What the stubs say beyond Reflection, by the name of the class, method, property or function. */

$library = 'PfinalClub\AsyncioHeartbeat';

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
    "$library\\Server\\HeartbeatServer::__construct" => <<<'TEXT'
        Keys of the PHP library: worker_count (4), heartbeat_timeout (30), heartbeat_check_interval, max_connections (1000000),
        protocol, enable_rate_limit, rate_limit_capacity, rate_limit_refill_rate, channel_max_queue_size.
        Keys of the engine: register_timeout (30), max_connections_per_ip, max_nodes_per_connection (10000), max_nodes
        (10000000), max_frame_bytes (10485760), outbox_bytes (1 MiB), slow_consumer ('close'|'drop'), slow_consumer_timeout (10), total_buffer_bytes
        (1 GiB), inbox_events (65536), inbox_bytes (64 MiB), rate_limit_by ('connection'|'ip'), whitelist, blacklist,
        loop ('auto'|'native'|'workerman'|'revolt'|'react'|'manual'), log ('stderr'|'logger'), log_level ('debug'|'info'|'warning'|'error'|'off'), log_file.
        Keys for other processes: php_workers (1: under Workerman, the processes that run the callbacks; 0: the engine's own),
        name ('HeartbeatServer'), bus (path of the bus socket, or false), bus_group, inbox_policy ('reject'|'drop_oldest').

        @param array<string, mixed> $config
        @throws \RuntimeException when the configuration is wrong
        TEXT,
    "$library\\Server\\HeartbeatServer::start" => <<<'TEXT'
        Starts the server and runs until it is stopped: on Workerman where it is installed, else on a loop of its own. Under
        Workerman the engine has a process of its own, and the callbacks run in others, which a reload replaces.

        @throws \Heartbus\Exception\IoException when the address cannot be listened on
        @throws \Heartbus\Exception\ConfigException outside of the PHP CLI; with several php_workers and no Workerman
        TEXT,
    "$library\\Server\\HeartbeatServer::stop" => 'Tells every client that the server is shutting down, and closes. start() returns.',
    "$library\\Server\\HeartbeatServer::on" => <<<'TEXT'
        One callback per event, the last one wins:
        connect (string $ip, int $port, int $connectionId), register (Node), heartbeat (Node),
        data (Node, string $payload, int $channelId), data.batch (list<Node>, list<string> $payloads, list<int> $channelIds),
        unregister (Node), timeout (Node), replaced (Node), disconnected (Node),
        close (int $connectionId, string $reason), start (HeartbeatServer), stop (HeartbeatServer).
        data.batch gets the messages that wait, 1,024 or 1 MiB at most, and never waits for more; it and data replace each other.
        A node that leaves gets exactly one of unregister, timeout, replaced and disconnected. In PHP workers each is told start
        and stop; what is subscribed to in start holds for that worker.

        @param 'connect'|'register'|'heartbeat'|'data'|'data.batch'|'unregister'|'timeout'|'replaced'|'disconnected'|'close'|'start'|'stop' $event
        @throws \InvalidArgumentException when there is no such event
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
        TEXT,
    "$library\\Server\\HeartbeatServer::cancel" => 'Ends a timer of every(). False when there is none.',
    "$library\\Server\\HeartbeatServer::sendTo" => <<<'TEXT'
        Sends data to a node, on its main channel when the channel is 0. True when it is queued, which is no receipt: what waits is
        lost when the connection ends. False when it is not online, its outbox is full, or the data cannot be sent: nothing is
        queued then, and nothing else has changed.
        TEXT,
    "$library\\Server\\HeartbeatServer::broadcast" => 'Sends data to every node. Returns for how many it was queued; nothing happens to the others.',
    "$library\\Server\\HeartbeatServer::disconnect" => 'Takes a node off the bus; closes its connection unless it has other nodes. False when there is no such node.',
    "$library\\Server\\HeartbeatServer::poll" => <<<'TEXT'
        For loops of others: runs the callbacks that are due, of all servers and clients of this process. With none due, waits
        for one for up to so many seconds. Returns how many ran.
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
    "$library\\Client\\HeartbeatClient::__construct" => <<<'TEXT'
        Keys of the PHP library: heartbeat_interval (10), auto_reconnect (true), reconnect_interval (5), max_reconnect_attempts
        (0: no limit), node_id, metadata. Keys of the engine: connect_timeout (5), outbox_bytes (1 MiB),
        protocol (2: any bytes where the server can; 1: the old wire), max_nodes (10,000, its first one included), heartbeat_all (true:
        heartbeats keep all nodes alive; false: the first alone, heartbeat() the others),
        loop ('auto'|'native'|'workerman'|'revolt'|'react'|'manual'), log, log_level, log_file.

        @param array<string, mixed> $config
        TEXT,
    "$library\\Client\\HeartbeatClient::connect" => <<<'TEXT'
        Connects in the background. Does nothing when the client is connected or connecting.

        @throws \InvalidArgumentException when the configuration is wrong
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
    "$library\\Client\\HeartbeatClient::on" => <<<'TEXT'
        One callback per event, the last one wins: connect (), register (string $nodeId, int $channelId), heartbeat (),
        data (string $payload, int $channelId), pong (), server_error (?array{message: string, code: int}),
        error (int $code, string $message), close (), node.lost (string $nodeId, int $channelId, int $code, string $message):
        the server refused a node or took it away, and the client goes on without it.
        TEXT,
    "$library\\Client\\HeartbeatClient::getStats" => <<<'TEXT'
        @return array{connected: bool, node_id: ?string, channel_id: ?int, messages_sent: int, messages_received: int, reconnect_attempts: int, uptime: float|int, channels: int, nodes: int}
        TEXT,
    "$library\\Client\\HeartbeatClient::run" => 'Without a loop of others: drives all clients of this process until none is left or a stop signal comes.',
    "$library\\Client\\HeartbeatClient::poll" => <<<'TEXT'
        For loops of others: runs the callbacks that are due, of all servers and clients of this process. With none due, waits
        for one for up to so many seconds. Returns how many ran.
        TEXT,
    "$library\\Client\\HeartbeatClient::getEventStream" => <<<'TEXT'
        A stream that is readable while poll() has something to do.

        @return resource
        TEXT,

    "$library\\Client\\TcpMultiplexClient" => 'Channels by ids that the application gives.',
    "$library\\Client\\TcpMultiplexClient::getAllChannels" => "@return array<int, \\$library\\Channel\\Channel>",

    'Heartbus\Bus' => <<<'TEXT'
        A server of this machine from any PHP process: pages of PHP-FPM, queue workers, cron. The process has one connection for
        each server, which outlives requests and is made again by itself. In a fiber under a loop calls suspend; elsewhere they
        block for one round trip.
        TEXT,
    'Heartbus\Bus::connect' => <<<'TEXT'
        $socket is the path of a bus socket, or the name of a server; null: php.ini's heartbus.socket, else the server named
        HeartbeatServer, in /run/heartbus or in the user's own folder. No call takes longer than the timeout, in seconds.

        @throws \Heartbus\Exception\IoException when no server is there, or it does not let this user in
        @throws \Heartbus\Exception\TimeoutException when the server does not answer
        @throws \Heartbus\Exception\ProtocolException when the server speaks another version
        TEXT,
    'Heartbus\Bus::sendTo' => 'Sends data to a node, on its main channel when the channel is 0. False when it is not online or has no room.',
    'Heartbus\Bus::sendToMany' => <<<'TEXT'
        Sends data to these nodes. Returns for how many it was queued.

        @param array<string> $nodeIds
        TEXT,
    'Heartbus\Bus::broadcast' => 'Sends data to every node. Returns for how many it was queued.',
    'Heartbus\Bus::disconnect' => 'Takes a node off the bus; closes its connection unless it has other nodes. False when there is no such node.',
    'Heartbus\Bus::node' => 'A copy of what the server knows of a node; null when it is not online.',
    'Heartbus\Bus::nodes' => <<<'TEXT'
        The nodes that are online, page by page: next is the $page of the next call, null after the last. A page has up to
        $limit nodes, 1000 at most.

        @param array{id?: string, ip?: string} $filter id: a pattern with * and ?; ip: an address
        @return array{nodes: list<\PfinalClub\AsyncioHeartbeat\Node\Node>, next: ?int}
        TEXT,
    'Heartbus\Bus::stats' => <<<'TEXT'
        @return array{server: array<string, int|string>, nodes: array<string, int>, channels: array<string, int>, connections: array<string, int|float>, engine: array<string, int>}
        TEXT,
    'Heartbus\Bus::metrics' => 'The numbers of the server as Prometheus text.',
    'Heartbus\Bus::getSocket' => 'The path of the bus socket.',

    'Heartbus\Host' => 'A server without PHP code: the engine alone, for those who use Heartbus\Bus.',
    'Heartbus\Host::run' => <<<'TEXT'
        Serves until a signal comes. Keys: host (0.0.0.0), port (9501), and those of HeartbeatServer.

        @param array<string, mixed> $config
        @throws \Heartbus\Exception\IoException when the address cannot be listened on
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
    "$library\\Channel\\Channel::recv" => 'The next entry; waits for one for up to so many seconds, 0 without end. Null when the time is up or the channel closed.',
    "$library\\Channel\\Channel::recvAsync" => 'A future of the next entry, null when the channel closes. pfinal-asyncio\'s own where that is installed, else \Heartbus\Future.',
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
    "$library\\Utils\\Metrics::export" => 'Everything as Prometheus text.',
    "$library\\Utils\\Metrics::getAll" => '@return array{counters: array<mixed>, gauges: array<mixed>, histograms: array<mixed>}',

    "$library\\Utils\\RateLimiter" => 'Token buckets by key.',
    "$library\\Utils\\RateLimiter::allow" => 'Takes the tokens if there are as many. A key that is new starts with a full bucket.',
    "$library\\Utils\\RateLimiter::cleanup" => 'Forgets the buckets that were idle for longer than so many seconds. Returns how many.',
    "$library\\Utils\\RateLimiter::getStats" => <<<'TEXT'
        @return array{active_buckets: int, total_tokens: float|int, capacity_per_bucket: int, refill_rate: float, avg_tokens: float|int}
        TEXT,
];
