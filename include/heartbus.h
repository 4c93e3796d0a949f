/*
 * Heartbus: keeps nodes connected, knows which of them are alive, and moves messages between them and the programs that
 * own them. This is the C interface of libheartbus: cc program.c $(pkg-config --cflags --libs heartbus). docs/C-API.md has it in
 * other languages.
 *
 * A server, and what it is told:
 *
 *     heartbus_server *server;
 *     const char *config = "{\"port\":9501}";
 *     if (heartbus_server_start(config, strlen(config), HEARTBUS_ON_REGISTER | HEARTBUS_ON_DATA, &server) != HEARTBUS_OK)
 *         return fprintf(stderr, "%s\n", heartbus_last_error()), 1;
 *     heartbus_event events[64];
 *     size_t count;
 *     while (!done && heartbus_server_poll(server, events, 64, -1, &count) == HEARTBUS_OK)
 *         for (size_t i = 0; i < count; i++)
 *             if (events[i].type == HEARTBUS_EVENT_DATA)
 *                 heartbus_server_send(server, events[i].node_id, events[i].node_id_len, "thanks", 6, 0);
 *     heartbus_server_free(server);
 *
 * Conventions, the same for all functions:
 *
 * Names       Functions and types begin with heartbus_, constants with HEARTBUS_.
 * Status      A function that can fail returns a heartbus_status: HEARTBUS_OK (0), or why not. heartbus_last_error says it
 *             in words. When a function fails, nothing has changed unless its own text says otherwise. What any function may
 *             return is not repeated at each: HEARTBUS_INVALID_ARGUMENT, HEARTBUS_WRONG_PROCESS and HEARTBUS_INTERNAL; and
 *             HEARTBUS_CLOSED once its server or group is stopped, see below.
 * Outputs     Results go where the last arguments point, and are written only on HEARTBUS_OK. The memory is the caller's
 *             and need not be initialised; NULL is refused unless the function allows it.
 * Handles     A heartbus_server, heartbus_clients, heartbus_log or heartbus_bus is made by its _start (or _connect) function
 *             and freed by its _free function, never by free(). Handles are not followed but looked up: NULL, a handle that
 *             was freed already (the last 1,024 are remembered), one of another kind and a pointer that never was a handle
 *             are HEARTBUS_INVALID_ARGUMENT. _free takes NULL. Clients are numbers within their heartbus_clients; a number
 *             is never used twice.
 * Strings     Come in pairs of pointer and length, in both directions, may hold any byte (names and JSON: UTF-8), and are
 *             not kept after the call returns. NULL with length 0 is an empty string. What the library returns in node_id,
 *             ip, text and metadata is NUL-terminated as well; a payload is not.
 * Memory      const char * that the library returns belongs to it, and is never freed by the caller. What events point to is
 *             valid until the next poll of the same handle, and until the thread that polled frees that. When another thread
 *             frees it, they live on until the thread that has them polls the handle again or ends (or has left more than
 *             1,024 handles so). What the result of a lookup points to (_node, _node_of_channel, _node_of_connection, _nodes,
 *             _connections, _metrics, heartbus_client_info) is valid until the next lookup of the same thread, of whatever kind.
 * User data   A program may attach a pointer to a handle, to a node of a server, and to a client or one of its nodes; their
 *             events carry it. The library never follows it. That of a node comes back once, with the event of its
 *             departure: see heartbus_set_user_data, heartbus_server_set_node_user_data, heartbus_client_set_user_data.
 * Units       Times are seconds as double, moments seconds since 1970; only timeout_ms is milliseconds. Enums have 4 bytes,
 *             like int. A node's id has 1 to 255 bytes, its metadata at most 64 KiB.
 * Waiting     No function waits for the network, but for these: _poll, as long as it is told; _stop and _free, 1.5 s;
 *             heartbus_server_connections, 0.5 s; heartbus_bus_*, as long as heartbus_bus_connect was told; and
 *             heartbus_server_start and _check for the resolver, where host is a name.
 * Threads     All functions may be called from any thread, except that only one thread at a time polls a handle (a second
 *             one gets HEARTBUS_INVALID_ARGUMENT) and that nobody may use what events point to when another thread polls
 *             their handle. When a handle is stopped while a thread polls it, that thread gets what is left, and then
 *             HEARTBUS_CLOSED; when it is freed, HEARTBUS_CLOSED at once, and so does every other thread that polls it
 *             later (the one that freed it: HEARTBUS_INVALID_ARGUMENT). In order: stop, join the thread that polls, free.
 *             heartbus_wake makes a poll return for anything else. Threads are those of the system: where a language moves its
 *             own between them (Go), it holds on to one from a call that fails to heartbus_last_error, and from a lookup to the
 *             last use of its result.
 * After stop  A server or group that was stopped is still a handle. What needs nobody who is gone works as before: _stop, _free,
 *             _fd, _port, _stats, _metrics, _count, heartbus_server_heartbeat_timeout, heartbus_user_data,
 *             heartbus_set_user_data, heartbus_wake and heartbus_log_start_for. _poll tells what is left, then it is
 *             HEARTBUS_CLOSED. All others are HEARTBUS_CLOSED. What asks over the bus socket is HEARTBUS_IO until a
 *             server answers there again. docs/C-API.md has this as a table, function by function.
 * Signals     The library's own threads never call into the program and block all signals; no call raises SIGPIPE. No
 *             function may be called from a signal handler: set a flag there, the signal ends a poll of its thread.
 * Fork        A handle belongs to the process that made it. In a forked child every use of it is HEARTBUS_WRONG_PROCESS, also
 *             freeing it, and the child may start servers and clients of its own. As a child shares the descriptors of its
 *             parent's connections, it should exec or end, or be forked before the first start.
 * Process     The first start raises the soft limit of descriptors to the hard one. The library's descriptors have numbers of
 *             1,024 and above, where the limit allows such, so that select() in the program goes on whatever the number of
 *             connections; those that _fd returns are below, as long as there are any. None of them is 0, 1 or 2, also where
 *             the program has closed these. Nothing is ever written to the standard streams: what the library has to say is
 *             in heartbus_last_error and in the logs of heartbus_log_start. A program may end without freeing anything: its
 *             connections are closed without a word. dlclose leaves the library where it is.
 * Panics      A fault inside the library ends as HEARTBUS_INTERNAL, never as an unwinding through the caller's frames. Only
 *             memory that runs out ends the process.
 * Versions    Numbers of enums are assigned once. Structs do not grow: what later versions add is in their reserved fields,
 *             which are 0 until then. New enum values may come, so a switch wants a default. See heartbus_abi_version.
 *
 * Configuration is JSON text, so that it can grow without a change of the interface: an object with the keys of the PHP
 * library and the engine's own. Unknown keys are refused. Times are seconds from 0.001 to a year, fractions allowed. Whole
 * numbers may be written as 1e6 and 9777.0 too. null means the default, which is shown.
 *
 * Server, heartbus_server_start:
 *     host "0.0.0.0": where to listen: an IPv4 or IPv6 address, with or without brackets, or a host name
 *     port 9501: 0 takes a free one
 *     heartbeat_timeout 30: seconds of silence after which a node is down
 *     worker_count 0: I/O threads, never more than the machine has cores; 0 is one per core
 *     register_timeout 30: seconds until a connection on which nobody registers is closed
 *     max_connections 1000000: connections in total; one more is told 503; lowered at start to what the descriptor
 *         limit allows, with a WARNING in the log
 *     max_connections_per_ip 0: connections per address; 0 is no limit of its own
 *     max_nodes 10000000: nodes in total; one more is told 403
 *     max_nodes_per_connection 10000: nodes on one connection; one more is told 403
 *     max_metadata_bytes_per_connection 16777216: bytes of metadata of all nodes on one connection; more is told 403
 *     max_frame_bytes 10485760: longest frame body in bytes; a longer one is told 413 before anything of it is kept; at
 *         most 1073741824 where there is a bus socket
 *     outbox_bytes 1048576: bytes that may wait for one connection because it takes no more; beyond, messages for its
 *         nodes are refused, but that a single longer one still goes where nothing waits
 *     slow_consumer "close": what happens to a connection that takes nothing of what waits for it: close, or drop: it
 *         stays, and misses what is refused
 *     slow_consumer_timeout 10: seconds without a byte taken until then
 *     total_buffer_bytes 1073741824: bytes that the server may keep for others, all together: what waits in
 *         connections, metadata, events
 *     max_subscriptions 1000: subscriptions of one connection to topics, all its nodes together; one more is told 403
 *     max_topics 1000000: topics and filters that somebody has subscribed to or of which something is kept; one more is
 *         told 403
 *     max_filter_levels 8: levels of a filter with + or # in it, those between its slashes; one more is told 403: with
 *         each level, what is looked at for a publication may double
 *     history_bytes 33554432: bytes of publications that are kept of all topics together; at the bound the oldest go;
 *         never more than a thirty-second of total_buffer_bytes
 *     history {}: what is kept of topics, by filters; the first one that matches a topic counts for it: up to count
 *         publications (100), bytes of them (1048576, with some for each) and ttl seconds (3600); unless set, nothing
 *         is kept; {"chat/#":{"count":100,"bytes":1048576,"ttl":3600}}
 *     presence_debounce 1: seconds within which a node that comes and goes is told once in $nodes and $presence/..., as
 *         it stands then; 0: each time
 *     presence_topics false: whether nodes and WebSocket clients may subscribe to $nodes and $presence/..., and so see
 *         who is there; processes of yours may always
 *     bus_queue_events 8192: publications that may wait for a process that has subscribed over the bus socket; further
 *         ones are dropped, and it is told how many
 *     bus_queue_bytes 4194304: bytes of them
 *     allow []: addresses and networks such as 10.0.0.0/8 that may connect; none listed: all; in PHP, and here too:
 *         whitelist
 *     deny []: those that may not, whatever the other list says; in PHP, and here too: blacklist
 *     decision_timeout 5: seconds within which the host is to decide what it asks to decide (on('authenticate')); what
 *         it has not decided by then is refused
 *     max_decisions 10000: decisions that may be open, over all connections; one more is told 403
 *     websocket null: where WebSockets come in: host:port, or true: at the main port too
 *     websocket_origins []: origins of pages whose WebSockets are let in, such as https://example.com; others are told
 *         403, who names none is no browser; none listed: all
 *     websocket_path null: the path of WebSockets, such as /ws; others are told 404; unless set, any path is
 *     firetower_conventions true: whether WebSocket clients that speak Firetower's JSON may publish, and a topic is
 *         told how many subscribers it has when one of them comes or goes, as Firetower's example gateway does
 *     firetower null: where Firetower's gateways and publishers come in, as at its manager's TCP port: host:port, or
 *         true: at the main port too
 *     firetower_max_subscriptions 100000: subscriptions of one of Firetower's gateways, those of all its clients
 *         together; one more is refused
 *     firetower_manager null: an old manager of Firetower's that this server is a gateway of, host:port: what is
 *         published goes there and comes from there
 *     firetower_manager_grpc true: where that manager takes subscriptions (gRPC): host:port, or true: the next port of
 *         the same host; false: as frames over the TCP connection, for another server of this kind
 *     websocket_compression false: whether messages of WebSockets may come compressed (permessage-deflate)
 *     max_requests_per_second 0: frames per second of all connections together, heartbeats included; one more is told
 *         429; 0 is no limit
 *     stats_interval 60: seconds between two lines Server stats in the log, at level info
 *     rate_limit_capacity 100: frames that may come at once
 *     rate_limit_refill_rate 10: frames per second in the long run; what is over it is told 429
 *     rate_limit_by "connection": each connection has its own bucket, or those of an address share one: ip
 *     enable_rate_limit null: whether frames are limited as the three settings above say; on as soon as one of them is
 *         set
 *     bus null: the bus socket; an absolute path, or a name, whose socket then stands in the usual place; none unless
 *         it is set
 *     bus_group null: a group, by name or number, whose users may use the bus socket as well; workers must be of the
 *         server's own user, always
 *     inbox_events 65536: events that may wait for the host, or for each of its workers; at the bound, senders of data
 *         are made to wait, and events of one node are merged
 *     inbox_bytes 67108864: payload bytes that may wait there
 *
 * Client, heartbus_client_connect:
 *     host "127.0.0.1": the server: an IPv4 or IPv6 address, with or without brackets, or a host name
 *     port 9501: 1 to 65535
 *     node_id null: kept over reconnects; 1 to 255 bytes; one is made up, once, unless it is set
 *     metadata []: sent with the registration; any object or list, as it is written
 *     heartbeat_interval 10: seconds between heartbeats; a missing answer is noticed within two intervals
 *     auto_reconnect true: never after a disconnect of its own, and not after another client took the id over (409)
 *     reconnect_interval 5: seconds: base of the exponential back-off with full jitter, never under 100 ms nor over 60
 *         s
 *     max_reconnect_attempts 0: counted anew after each successful registration; 0 is no limit
 *     connect_timeout 5: seconds; those of a host name's look-up count from its beginning
 *     outbox_bytes 1048576: bytes that may wait to be sent; more is refused
 *     total_buffer_bytes 1073741824: bytes that the clients of the process, in C those of their group, may keep
 *         together of what servers send and of what waits to be sent; while it is more, the client that keeps most is
 *         disconnected, and connects again
 *     protocol 2: newest dialect to speak where the server can: 2, which carries any bytes; 1 stays with the old wire
 *     max_nodes 10000: nodes that it may carry, its first one included; more are refused
 *     max_subscriptions 1000: topics and filters that it may have subscribed to; more are refused
 *     heartbeat_all true: whether its heartbeats keep all its nodes alive, or its first one alone; then the host sends
 *         those of the others
 *
 * Group of clients, heartbus_clients_start:
 *     inbox_events 65536: events that may wait for the host, or for each of its workers; at the bound, senders of data
 *         are made to wait, and events of one node are merged
 *     inbox_bytes 67108864: payload bytes that may wait there
 */

#ifndef HEARTBUS_H
#define HEARTBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of this header; heartbus_version() is that of the library.
#define HEARTBUS_VERSION_MAJOR 0
#define HEARTBUS_VERSION_MINOR 1
#define HEARTBUS_VERSION_PATCH 0
#define HEARTBUS_VERSION_STRING "0.1.0"

// Grows when a program compiled against an older header could no longer run with the library. New functions, event
// types, status codes and configuration keys do not count.
#define HEARTBUS_ABI_VERSION 1

// How a call ended. Numbers are assigned once and never used again for something else; new ones may be added.
typedef enum {
  HEARTBUS_OK = 0,
  // A setting is wrong: not JSON, an unknown key, a value out of range.
  HEARTBUS_CONFIG = 1,
  // The operating system refused something: an address in use, no descriptor left.
  HEARTBUS_IO = 2,
  // The other side broke the protocol.
  HEARTBUS_PROTOCOL = 3,
  // Stopped, or not connected.
  HEARTBUS_CLOSED = 4,
  // Something did not happen in time. (A poll without events is HEARTBUS_OK with a count of 0.)
  HEARTBUS_TIMEOUT = 5,
  // A limit was reached: an outbox is full, a message is longer than a frame may be.
  HEARTBUS_LIMIT = 6,
  // No such node, channel or client.
  HEARTBUS_NOT_FOUND = 7,
  // A fault of the library.
  HEARTBUS_INTERNAL = 8,
  // An argument that can never be right: NULL, a handle that was freed, text that is not UTF-8.
  HEARTBUS_INVALID_ARGUMENT = 9,
  // The handle was made before a fork, and this is the child.
  HEARTBUS_WRONG_PROCESS = 10,
} heartbus_status;

// What happened. Numbers are assigned once; new ones may be added, so a switch wants a default that ignores them.
typedef enum {
  // A connection may speak: it was accepted, and a WebSocket has shaken hands. connection_id, ip, port; text is what it came in by:
  // "tcp", "websocket", "firetower".
  HEARTBUS_EVENT_CONNECT = 1,
  // A node came online. The fields of a node, ip, port; payload is its metadata, JSON text.
  HEARTBUS_EVENT_REGISTER = 2,
  // A node's heartbeat was answered. The fields of a node.
  HEARTBUS_EVENT_HEARTBEAT = 3,
  // A node sent data. The fields of a node, payload; channel_id is the one it came on.
  HEARTBUS_EVENT_DATA = 4,
  // A node signed off. The fields of a node, ip, port. Each node that came leaves with exactly one of these four.
  HEARTBUS_EVENT_UNREGISTER = 5,
  // A node was silent for longer than heartbeat_timeout. As above.
  HEARTBUS_EVENT_TIMEOUT = 6,
  // A newer connection registered the node's id. As above.
  HEARTBUS_EVENT_REPLACED = 7,
  // The node's connection ended, or heartbus_server_disconnect was called. As above.
  HEARTBUS_EVENT_DISCONNECTED = 8,
  // A connection is gone: the last that is told of it, once for each CONNECT. connection_id, ip, port; code is a heartbus_close_reason,
  // text says it in words; payload is the user that a WebSocket client of Firetower's has said it is, where it has.
  HEARTBUS_EVENT_CLOSE = 9,
  // As much waits for a node's connection as may (outbox_bytes), or a message for it was refused. The fields of a node.
  HEARTBUS_EVENT_BUFFER_FULL = 10,
  // Nothing waits any more, after HEARTBUS_EVENT_BUFFER_FULL. As above.
  HEARTBUS_EVENT_BUFFER_DRAIN = 11,
  // A publication of a topic that heartbus_server_subscribe_topics or heartbus_bus_subscribe_topics has asked for. text is the topic, payload
  // what was published; node_id the node that has published it, NULL when it was none; heartbus_event_position, where the topic has one.
  HEARTBUS_EVENT_MESSAGE = 12,
  // Publications that heartbus_bus_subscribe_topics has asked for are missing here. count is how many, because this program was too slow; 0:
  // nobody knows, because the connection was made anew, or something is not kept any more. text is the topic or filter that it is about, NULL when
  // it may be any of this handle. A program that keeps a picture looks afresh now.
  HEARTBUS_EVENT_MISSED = 13,
  // A node wants to register, and waits for heartbus_server_decide, for decision_timeout at most; without an answer it is refused. number
  // is that of the question; node_id, connection_id, ip, port; payload is what the node says of itself, JSON text. It is not there yet,
  // and where its id is online on another connection, that goes on until the answer is 1.
  HEARTBUS_EVENT_AUTHENTICATE = 14,
  // Somebody wants to subscribe, and waits for heartbus_server_decide or heartbus_server_decide_topics, for decision_timeout at most;
  // without an answer it is refused. number is that of the question; payload has the topics and filters, each with a line feed behind it;
  // ip, port, connection_id; the fields of a node, where it is one. A WebSocket client of Firetower's is none: node_id is NULL, and text
  // is the user that it has said it is, where it has.
  HEARTBUS_EVENT_SUBSCRIBE_BEFORE = 15,
  // Somebody wants to publish, and waits for heartbus_server_decide or heartbus_server_decide_publication, as above. text is the topic,
  // payload what is to be published; number, ip, port, connection_id; the fields of a node, where it is one.
  HEARTBUS_EVENT_PUBLISH_BEFORE = 16,
  // Somebody has subscribed, or was put into a topic. text is the topic or filter; ip, port, connection_id; the fields of a node, where it
  // is one. A WebSocket client of Firetower's, and a gateway, are none: node_id is NULL, and payload is the user that a client has said it
  // is, where it has. count is above 1 where several of one subscriber and topic were merged: this is the last of them.
  HEARTBUS_EVENT_SUBSCRIBE = 17,
  // Somebody has subscribed no longer. As above. A node that leaves is told by its leaving alone; of a connection that has none the topics
  // that are left are told before its CLOSE.
  HEARTBUS_EVENT_UNSUBSCRIBE = 18,
  // A client is connected, and its REGISTER is on its way. client_id, as in all events of clients.
  HEARTBUS_EVENT_CLIENT_CONNECT = 101,
  // The server registered a node of the client. node_id, channel_id.
  HEARTBUS_EVENT_CLIENT_REGISTER = 102,
  // The server answered a heartbeat.
  HEARTBUS_EVENT_CLIENT_HEARTBEAT = 103,
  // The server sent data. payload, channel_id; node_id is the client's node that the channel belongs to, NULL when it is none's.
  HEARTBUS_EVENT_CLIENT_DATA = 104,
  // The server answered heartbus_client_ping.
  HEARTBUS_EVENT_CLIENT_PONG = 105,
  // The server sent ERROR. code (a heartbus_error_code, when it is a Heartbus server), text, of which the first 1,000 bytes are kept;
  // payload is all it sent, unless that is longer than 64 KiB: then it is a JSON object with code and text.
  HEARTBUS_EVENT_CLIENT_SERVER_ERROR = 106,
  // A socket failed. code is a heartbus_client_error, text says more; cause is a heartbus_error_cause, payload says it in words.
  HEARTBUS_EVENT_CLIENT_ERROR = 107,
  // The connection is gone, or could not be made. code is a heartbus_close_reason, text says it in words; payload says more, where
  // there is more: the server's words, or the system's. With auto_reconnect the client tries again by itself.
  HEARTBUS_EVENT_CLIENT_CLOSE = 108,
  // The client's last event: it will not connect again. Its client_id means nothing from the next poll on.
  HEARTBUS_EVENT_CLIENT_FINISHED = 109,
  // The server refused to register a node, or took it away: it timed out, was replaced by a newer connection, or was
  // disconnected. Only of a client with heartbus_client_add_node. node_id; channel_id, 0 when it was not registered; code (a
  // heartbus_error_code), text. The client goes on without it, and it may be added again. The first node returns with
  // the next connection, unless it was replaced.
  HEARTBUS_EVENT_CLIENT_NODE_LOST = 110,
  // The server answered a subscription, after each connect anew. text is the topic or filter; heartbus_event_position of the last
  // publication before it, where there is one. code is 1 when all messages behind the last one that was told follow, once and in order,
  // and 0 when something is missing in front of the next one. So it also comes without having been asked for, without a position, where
  // the server or the way to it has lost something, and of a filter after each reconnect: filters have no position to go on from.
  HEARTBUS_EVENT_CLIENT_SUBSCRIBED = 111,
  // A message of a topic, which a node of the client has subscribed to or was put into by the server. text is the topic, payload what was
  // published, node_id and channel_id whose it is, as in HEARTBUS_EVENT_CLIENT_DATA; heartbus_event_position, where the topic has one.
  HEARTBUS_EVENT_CLIENT_MESSAGE = 112,
  // The server answered a heartbus_client_publish with a number. number; count is for how many subscriptions it was queued, which may be
  // 0; heartbus_event_position, where the topic has one.
  HEARTBUS_EVENT_CLIENT_PUBLISHED = 113,
  // The server refused a subscription, which the client does not have any more. text is the topic or filter; code (a
  // heartbus_error_code), payload says it in words.
  HEARTBUS_EVENT_CLIENT_SUBSCRIBE_REFUSED = 114,
  // The server refused a publication. text is the topic; code (a heartbus_error_code), payload says it in words; number, 0 when it has
  // none.
  HEARTBUS_EVENT_CLIENT_PUBLISH_REFUSED = 115,
  // A log message. code is a heartbus_log_level, text the message, time when it was written; payload is what belongs to it, a
  // JSON object; client_id whose it is, 0 when no client's.
  HEARTBUS_EVENT_LOG = 201,
} heartbus_event_type;

// What a server tells: a sum of these. Events that nobody asked for cost nothing.
typedef enum {
  HEARTBUS_ON_NOTHING = 0,
  HEARTBUS_ON_CONNECT = 1,
  HEARTBUS_ON_REGISTER = 2,
  HEARTBUS_ON_HEARTBEAT = 4,
  HEARTBUS_ON_DATA = 8,
  // UNREGISTER, TIMEOUT, REPLACED and DISCONNECTED.
  HEARTBUS_ON_LEFT = 16,
  HEARTBUS_ON_CLOSE = 32,
  // BUFFER_FULL and BUFFER_DRAIN.
  HEARTBUS_ON_BUFFER = 64,
  // MESSAGE, of the topics that heartbus_server_subscribe_topics has asked for.
  HEARTBUS_ON_MESSAGE = 128,
  // AUTHENTICATE: whoever asks for it decides which nodes may register, by heartbus_server_decide.
  HEARTBUS_ON_AUTHENTICATE = 256,
  // SUBSCRIBE_BEFORE: whoever asks for it decides who may subscribe to what.
  HEARTBUS_ON_SUBSCRIBE_BEFORE = 512,
  // PUBLISH_BEFORE: whoever asks for it decides what is published by nodes and by WebSocket clients of Firetower's.
  HEARTBUS_ON_PUBLISH_BEFORE = 1024,
  HEARTBUS_ON_SUBSCRIBE = 2048,
  HEARTBUS_ON_UNSUBSCRIBE = 4096,
} heartbus_events;

// The `code` of HEARTBUS_EVENT_CLOSE and HEARTBUS_EVENT_CLIENT_CLOSE: why the connection ended. Of a client's it is what its server
// told, where that told something. More may be added; `text` says the same in words.
typedef enum {
  // The peer closed it.
  HEARTBUS_CLOSE_PEER_CLOSED = 1,
  // The connection was lost: it was reset, for one.
  HEARTBUS_CLOSE_IO_ERROR = 2,
  // What came was not the protocol.
  HEARTBUS_CLOSE_BROKEN_STREAM = 3,
  // A frame announced more than max_frame_bytes.
  HEARTBUS_CLOSE_FRAME_TOO_LONG = 4,
  // No node registered within register_timeout.
  HEARTBUS_CLOSE_REGISTER_TIMEOUT = 5,
  // Its last node timed out; of a client also: the server did not answer its heartbeats.
  HEARTBUS_CLOSE_HEARTBEAT_TIMEOUT = 6,
  // Its last node was replaced by a newer connection.
  HEARTBUS_CLOSE_REPLACED = 7,
  // heartbus_server_disconnect took its last node.
  HEARTBUS_CLOSE_KICKED = 8,
  // It took nothing of what waited for it for slow_consumer_timeout.
  HEARTBUS_CLOSE_SLOW_CONSUMER = 9,
  // The server was full.
  HEARTBUS_CLOSE_SERVER_FULL = 10,
  // Its address is denied, or not among those allowed.
  HEARTBUS_CLOSE_NOT_ALLOWED = 11,
  // The server was stopped.
  HEARTBUS_CLOSE_SERVER_STOPPED = 12,
  // Of a client: it could not be made. HEARTBUS_EVENT_CLIENT_ERROR has told why.
  HEARTBUS_CLOSE_CONNECT_FAILED = 13,
  // Of a client: the server refused to register its only node.
  HEARTBUS_CLOSE_REFUSED = 14,
  // Of a client: the program disconnected it.
  HEARTBUS_CLOSE_DISCONNECTED = 15,
  // Of a client: a fault of this library. It connects again.
  HEARTBUS_CLOSE_FAILED = 16,
  // heartbus_server_decide has refused its only node, or was not called in time.
  HEARTBUS_CLOSE_NOT_AUTHENTICATED = 17,
} heartbus_close_reason;

// The `code` of HEARTBUS_EVENT_CLIENT_SERVER_ERROR, when a Heartbus server speaks. Other servers may send others.
typedef enum {
  HEARTBUS_ERROR_INVALID_REQUEST = 400,
  HEARTBUS_ERROR_NOT_AUTHENTICATED = 401,
  HEARTBUS_ERROR_NOT_ALLOWED = 403,
  HEARTBUS_ERROR_NOT_FOUND = 404,
  // The node was silent for too long. Connects again.
  HEARTBUS_ERROR_NODE_TIMED_OUT = 408,
  // A newer connection registered the same node id. This client does not connect again.
  HEARTBUS_ERROR_REPLACED = 409,
  HEARTBUS_ERROR_FRAME_TOO_LONG = 413,
  HEARTBUS_ERROR_RATE_LIMITED = 429,
  HEARTBUS_ERROR_FAILED = 500,
  // The server is full or shutting down.
  HEARTBUS_ERROR_UNAVAILABLE = 503,
} heartbus_error_code;

// The `code` of HEARTBUS_EVENT_CLIENT_ERROR.
typedef enum {
  HEARTBUS_CLIENT_CONNECT_FAILED = 1,
  HEARTBUS_CLIENT_SEND_FAILED = 2,
} heartbus_client_error;

// The `cause` of HEARTBUS_EVENT_CLIENT_ERROR: why the socket failed. More may be added; `payload` says the same in words.
typedef enum {
  // Nobody listens there.
  HEARTBUS_CAUSE_REFUSED = 1,
  // The name of the host has no address, as far as the system can tell.
  HEARTBUS_CAUSE_NO_SUCH_HOST = 2,
  HEARTBUS_CAUSE_TIMED_OUT = 3,
  // There is no way to the address.
  HEARTBUS_CAUSE_UNREACHABLE = 4,
  // The connection broke.
  HEARTBUS_CAUSE_LOST = 5,
  // The system has no descriptor, port or memory left.
  HEARTBUS_CAUSE_EXHAUSTED = 6,
  HEARTBUS_CAUSE_OTHER = 7,
} heartbus_error_cause;

// How important a log message is; the `code` of HEARTBUS_EVENT_LOG.
typedef enum {
  HEARTBUS_LOG_DEBUG = 1,
  HEARTBUS_LOG_INFO = 2,
  HEARTBUS_LOG_WARNING = 3,
  HEARTBUS_LOG_ERROR = 4,
} heartbus_log_level;

// A connection to the bus socket of a server in another process.
typedef struct heartbus_bus heartbus_bus;

// A group of clients, driven by one thread and polled together. One client or tens of thousands.
typedef struct heartbus_clients heartbus_clients;

// An open log.
typedef struct heartbus_log heartbus_log;

// A running server.
typedef struct heartbus_server heartbus_server;

// One event. Which fields it fills is said at its type; all others are 0 or NULL.
//
// "The fields of a node" are node_id, connection_id and channel_id, its main channel.
typedef struct {
  heartbus_event_type type;
  int32_t code;
  // The server's number for the connection, never used again.
  uint64_t connection_id;
  uint64_t client_id;
  int64_t channel_id;
  // How many events of this type (and of leaving and coming back, for a node) this one stands for: 1, or more when the
  // program was too slow to take them all. Of HEARTBUS_EVENT_CLIENT_PUBLISHED, for how many subscriptions; of HEARTBUS_EVENT_MISSED, how
  // many publications are missing, 0 when nobody knows.
  uint32_t count;
  uint16_t port;
  uint16_t reserved16;
  const char *node_id;
  size_t node_id_len;
  // Bytes, not NUL-terminated.
  const char *payload;
  size_t payload_len;
  const char *ip;
  size_t ip_len;
  const char *text;
  size_t text_len;
  // Of a log message: when it was written, in seconds since 1970. 0 for other types.
  double time;
  // Of HEARTBUS_EVENT_CLIENT_ERROR: a heartbus_error_cause.
  int32_t cause;
  // Of a publication: the number that heartbus_client_publish was given. Of HEARTBUS_EVENT_AUTHENTICATE,
  // HEARTBUS_EVENT_SUBSCRIBE_BEFORE and HEARTBUS_EVENT_PUBLISH_BEFORE: that of the question.
  uint32_t number;
  // The pointer that the program attached to what the event is about, or NULL: to the node of a server's event; to the node that
  // a client's event names, when the client was given it by heartbus_client_add_node, else to the client; to the handle that a log
  // message is about. UNREGISTER, TIMEOUT, REPLACED, DISCONNECTED, CLIENT_NODE_LOST and CLIENT_FINISHED give it back: it is in no
  // later event.
  void *user_data;
} heartbus_event;

// Where a publication stands among those of its topic. Offsets count from 1 within one epoch; another epoch is another life of the topic,
// in which offsets mean something else.
typedef struct {
  uint64_t offset;
  uint64_t epoch;
} heartbus_position;

// A node as it is at this moment. Times are seconds since 1970.
typedef struct {
  uint64_t connection_id;
  // Its main channel.
  int64_t channel_id;
  uint64_t heartbeat_count;
  uint64_t total_messages;
  double created_at;
  double last_heartbeat;
  // 0 before the first message.
  double last_message;
  const char *node_id;
  size_t node_id_len;
  const char *ip;
  size_t ip_len;
  // JSON text, "[]" when it sent none.
  const char *metadata;
  size_t metadata_len;
  uint16_t port;
  // False when it left just now.
  bool online;
  uint8_t reserved8[5];
  // Bytes that wait to be written to its connection.
  uint64_t bytes_waiting;
  // What heartbus_server_set_node_user_data attached; NULL when that is nothing, and over the bus socket.
  void *user_data;
  // 0.
  uint64_t reserved[2];
} heartbus_node;

// A client as it is at this moment.
typedef struct {
  uint64_t client_id;
  // 0 until the server registered it for the first time; kept afterwards.
  int64_t channel_id;
  // Heartbeats, data and pings.
  uint64_t messages_sent;
  uint64_t messages_received;
  // When it connected last, in seconds since 1970; 0 before the first time.
  double connected_at;
  // NULL until the server registered it for the first time; kept afterwards.
  const char *node_id;
  size_t node_id_len;
  // Since it was registered last.
  uint32_t reconnect_attempts;
  bool connected;
  uint8_t reserved8[3];
  // How many of its nodes are registered at this moment.
  uint64_t nodes;
  // How often reading stopped because the program took no events.
  uint32_t reads_paused;
  // Frames of the server that were no use: not to be understood, a reply to what was never asked, or a text of which only the
  // beginning was kept.
  uint32_t frames_refused;
  // Bytes that wait to be written.
  uint64_t bytes_waiting;
  // What heartbus_client_set_user_data attached to it; NULL when that is nothing.
  void *user_data;
} heartbus_client;

// A text of the caller, where there are several.
typedef struct {
  const char *text;
  size_t len;
} heartbus_text;

// A connection as it is at this moment, registered or not.
typedef struct {
  uint64_t connection_id;
  uint64_t bytes_in;
  uint64_t bytes_out;
  // Bytes of a frame whose rest has not come, or that wait for poll.
  uint64_t bytes_waiting_in;
  uint64_t bytes_waiting_out;
  // How many nodes it has.
  uint64_t node_count;
  // The first of them; NULL when there is none.
  const char *node_id;
  size_t node_id_len;
  const char *ip;
  size_t ip_len;
  uint16_t port;
  uint16_t reserved16[3];
  // 0.
  uint64_t reserved[4];
} heartbus_connection;

// A number with its name, such as "nodes_online". Names live as long as the program.
typedef struct {
  const char *name;
  uint64_t value;
} heartbus_stat;

// What became of a publication: its position in its topic, 0 and 0 where that has none, and for how many subscriptions it was
// queued.
typedef struct {
  // From 1 on, within an epoch.
  uint64_t offset;
  // One life of the topic.
  uint64_t epoch;
  uint64_t reach;
  // 0.
  uint64_t reserved[2];
} heartbus_publication;

// A topic in a list.
typedef struct {
  const char *topic;
  size_t topic_len;
  // By its name, and through filters that match it.
  uint64_t subscribers;
  // 0.
  uint64_t reserved[2];
} heartbus_topic;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0". Lives as long as the program.
const char *heartbus_version(void);

// The ABI that the loaded library has. A program that loads it at run time compares this with HEARTBUS_ABI_VERSION of
// the header it was compiled against, and does not go on when they differ.
uint32_t heartbus_abi_version(void);

// Says in English why the last call of this thread that failed did so; "" when none has. A call that succeeds leaves it
// as it is. Valid until the next call of this thread that fails.
const char *heartbus_last_error(void);

// The name of a status without its prefix: "OK", "NOT_FOUND"; "UNKNOWN" for a number that this library does not know.
// Lives as long as the program.
const char *heartbus_status_name(int32_t status);

// The name of a heartbus_close_reason without its prefix, in lower case: "peer_closed", "slow_consumer"; "unknown" for a number that
// this library does not know. Lives as long as the program. Names never change, unlike the words in `text`.
const char *heartbus_reason_name(int32_t reason);

// The name of a heartbus_error_code, as heartbus_reason_name: "node_timed_out", "rate_limited".
const char *heartbus_error_name(int32_t code);

// The name of a heartbus_client_error, as heartbus_reason_name: "connect_failed".
const char *heartbus_client_error_name(int32_t code);

// The name of a heartbus_error_cause, as heartbus_reason_name: "refused", "no_such_host".
const char *heartbus_cause_name(int32_t cause);

// The position that an event of a topic tells of. The event must be one that was polled last.
//
// HEARTBUS_NOT_FOUND when it has none.
heartbus_status heartbus_event_position(const heartbus_event *event, heartbus_position *position);

// The name of an event's type without its prefix, in lower case: "register", "client_data"; "unknown" for a number that
// this library does not know. Lives as long as the program.
const char *heartbus_event_name(int32_t type);

// Starts a server. `config` is JSON text (see the first page); NULL with length 0 means all defaults. `events` is a sum of
// heartbus_events: what the server tells. Free the server with heartbus_server_free.
//
// HEARTBUS_CONFIG when a setting is wrong, HEARTBUS_IO when the address cannot be listened on, HEARTBUS_INVALID_ARGUMENT when
// `events` holds a bit that is no event.
heartbus_status heartbus_server_start(const char *config,
                                      size_t config_len,
                                      uint32_t events,
                                      heartbus_server **server);

// Says whether a server could start with this configuration now. Starts no thread and leaves nothing behind, so a process that
// will fork may ask.
//
// As heartbus_server_start.
heartbus_status heartbus_server_check(const char *config,
                                      size_t config_len);

// Tells every client that the server is shutting down, writes what waits, closes all connections and ends the threads,
// within 1.5 s. Poll until HEARTBUS_CLOSED to learn what happened until then. Calling it again is harmless.
heartbus_status heartbus_server_stop(heartbus_server *server);

// Stops the server if it still runs, and ends its handle; events that were not taken are dropped. A poll of another thread ends with
// HEARTBUS_CLOSED at once. What events of this thread's last poll point to is gone; those of another thread's live on until that
// thread polls again or ends. To lose no event: heartbus_server_stop, join the thread that polls until HEARTBUS_CLOSED, free. The
// descriptor of heartbus_server_fd is closed, and its number soon another's: watch it no longer. NULL is fine.
heartbus_status heartbus_server_free(heartbus_server *server);

// The port that the server listens on: the real one, where the configuration said 0.
heartbus_status heartbus_server_port(const heartbus_server *server, uint16_t *port);

// A descriptor that is readable while events wait, and for good once the server has stopped. For poll, epoll, select or
// any event loop: wait until it is readable, then call heartbus_server_poll. Never read from it, write to it or close it. Where
// it is watched edge-triggered (EPOLLET), poll until `count` is 0: it does not become readable again while events wait.
heartbus_status heartbus_server_fd(const heartbus_server *server,
                                   int *fd);

// Replaces what the server tells: `events` is a sum of heartbus_events. What waits already is still told.
//
// HEARTBUS_INVALID_ARGUMENT when `events` holds a bit that is no event.
heartbus_status heartbus_server_subscribe(heartbus_server *server, uint32_t events);

// Lets the server tell what is published from now on to the topics that a filter matches, as HEARTBUS_EVENT_MESSAGE: each publication once,
// however many filters match it, in the order of its topic. A server must tell HEARTBUS_ON_MESSAGE for it. While the program takes no
// events, nodes that publish there are not read, and other publications to these topics are refused at twice the bound of its inbox. A
// filter that is there already stays.
//
// HEARTBUS_INVALID_ARGUMENT when it is no filter, HEARTBUS_LIMIT when there are too many topics.
heartbus_status heartbus_server_subscribe_topics(heartbus_server *server,
                                                 const char *filter,
                                                 size_t filter_len);

// Ends what heartbus_server_subscribe_topics has begun. What waits already is still told.
//
// HEARTBUS_NOT_FOUND when there is no such filter.
heartbus_status heartbus_server_unsubscribe_topics(heartbus_server *server, const char *filter, size_t filter_len);

// Takes up to `capacity` events into the caller's array and says how many in `count`. Waits for the first one for
// `timeout_ms` milliseconds: 0 does not wait, -1 (or less) waits without end. `count` is 0 when the time is over, or when a
// signal arrived while waiting, or after heartbus_wake. What the events point to is valid until the next poll of this server, or
// until this thread frees it.
//
// HEARTBUS_CLOSED when the server has stopped and every event was taken, or when another thread has freed it,
// HEARTBUS_INVALID_ARGUMENT when `capacity` is 0 or another thread is polling.
heartbus_status heartbus_server_poll(heartbus_server *server,
                                     heartbus_event *events,
                                     size_t capacity,
                                     int32_t timeout_ms,
                                     size_t *count);

// Lists the nodes that are online, in pages of up to `capacity`; says in `count` how many this one has. `cursor` is 0 for the
// first page, is moved on by each call, and is 0 again after the last:
//
//     uint64_t cursor = 0;
//     do {
//         heartbus_server_nodes(server, &cursor, nodes, 100, &count);
//         ...
//     } while (cursor);
//
// A node that is online all the time is on exactly one page, whoever comes and goes meanwhile. The order means nothing. What
// the nodes point to is valid until this thread's next lookup, which the next page is too.
heartbus_status heartbus_server_nodes(const heartbus_server *server,
                                      uint64_t *cursor,
                                      heartbus_node *nodes,
                                      size_t capacity,
                                      size_t *count);

// Starts a group without clients. `config` is JSON text (see the first page); NULL with length 0 means all defaults. Free
// the group with heartbus_clients_free.
heartbus_status heartbus_clients_start(const char *config,
                                       size_t config_len,
                                       heartbus_clients **clients);

// Disconnects all clients politely and ends their thread, within 1.5 s. Poll until HEARTBUS_CLOSED to learn what happened
// until then. Calling it again is harmless.
heartbus_status heartbus_clients_stop(heartbus_clients *clients);

// Stops the clients if they still run, and ends their handle, as heartbus_server_free. NULL is fine.
heartbus_status heartbus_clients_free(heartbus_clients *clients);

// A descriptor for all clients of the group, as heartbus_server_fd.
heartbus_status heartbus_clients_fd(const heartbus_clients *clients, int *fd);

// Takes events of all clients of the group, as heartbus_server_poll.
//
// HEARTBUS_CLOSED when the clients were stopped and every event was taken, or when another thread has freed them.
heartbus_status heartbus_clients_poll(heartbus_clients *clients,
                                      heartbus_event *events,
                                      size_t capacity,
                                      int32_t timeout_ms,
                                      size_t *count);

// How many clients of the group are not finished.
heartbus_status heartbus_clients_count(const heartbus_clients *clients, size_t *count);

// What the clients of the group keep together of what their servers send, and of what waits to be sent, in bytes of memory:
// `total_buffer_bytes` of a client bounds it. What waits in the group's queue of events is not in it.
heartbus_status heartbus_clients_bytes_kept(const heartbus_clients *clients,
                                            size_t *bytes);

// Adds a client to the group, and says in `client_id` how events and the functions below call it. `config` is JSON text
// (see the first page). It connects in the background: events tell how that went.
//
// HEARTBUS_CONFIG when a setting is wrong, HEARTBUS_CLOSED when the group is stopped.
heartbus_status heartbus_client_connect(heartbus_clients *clients,
                                        const char *config,
                                        size_t config_len,
                                        uint64_t *client_id);

// Sends data to the server, on the channel of the client's first node when `channel_id` is 0 or less. Returns when it is
// queued; what is refused changes nothing, and no event tells of it.
//
// HEARTBUS_CLOSED when it is not connected and registered, HEARTBUS_LIMIT when its outbox is full or the payload longer
// than a frame may be, HEARTBUS_INVALID_ARGUMENT when the payload is not UTF-8 and the server speaks the protocol's
// version 1 only, which cannot carry it, HEARTBUS_NOT_FOUND for a channel id over 32 bits in version 2, or when the client
// has more nodes and none of them that channel.
heartbus_status heartbus_client_send(heartbus_clients *clients,
                                     uint64_t client_id,
                                     const char *payload,
                                     size_t payload_len,
                                     int64_t channel_id);

// Has a client carry one more node over its connection, and over each that follows: a gateway with its devices. `metadata` is
// JSON text, an object or a list; NULL with length 0 means none. HEARTBUS_EVENT_CLIENT_REGISTER tells when the server
// has registered it, after each connect anew; HEARTBUS_EVENT_CLIENT_NODE_LOST when it refused or took it away.
//
// HEARTBUS_INVALID_ARGUMENT when the id or the metadata is wrong, or the client has a node of this id already;
// HEARTBUS_LIMIT when it has max_nodes of them; HEARTBUS_CLOSED when it will not connect again.
heartbus_status heartbus_client_add_node(heartbus_clients *clients,
                                         uint64_t client_id,
                                         const char *node_id,
                                         size_t node_id_len,
                                         const char *metadata,
                                         size_t metadata_len);

// Signs an added node off. Nothing more is told of it, but for what waits to be polled; no event carries what was attached to it.
//
// HEARTBUS_NOT_FOUND when the client has no such node; HEARTBUS_INVALID_ARGUMENT for its first one, which stays as long as
// the client.
heartbus_status heartbus_client_remove_node(heartbus_clients *clients,
                                            uint64_t client_id,
                                            const char *node_id,
                                            size_t node_id_len);

// Sends data of one of the client's nodes, on the channel that it has at this moment. Channel ids are others after a
// reconnect, and may then be another node's; its node id never is.
//
// HEARTBUS_NOT_FOUND when the client has no such node; HEARTBUS_CLOSED when it is not registered at this moment; else as
// heartbus_client_send.
heartbus_status heartbus_client_send_from(heartbus_clients *clients,
                                          uint64_t client_id,
                                          const char *node_id,
                                          size_t node_id_len,
                                          const char *payload,
                                          size_t payload_len);

// Sends a heartbeat of one of the client's nodes. Needed where a gateway says which of its devices are alive: with
// "heartbeat_all" false the client's own heartbeats are its first node's, and each other node lives by these alone.
//
// As heartbus_client_send_from.
heartbus_status heartbus_client_heartbeat(heartbus_clients *clients,
                                          uint64_t client_id,
                                          const char *node_id,
                                          size_t node_id_len);

// Sends a PING, which the server answers with HEARTBUS_EVENT_CLIENT_PONG.
//
// HEARTBUS_CLOSED when it is not connected.
heartbus_status heartbus_client_ping(heartbus_clients *clients, uint64_t client_id);

// Says goodbye to the server and does not connect again. HEARTBUS_EVENT_CLIENT_FINISHED follows.
heartbus_status heartbus_client_disconnect(heartbus_clients *clients, uint64_t client_id);

// Looks a client up. What `client` points to is valid until this thread's next lookup.
//
// HEARTBUS_NOT_FOUND when there is none with this number, or not any more.
heartbus_status heartbus_client_info(const heartbus_clients *clients, uint64_t client_id, heartbus_client *client);

// Attaches a pointer of the program's to a client (`node_id` NULL with length 0, or that of its first node) or to a node that it was
// given by heartbus_client_add_node. Their events carry it from now on as user_data; NULL takes it away. It comes back with
// HEARTBUS_EVENT_CLIENT_FINISHED, that of an added node with HEARTBUS_EVENT_CLIENT_NODE_LOST, or when heartbus_client_remove_node
// returns. What added nodes still have when their client is finished is in no event.
//
// HEARTBUS_NOT_FOUND when the client has no such node, also when HEARTBUS_EVENT_CLIENT_NODE_LOST waits to be polled: the pointer is
// still the program's then.
heartbus_status heartbus_client_set_user_data(heartbus_clients *clients,
                                              uint64_t client_id,
                                              const char *node_id,
                                              size_t node_id_len,
                                              void *user_data);

// What heartbus_client_set_user_data has attached to this client or node; NULL when nothing is.
//
// HEARTBUS_NOT_FOUND as there.
heartbus_status heartbus_client_user_data(const heartbus_clients *clients,
                                          uint64_t client_id,
                                          const char *node_id,
                                          size_t node_id_len,
                                          void **user_data);

// Subscribes a client's first node to a topic, or with the levels + and # to all topics that match, over its connection and over each that
// follows: a topic goes on behind the last message that was told. `since` NULL begins with what is published from now on; otherwise it
// begins behind that position, with offset and epoch 0 with all that is kept, also where the client has subscribed already.
// HEARTBUS_EVENT_CLIENT_SUBSCRIBED tells the server's answer, HEARTBUS_EVENT_CLIENT_SUBSCRIBE_REFUSED that it will not.
//
// HEARTBUS_INVALID_ARGUMENT when it is no topic and no filter, or has wildcards and `since`; HEARTBUS_LIMIT when the client has
// max_subscriptions; HEARTBUS_CLOSED when it will not connect again.
heartbus_status heartbus_client_subscribe(heartbus_clients *clients,
                                          uint64_t client_id,
                                          const char *filter,
                                          size_t filter_len,
                                          const heartbus_position *since);

// Nothing more is told of a topic or a filter, but for what waits to be polled, and for what is on its way through a filter.
//
// HEARTBUS_NOT_FOUND when the client has not subscribed to it.
heartbus_status heartbus_client_unsubscribe(heartbus_clients *clients,
                                            uint64_t client_id,
                                            const char *filter,
                                            size_t filter_len);

// Publishes to a topic, in the name of the client's first node. Returns when it is queued. With a `number` other than 0 it is answered:
// HEARTBUS_EVENT_CLIENT_PUBLISHED or HEARTBUS_EVENT_CLIENT_PUBLISH_REFUSED has it, unless the connection ends before. Without one only a refusal
// is told.
//
// As heartbus_client_send; HEARTBUS_INVALID_ARGUMENT also when nothing can be published under this name.
heartbus_status heartbus_client_publish(heartbus_clients *clients,
                                        uint64_t client_id,
                                        const char *topic,
                                        size_t topic_len,
                                        const char *payload,
                                        size_t payload_len,
                                        uint32_t number);

// Behind which position a topic would go on, with this client or with another one: that of the last message that is polled or waits to be.
//
// HEARTBUS_NOT_FOUND when the client has not subscribed to it by its name, or there was no answer yet.
heartbus_status heartbus_client_position(const heartbus_clients *clients,
                                         uint64_t client_id,
                                         const char *topic,
                                         size_t topic_len,
                                         heartbus_position *position);

// The name of a heartbus_log_level, as heartbus_reason_name: "warning".
const char *heartbus_log_level_name(int32_t level);

// Opens a log of all servers and clients of this process, for messages of `level` (a heartbus_log_level) and above. There may be
// several: each gets every message that it is for, whoever polls the others. Without an open log messages go nowhere; the library
// never writes to stdout, stderr or a file. Up to 1,000 messages wait for poll; beyond, the oldest are dropped, and a record says how
// many. Close it with heartbus_log_free.
//
// HEARTBUS_INVALID_ARGUMENT for a number that is no level, HEARTBUS_LIMIT when 64 are open.
heartbus_status heartbus_log_start(int32_t level,
                                   heartbus_log **log);

// As heartbus_log_start, of one handle alone: a server, a group of clients or a connection to the bus socket, with what its threads
// and the calls with it have to say, from now on. It stays open when that handle is freed, and has nothing more then.
heartbus_status heartbus_log_start_for(const void *handle,
                                       int32_t level,
                                       heartbus_log **log);

// Closes a log, as heartbus_server_free a server; messages that wait are dropped. NULL is fine.
heartbus_status heartbus_log_free(heartbus_log *log);

// A descriptor that is readable while messages wait, as heartbus_server_fd.
heartbus_status heartbus_log_fd(const heartbus_log *log, int *fd);

// Takes log messages, as heartbus_server_poll takes events: each is a HEARTBUS_EVENT_LOG.
//
// HEARTBUS_CLOSED when another thread has closed it.
heartbus_status heartbus_log_poll(heartbus_log *log,
                                  heartbus_event *events,
                                  size_t capacity,
                                  int32_t timeout_ms,
                                  size_t *count);

// Connects to the bus socket of a server on this machine. `socket` is its absolute path, or the name of the server, which is
// then looked for in the usual places; NULL with length 0 means "HeartbeatServer", as a server of PHP is called. Every call
// waits for its answer for up to `timeout` seconds, 0.001 to 3600; calls of several threads take turns. When the server was
// started anew, the next call connects again. Free it with heartbus_bus_free.
//
// HEARTBUS_IO when nobody answers there or this user may not ask, HEARTBUS_PROTOCOL when it speaks another version; from every
// function below, too. HEARTBUS_TIMEOUT: the request may still be carried out.
heartbus_status heartbus_bus_connect(const char *socket,
                                     size_t socket_len,
                                     double timeout,
                                     heartbus_bus **bus);

// Closes the connection. NULL is fine.
heartbus_status heartbus_bus_free(heartbus_bus *bus);

// Sends data to several nodes on their main channels, and says for how many of them it was queued in `count`, which may be
// NULL. Who is not online, or has no room, is not counted.
heartbus_status heartbus_bus_send_many(heartbus_bus *bus,
                                       const heartbus_text *node_ids,
                                       size_t node_count,
                                       const char *payload,
                                       size_t payload_len,
                                       size_t *count);

// Lists the nodes that are online in pages, as heartbus_server_nodes. With a pattern or an address only those that match:
// `*` in the pattern stands for any text, `?` for one character; NULL with length 0 matches all. A page may be short, even
// empty, with more to come: only a cursor of 0 says that it was the last.
heartbus_status heartbus_bus_nodes(heartbus_bus *bus,
                                   const char *id_pattern,
                                   size_t id_pattern_len,
                                   const char *ip,
                                   size_t ip_len,
                                   uint64_t *cursor,
                                   heartbus_node *nodes,
                                   size_t capacity,
                                   size_t *count);

// As heartbus_bus_nodes, of nodes whose metadata has all members of a JSON object of 1 to 16 scalars. Numbers are equal by their
// values; null stands for a member that is null or not there.
//
// HEARTBUS_INVALID_ARGUMENT when `metadata` is no such object.
heartbus_status heartbus_bus_find_nodes(heartbus_bus *bus,
                                        const char *id_pattern,
                                        size_t id_pattern_len,
                                        const char *ip,
                                        size_t ip_len,
                                        const char *metadata,
                                        size_t metadata_len,
                                        uint64_t *cursor,
                                        heartbus_node *nodes,
                                        size_t capacity,
                                        size_t *count);

// Lets this program have what is published from now on to the topics that a filter matches, as HEARTBUS_EVENT_MESSAGE of
// heartbus_bus_poll: each publication once, however many filters match it, in the order of its topic. Returns when the server has said that
// it does, within the handle's timeout. The topic `$nodes` tells which nodes come and go. Subscriptions come back by themselves when the
// connection was lost: a topic goes on behind its last message, as far as the server keeps it, and of a filter HEARTBUS_EVENT_MISSED is told.
// Nothing waits for this program: when it does not poll, publications are dropped, which HEARTBUS_EVENT_MISSED tells. A filter that is there
// already stays.
//
// HEARTBUS_INVALID_ARGUMENT when it is no filter, HEARTBUS_LIMIT when there are too many topics, or of these, HEARTBUS_PROTOCOL when the
// server is older.
heartbus_status heartbus_bus_subscribe_topics(heartbus_bus *bus,
                                              const char *filter,
                                              size_t filter_len);

// As heartbus_bus_subscribe_topics for one topic, behind the position `since`, with offset and epoch 0 with all that is kept: what the server
// keeps comes first, once and in order, then what is published. HEARTBUS_EVENT_MISSED in front of it tells that something is missing. A topic
// that is there already begins anew there. `since` NULL is the same as heartbus_bus_subscribe_topics.
//
// HEARTBUS_INVALID_ARGUMENT also when it has wildcards and `since`.
heartbus_status heartbus_bus_subscribe_topics_since(heartbus_bus *bus,
                                                    const char *filter,
                                                    size_t filter_len,
                                                    const heartbus_position *since);

// Ends what heartbus_bus_subscribe_topics has begun. What waits already is still told.
//
// HEARTBUS_NOT_FOUND when there is no such filter.
heartbus_status heartbus_bus_unsubscribe_topics(heartbus_bus *bus, const char *filter, size_t filter_len);

// A descriptor that is readable while events wait for heartbus_bus_poll, as heartbus_server_fd is for heartbus_server_poll.
heartbus_status heartbus_bus_fd(const heartbus_bus *bus,
                                int *fd);

// As heartbus_server_poll, of what heartbus_bus_subscribe_topics has asked for. Other calls of this handle need not wait for it.
//
// HEARTBUS_CLOSED when another thread has freed it, HEARTBUS_INVALID_ARGUMENT when `capacity` is 0 or another thread is polling.
heartbus_status heartbus_bus_poll(heartbus_bus *bus,
                                  heartbus_event *events,
                                  size_t capacity,
                                  int32_t timeout_ms,
                                  size_t *count);

// Attaches a pointer of the program's to a server, a group of clients, a log or a connection to the bus socket; NULL takes it away.
// The library never follows it. Log messages about the handle carry it (see heartbus_event). It works until the handle is freed,
// and nothing is told of it then.
heartbus_status heartbus_set_user_data(void *handle,
                                       void *user_data);

// What heartbus_set_user_data has attached to this handle; NULL when nothing is.
heartbus_status heartbus_user_data(const void *handle, void **user_data);

// Makes a poll return: the one of another thread that waits at this moment, or else the next one, which then does not wait. It has
// the events that are there, mostly none: then `count` is 0. Until then the descriptor is readable. Several of them before a poll are
// like one. `handle` is a server, a group of clients, a log or a connection to the bus socket.
heartbus_status heartbus_wake(void *handle);

// Attaches a pointer of the program's to a node, which its events and lookups carry from now on as user_data; NULL takes it away. It
// belongs to this registration of the node: `channel_id` is the one that its events told, or 0 for whoever has the id at this moment.
// The event of its departure (or, where that was merged with a newer event of the same id, that one) is the last that carries
// it, and gives it back.
//
// HEARTBUS_NOT_FOUND when no such node is online or the channel is not its own, also when its departure waits to be polled: the
// pointer is still the program's then. HEARTBUS_INVALID_ARGUMENT when the server does not tell HEARTBUS_ON_LEFT.
heartbus_status heartbus_server_set_node_user_data(heartbus_server *server,
                                                   const char *node_id,
                                                   size_t node_id_len,
                                                   int64_t channel_id,
                                                   void *user_data);

// What heartbus_server_set_node_user_data has attached to this node; NULL when nothing is.
//
// HEARTBUS_NOT_FOUND as there.
heartbus_status heartbus_server_node_user_data(const heartbus_server *server,
                                               const char *node_id,
                                               size_t node_id_len,
                                               int64_t channel_id,
                                               void **user_data);

// Sends data to a node, on its main channel when `channel_id` is 0. HEARTBUS_OK means that it is queued, not that anybody has
// received it: what waits is lost when the connection ends. After any error nothing is queued and nothing else has changed.
//
// HEARTBUS_NOT_FOUND when no such node is online or the channel is not its own, HEARTBUS_LIMIT when its outbox is full or
// the payload longer than a frame may be, HEARTBUS_INVALID_ARGUMENT when the payload is not UTF-8 and the node speaks the
// protocol's version 1, which cannot carry it.
heartbus_status heartbus_server_send(heartbus_server *server,
                                     const char *node_id,
                                     size_t node_id_len,
                                     const char *payload,
                                     size_t payload_len,
                                     int64_t channel_id);

// As heartbus_server_send.
heartbus_status heartbus_bus_send(heartbus_bus *bus,
                                  const char *node_id,
                                  size_t node_id_len,
                                  const char *payload,
                                  size_t payload_len,
                                  int64_t channel_id);

// Sends data to every node that is online, and says for how many it was queued in `count`, which may be NULL: for all of them,
// less those whose outbox is full and those whose protocol cannot carry it. It goes out behind this call, and who comes, goes, or
// has no room any more at that moment may fare otherwise than it was counted: `data_out` and `data_out_refused` of the statistics
// say what became of it. The count is 0 where more broadcasts wait than may.
//
// HEARTBUS_LIMIT when the payload is longer than a frame may be, HEARTBUS_INVALID_ARGUMENT when it is not UTF-8 and all nodes
// speak the protocol's version 1, which cannot carry it. Nothing was sent then.
heartbus_status heartbus_server_broadcast(heartbus_server *server,
                                          const char *payload,
                                          size_t payload_len,
                                          size_t *count);

// As heartbus_server_broadcast.
heartbus_status heartbus_bus_broadcast(heartbus_bus *bus, const char *payload, size_t payload_len, size_t *count);

// Takes a node off the bus. Its connection is closed, unless it has other nodes.
//
// HEARTBUS_NOT_FOUND when no such node is online.
heartbus_status heartbus_server_disconnect(heartbus_server *server, const char *node_id, size_t node_id_len);

// As heartbus_server_disconnect.
heartbus_status heartbus_bus_disconnect(heartbus_bus *bus, const char *node_id, size_t node_id_len);

// Says that a node is alive, as a sign of life of its own would. No heartbeat is counted.
//
// HEARTBUS_NOT_FOUND when no such node is online.
heartbus_status heartbus_server_keep_alive(heartbus_server *server, const char *node_id, size_t node_id_len);

// As heartbus_server_keep_alive.
heartbus_status heartbus_bus_keep_alive(heartbus_bus *bus, const char *node_id, size_t node_id_len);

// Sets members of a node's metadata: `members` is the JSON text of an object. The node hears nothing of it. They stay as long as
// it is registered, unless it sends its own of the same name.
//
// HEARTBUS_NOT_FOUND when no such node is online, HEARTBUS_INVALID_ARGUMENT when `members` is no JSON object with members,
// HEARTBUS_LIMIT when the node's metadata would be longer than 65,536 bytes.
heartbus_status heartbus_server_set_metadata(heartbus_server *server,
                                             const char *node_id,
                                             size_t node_id_len,
                                             const char *members,
                                             size_t members_len);

// As heartbus_server_set_metadata.
heartbus_status heartbus_bus_set_metadata(heartbus_bus *bus,
                                          const char *node_id,
                                          size_t node_id_len,
                                          const char *members,
                                          size_t members_len);

// The heartbeat timeout in force, in seconds.
heartbus_status heartbus_server_heartbeat_timeout(const heartbus_server *server, double *seconds);

// As heartbus_server_heartbeat_timeout.
heartbus_status heartbus_bus_heartbeat_timeout(heartbus_bus *bus, double *seconds);

// Changes the heartbeat timeout: for nodes that register from now on, and for the others from their next check on, which the
// old one decides.
//
// HEARTBUS_CONFIG for less than a millisecond or more than a year.
heartbus_status heartbus_server_set_heartbeat_timeout(heartbus_server *server,
                                                      double seconds);

// As heartbus_server_set_heartbeat_timeout.
heartbus_status heartbus_bus_set_heartbeat_timeout(heartbus_bus *bus, double seconds);

// Accepts no more connections: the port is free from now on. Open ones go on until they end or the server is stopped.
heartbus_status heartbus_server_close_door(heartbus_server *server);

// As heartbus_server_close_door.
heartbus_status heartbus_bus_close_door(heartbus_bus *bus);

// Looks a node up by its id. What `node` points to is valid until this thread's next lookup.
//
// HEARTBUS_NOT_FOUND when no such node is online.
heartbus_status heartbus_server_node(const heartbus_server *server,
                                     const char *node_id,
                                     size_t node_id_len,
                                     heartbus_node *node);

// As heartbus_server_node.
heartbus_status heartbus_bus_node(heartbus_bus *bus, const char *node_id, size_t node_id_len, heartbus_node *node);

// Looks up the node that a channel belongs to, as heartbus_server_node.
heartbus_status heartbus_server_node_of_channel(const heartbus_server *server, int64_t channel_id, heartbus_node *node);

// As heartbus_server_node_of_channel.
heartbus_status heartbus_bus_node_of_channel(heartbus_bus *bus, int64_t channel_id, heartbus_node *node);

// Looks up the node of a connection, of several the one that registered last, as heartbus_server_node. Looks at every node.
heartbus_status heartbus_server_node_of_connection(const heartbus_server *server,
                                                   uint64_t connection_id,
                                                   heartbus_node *node);

// As heartbus_server_node_of_connection.
heartbus_status heartbus_bus_node_of_connection(heartbus_bus *bus, uint64_t connection_id, heartbus_node *node);

// Lists up to `capacity` open connections, in no particular order, and says in `count` how many. Asks the I/O threads, which
// takes at most half a second. What the connections point to is valid until this thread's next lookup. Over the bus
// socket fewer where the answer would grow long.
heartbus_status heartbus_server_connections(const heartbus_server *server,
                                            heartbus_connection *connections,
                                            size_t capacity,
                                            size_t *count);

// As heartbus_server_connections.
heartbus_status heartbus_bus_connections(heartbus_bus *bus,
                                         heartbus_connection *connections,
                                         size_t capacity,
                                         size_t *count);

// Writes up to `capacity` numbers into the caller's array, always in the same order, and says in `count` how many there are,
// which may be more than fit. Counters run from the start of the server. Later versions add numbers, and keep the names of
// those there are. Works after the server has stopped, too.
heartbus_status heartbus_server_stats(const heartbus_server *server,
                                      heartbus_stat *stats,
                                      size_t capacity,
                                      size_t *count);

// As heartbus_server_stats.
heartbus_status heartbus_bus_stats(heartbus_bus *bus, heartbus_stat *stats, size_t capacity, size_t *count);

// The server's metrics under the names of the PHP library, as the text that Prometheus reads. Valid until this thread's next
// lookup.
heartbus_status heartbus_server_metrics(const heartbus_server *server,
                                        const char **text,
                                        size_t *text_len);

// As heartbus_server_metrics.
heartbus_status heartbus_bus_metrics(heartbus_bus *bus, const char **text, size_t *text_len);

// Publishes to a topic: to all who have subscribed to it, less the nodes named in `except`, an array of `except_count` ids, and to
// what is kept of it, where the key `history` says so. What became of it is written to `publication`, which may be NULL; the
// subscriptions of `except` are counted there. It goes out behind this call; a subscriber whose outbox is full misses it alone, and so
// does one whose protocol cannot carry it.
//
// HEARTBUS_INVALID_ARGUMENT when nothing can be published under this name: a topic has 1 to 255 bytes of UTF-8 without control
// characters, no level that is + or #, and those that begin with $ belong to the server. HEARTBUS_LIMIT when the payload is longer
// than a frame may be, there are too many topics, or too much waits for subscribers. Nobody gets it then.
heartbus_status heartbus_server_publish(heartbus_server *server,
                                        const char *topic,
                                        size_t topic_len,
                                        const char *payload,
                                        size_t payload_len,
                                        const heartbus_text *except,
                                        size_t except_count,
                                        heartbus_publication *publication);

// As heartbus_server_publish.
heartbus_status heartbus_bus_publish(heartbus_bus *bus,
                                     const char *topic,
                                     size_t topic_len,
                                     const char *payload,
                                     size_t payload_len,
                                     const heartbus_text *except,
                                     size_t except_count,
                                     heartbus_publication *publication);

// As heartbus_server_broadcast, to all nodes but those named in `except`, an array of `except_count` ids.
heartbus_status heartbus_server_broadcast_except(heartbus_server *server,
                                                 const char *payload,
                                                 size_t payload_len,
                                                 const heartbus_text *except,
                                                 size_t except_count,
                                                 size_t *count);

// As heartbus_server_broadcast_except.
heartbus_status heartbus_bus_broadcast_except(heartbus_bus *bus,
                                              const char *payload,
                                              size_t payload_len,
                                              const heartbus_text *except,
                                              size_t except_count,
                                              size_t *count);

// How many have subscribed to a topic, by its name and through filters that match it.
//
// HEARTBUS_INVALID_ARGUMENT when it is no topic.
heartbus_status heartbus_server_subscribers(const heartbus_server *server,
                                            const char *topic,
                                            size_t topic_len,
                                            size_t *count);

// As heartbus_server_subscribers.
heartbus_status heartbus_bus_subscribers(heartbus_bus *bus, const char *topic, size_t topic_len, size_t *count);

// Lists the topics that somebody has subscribed to by name or of which something is kept, in pages as heartbus_server_nodes. What
// they point to is valid until this thread's next lookup. A page has up to 4,000 topics, however many there is room for.
heartbus_status heartbus_server_topics(const heartbus_server *server,
                                       uint64_t *cursor,
                                       heartbus_topic *topics,
                                       size_t capacity,
                                       size_t *count);

// As heartbus_server_topics.
heartbus_status heartbus_bus_topics(heartbus_bus *bus,
                                    uint64_t *cursor,
                                    heartbus_topic *topics,
                                    size_t capacity,
                                    size_t *count);

// Puts a node into a topic: it gets the topic's messages without having asked, until it leaves or is taken out.
//
// HEARTBUS_NOT_FOUND when no such node is online, HEARTBUS_INVALID_ARGUMENT when it is no topic, HEARTBUS_LIMIT when there are too
// many topics.
heartbus_status heartbus_server_join(heartbus_server *server,
                                     const char *node_id,
                                     size_t node_id_len,
                                     const char *topic,
                                     size_t topic_len);

// As heartbus_server_join.
heartbus_status heartbus_bus_join(heartbus_bus *bus,
                                  const char *node_id,
                                  size_t node_id_len,
                                  const char *topic,
                                  size_t topic_len);

// Takes a node out of a topic, or ends its subscription to a filter, whoever has made it. One that is not there is no error.
//
// HEARTBUS_NOT_FOUND when no such node is online, HEARTBUS_INVALID_ARGUMENT when it is no filter.
heartbus_status heartbus_server_leave(heartbus_server *server,
                                      const char *node_id,
                                      size_t node_id_len,
                                      const char *filter,
                                      size_t filter_len);

// As heartbus_server_leave.
heartbus_status heartbus_bus_leave(heartbus_bus *bus,
                                   const char *node_id,
                                   size_t node_id_len,
                                   const char *filter,
                                   size_t filter_len);

// Lists the ids of the nodes that are in a topic by its name, whether they have subscribed or were put there, in pages as
// heartbus_server_topics. Asks the I/O threads, which takes at most half a second.
//
// HEARTBUS_INVALID_ARGUMENT when it is no topic.
heartbus_status heartbus_server_members(const heartbus_server *server,
                                        const char *topic,
                                        size_t topic_len,
                                        uint64_t *cursor,
                                        heartbus_text *node_ids,
                                        size_t capacity,
                                        size_t *count);

// As heartbus_server_members.
heartbus_status heartbus_bus_members(heartbus_bus *bus,
                                     const char *topic,
                                     size_t topic_len,
                                     uint64_t *cursor,
                                     heartbus_text *node_ids,
                                     size_t capacity,
                                     size_t *count);

// Writes up to `capacity` topics and filters that a node has subscribed to or was put into, in no particular order, and says in
// `count` how many there are, which may be more than fit. What they point to is valid until this thread's next lookup. Its I/O
// thread is asked, as in heartbus_server_members.
//
// HEARTBUS_NOT_FOUND when no such node is online.
heartbus_status heartbus_server_topics_of(const heartbus_server *server,
                                          const char *node_id,
                                          size_t node_id_len,
                                          heartbus_text *filters,
                                          size_t capacity,
                                          size_t *count);

// As heartbus_server_topics_of.
heartbus_status heartbus_bus_topics_of(heartbus_bus *bus,
                                       const char *node_id,
                                       size_t node_id_len,
                                       heartbus_text *filters,
                                       size_t capacity,
                                       size_t *count);

// Answers a question, by its number. A HEARTBUS_EVENT_SUBSCRIBE_BEFORE or HEARTBUS_EVENT_PUBLISH_BEFORE: 1 allows what it asks for, 0 refuses
// it with ERROR 403. A
// HEARTBUS_EVENT_AUTHENTICATE: 1 registers the node, which takes its id over where that is online on another
// connection; 0 refuses it with ERROR 401, and closes its connection unless that has other nodes. `metadata` is the JSON text of an
// object, of which the members become the node's metadata from the beginning, as with heartbus_server_set_metadata; NULL with length
// 0: none. From any thread, at once or later.
//
// HEARTBUS_NOT_FOUND when it was answered already, or is not waited for any more. HEARTBUS_INVALID_ARGUMENT when `metadata` is no
// JSON object with members, or there is some and the answer is 0; HEARTBUS_LIMIT when it is longer than 65,536 bytes: it may be
// answered again then.
heartbus_status heartbus_server_decide(heartbus_server *server,
                                       uint32_t number,
                                       int32_t allows,
                                       const char *metadata,
                                       size_t metadata_len);

// As heartbus_server_decide.
heartbus_status heartbus_bus_decide(heartbus_bus *bus,
                                    uint32_t number,
                                    int32_t allows,
                                    const char *metadata,
                                    size_t metadata_len);

// Answers a HEARTBUS_EVENT_SUBSCRIBE_BEFORE: it may subscribe to these `filter_count` topics and filters instead of those that it asked
// for. Of those it did ask for it is answered as ever, or with ERROR 403 where they are not among these; into others it is put, as by
// heartbus_server_join.
//
// As heartbus_server_decide; HEARTBUS_INVALID_ARGUMENT when one of them is neither a topic nor a filter, or there is none.
heartbus_status heartbus_server_decide_topics(heartbus_server *server,
                                              uint32_t number,
                                              const heartbus_text *filters,
                                              size_t filter_count);

// As heartbus_server_decide_topics.
heartbus_status heartbus_bus_decide_topics(heartbus_bus *bus,
                                           uint32_t number,
                                           const heartbus_text *filters,
                                           size_t filter_count);

// Answers a HEARTBUS_EVENT_PUBLISH_BEFORE: this is published instead of what was to be. Who wanted to publish is answered as ever.
//
// As heartbus_server_decide; HEARTBUS_INVALID_ARGUMENT when nothing can be published under this name, HEARTBUS_LIMIT when the payload is
// longer than a frame may be.
heartbus_status heartbus_server_decide_publication(heartbus_server *server,
                                                   uint32_t number,
                                                   const char *topic,
                                                   size_t topic_len,
                                                   const char *payload,
                                                   size_t payload_len);

// As heartbus_server_decide_publication.
heartbus_status heartbus_bus_decide_publication(heartbus_bus *bus,
                                                uint32_t number,
                                                const char *topic,
                                                size_t topic_len,
                                                const char *payload,
                                                size_t payload_len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HEARTBUS_H */
