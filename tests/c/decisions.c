/*
 * What a C program decides before it happens: which nodes may register; and what it is told of who comes and subscribes. The peers are raw
 * sockets, which show what they are told.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { HEARTBEAT = 1, HEARTBEAT_ANSWER = 2, REGISTER = 6, ERROR = 8, SUBSCRIBE = 9, UNSUBSCRIBE = 10, PUBLISH = 11, MESSAGE = 12 };

static heartbus_server *server;
static heartbus_bus *bus;
static uint16_t port;

static bool exactly(int fd, unsigned char *to, size_t len) {
    for (size_t got = 0; got < len;) {
        ssize_t more = recv(fd, to + got, len - got, 0);
        if (more == 0 || (more < 0 && errno != EINTR))
            return false;
        got += more > 0 ? (size_t)more : 0;
    }
    return true;
}

/* `payload` is written as JSON has it inside of a string. */
static void say(int fd, int type, const char *payload) {
    char body[512], frame[600];
    int len = snprintf(body, sizeof body, "{\"channel_id\":0,\"payload\":\"%s\"}", payload);
    const char head[] = {(char)0xab, 0x12, (char)type, 0, 0, (char)(len >> 8), (char)len};
    memcpy(frame, head, sizeof head);
    memcpy(frame + sizeof head, body, (size_t)len);
    if (send(fd, frame, sizeof head + (size_t)len, MSG_NOSIGNAL) != (ssize_t)(sizeof head) + len)
        check(false, "a frame is sent whole");
}

/* The next frame is of this type and has this text in it. */
static bool hears(int fd, int type, const char *text) {
    char body[4096];
    unsigned char head[7] = {0};
    size_t len = 0;
    bool came = exactly(fd, head, sizeof head) && (len = (size_t)head[5] << 8 | head[6]) < sizeof body && exactly(fd, (unsigned char *)body, len);
    body[came ? len : 0] = 0;
    if (!came || head[2] != type || !strstr(body, text))
        printf("        a frame of type %d: %s\n", head[2], body);
    return came && head[2] == type && strstr(body, text);
}

static bool has_ended(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) == 0;
}

static int connects(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval longest = {.tv_sec = LONGEST_WAIT_MS / 1000};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        check(false, "a peer connects");
    return fd;
}

static int asks_for(const char *id, const char *metadata) {
    int fd = connects();
    char registration[256];
    snprintf(registration, sizeof registration, "{\\\"node_id\\\":\\\"%s\\\",\\\"metadata\\\":%s}", id, metadata);
    say(fd, REGISTER, registration);
    return fd;
}

/* What the program is asked next; of type 0 when it is nothing. */
static heartbus_event question(void) {
    heartbus_event event;
    size_t count = 0;
    memset(&event, 0, sizeof event);
    for (long long until = now_ms() + LONGEST_WAIT_MS; count == 0 && now_ms() < until;)
        if (heartbus_server_poll(server, &event, 1, 100, &count) != HEARTBUS_OK)
            break;
    return event;
}

static bool is_text(const char *text, size_t len, const char *wanted) { return text && len == strlen(wanted) && memcmp(text, wanted, len) == 0; }

static bool is_online(const char *id) {
    heartbus_node node;
    return heartbus_server_node(server, id, strlen(id), &node) == HEARTBUS_OK;
}

static long long counted(const char *name) {
    static heartbus_stat all[256];
    size_t count = 0;
    if (heartbus_server_stats(server, all, 256, &count) == HEARTBUS_OK)
        for (size_t i = 0; i < count && i < 256; i++)
            if (strcmp(all[i].name, name) == 0)
                return (long long)all[i].value;
    return -1;
}

static void a_node_waits_until_the_program_has_decided(void) {
    int fd = asks_for("a", "{\\\"token\\\":\\\"x\\\"}");
    heartbus_event event = question();
    check(event.type == HEARTBUS_EVENT_AUTHENTICATE && strcmp(heartbus_event_name(event.type), "authenticate") == 0 && event.number != 0,
          "the program is asked, by number %u", event.number);
    check(is_text(event.node_id, event.node_id_len, "a") && is_text(event.payload, event.payload_len, "{\"token\":\"x\"}") &&
              is_text(event.ip, event.ip_len, "127.0.0.1") && event.port != 0 && event.connection_id != 0,
          "about a node, what it says of itself, and where it comes from");
    check(!is_online("a"), "which is not there yet");
    check_refused(heartbus_server_decide(server, event.number, 1, TEXT("[1]")), HEARTBUS_INVALID_ARGUMENT, "JSON object with members", "metadata is an object");
    check_refused(heartbus_server_decide(server, event.number, 0, TEXT("{\"a\":1}")), HEARTBUS_INVALID_ARGUMENT, "nodes that may register", "and of those who come");
    check_refused(heartbus_server_decide(server, event.number, 1, TEXT("\xff")), HEARTBUS_INVALID_ARGUMENT, "metadata is not UTF-8", "and text");
    check(heartbus_server_decide(server, event.number, 1, TEXT("{\"user\":7}")) == HEARTBUS_OK, "after a mistake it may be answered again");
    check(hears(fd, REGISTER, "\\\"a\\\""), "then the node is told");
    heartbus_node node;
    check(heartbus_server_node(server, TEXT("a"), &node) == HEARTBUS_OK && is_text(node.metadata, node.metadata_len, "{\"token\":\"x\",\"user\":7}"),
          "and has what the program says of it");
    check_refused(heartbus_server_decide(server, event.number, 0, NULL, 0), HEARTBUS_NOT_FOUND, "was answered", "nothing is decided twice");
    check(counted("decisions") == 1 && counted("decisions_ignored") == 1, "which is counted");
    say(fd, HEARTBEAT, "{}");
    check(hears(fd, HEARTBEAT_ANSWER, ""), "it goes on");

    int stranger = asks_for("a", "[]");
    event = question();
    say(fd, HEARTBEAT, "{}");
    check(hears(fd, HEARTBEAT_ANSWER, ""), "a stranger who asks for its id does not disturb it");
    /* From another process, as it may be. */
    check(heartbus_bus_decide(bus, event.number, 0, NULL, 0) == HEARTBUS_OK && hears(stranger, ERROR, "\\\"code\\\":401") && has_ended(stranger),
          "and is told 401, and closed");
    say(fd, HEARTBEAT, "{}");
    check(hears(fd, HEARTBEAT_ANSWER, "") && counted("nodes_replaced") == 0, "the node is still there");
    int moved = asks_for("a", "[]");
    event = question();
    check(heartbus_server_decide(server, event.number, 1, NULL, 0) == HEARTBUS_OK && hears(moved, REGISTER, "") && hears(fd, ERROR, "\\\"code\\\":409"),
          "whom the program lets in takes the id over");
    close(fd), close(stranger), close(moved);
}

static void the_program_decides_on_topics(void) {
    check(heartbus_server_subscribe(server, HEARTBUS_ON_SUBSCRIBE_BEFORE | HEARTBUS_ON_PUBLISH_BEFORE) == HEARTBUS_OK, "the program decides on topics instead");
    int fd = asks_for("n", "[]");
    check(hears(fd, REGISTER, ""), "everybody may come");
    say(fd, SUBSCRIBE, "{\\\"filter\\\":\\\"a/+\\\"}");
    heartbus_event event = question();
    check(event.type == HEARTBUS_EVENT_SUBSCRIBE_BEFORE && strcmp(heartbus_event_name(event.type), "subscribe_before") == 0 &&
              is_text(event.payload, event.payload_len, "a/+\n") && is_text(event.node_id, event.node_id_len, "n") && is_text(event.ip, event.ip_len, "127.0.0.1"),
          "a node asks for a filter");
    const heartbus_text wrong[] = {{TEXT("a/#/b")}}, topics[] = {{TEXT("a/+")}, {TEXT("own")}};
    check_refused(heartbus_server_decide_topics(server, event.number, wrong, 1), HEARTBUS_INVALID_ARGUMENT, "topics or filters", "it may get filters");
    check_refused(heartbus_server_decide_topics(server, event.number, topics, 0), HEARTBUS_INVALID_ARGUMENT, "filter_count is 0", "one at least");
    check_refused(heartbus_server_decide(server, event.number, 1, TEXT("{\"a\":1}")), HEARTBUS_INVALID_ARGUMENT, "something else", "and no metadata");
    check(heartbus_server_decide_topics(server, event.number, topics, 2) == HEARTBUS_OK && hears(fd, SUBSCRIBE, "recovered"), "it is answered what it asked for");
    size_t count = 0;
    check(heartbus_server_subscribers(server, TEXT("own"), &count) == HEARTBUS_OK && count == 1, "and put into the other");
    say(fd, SUBSCRIBE, "{\\\"filter\\\":\\\"secret\\\"}");
    event = question();
    check(heartbus_server_decide(server, event.number, 0, NULL, 0) == HEARTBUS_OK && hears(fd, ERROR, "\\\"code\\\":403"), "a refusal is an ERROR");

    say(fd, PUBLISH, "{\\\"topic\\\":\\\"a/b\\\",\\\"data\\\":\\\"hi\\\"}");
    event = question();
    check(event.type == HEARTBUS_EVENT_PUBLISH_BEFORE && is_text(event.text, event.text_len, "a/b") && is_text(event.payload, event.payload_len, "hi") &&
              is_text(event.node_id, event.node_id_len, "n"),
          "a node wants to publish");
    check_refused(heartbus_server_decide_publication(server, event.number, TEXT("a/#"), TEXT("x")), HEARTBUS_INVALID_ARGUMENT, "under this name", "a filter is no topic");
    check(heartbus_bus_decide_publication(bus, event.number, TEXT("own"), TEXT("changed")) == HEARTBUS_OK && hears(fd, MESSAGE, "changed"), "and publishes something else");
    say(fd, PUBLISH, "{\\\"topic\\\":\\\"a/b\\\",\\\"data\\\":\\\"hi\\\",\\\"id\\\":5}");
    event = question();
    check(heartbus_bus_decide(bus, event.number, 0, NULL, 0) == HEARTBUS_OK && hears(fd, ERROR, "\\\"id\\\":5"), "or nothing");
    check(heartbus_server_publish(server, TEXT("own"), TEXT("mine"), NULL, 0, NULL) == HEARTBUS_OK && hears(fd, MESSAGE, "mine"), "what the program publishes is its own");
    close(fd);
}

static void *decides(void *number) {
    return heartbus_server_decide(server, *(uint32_t *)number, 1, NULL, 0) == HEARTBUS_OK ? number : NULL;
}

static void any_thread_may_answer(void) {
    int fd = asks_for("t", "[]");
    heartbus_event event = question();
    uint32_t number = event.number;
    pthread_t thread;
    void *done = NULL;
    check(pthread_create(&thread, NULL, decides, &number) == 0 && pthread_join(thread, &done) == 0 && done == &number && hears(fd, REGISTER, ""),
          "any thread may answer");
    close(fd);
}

static void who_is_not_answered_is_refused(void) {
    int fd = asks_for("late", "[]");
    heartbus_event event = question();
    check(hears(fd, ERROR, "\\\"code\\\":401") && has_ended(fd), "without an answer it is 401 as well");
    check_refused(heartbus_server_decide(server, event.number, 1, NULL, 0), HEARTBUS_NOT_FOUND, "not waited for", "an answer behind that comes too late");
    check(counted("decisions_timed_out") == 1 && counted("decisions_ignored") == 1 && !is_online("late"), "and is counted");
    close(fd);
}

static void who_asks_for_nothing_is_not_asked(void) {
    check(heartbus_server_subscribe(server, HEARTBUS_ON_NOTHING) == HEARTBUS_OK, "the program decides no more");
    int fd = asks_for("free", "[]");
    check(hears(fd, REGISTER, "") && is_online("free"), "and everybody may come");
    close(fd);
}

static void start(double decision_timeout) {
    char path[64], config[256];
    snprintf(path, sizeof path, "/tmp/heartbus-decisions-%d.sock", (int)getpid());
    snprintf(config, sizeof config, "{\"host\":\"127.0.0.1\",\"port\":0,\"bus\":\"%s\",\"decision_timeout\":%g}", path, decision_timeout);
    check(heartbus_server_start(config, strlen(config), HEARTBUS_ON_AUTHENTICATE, &server) == HEARTBUS_OK && heartbus_server_port(server, &port) == HEARTBUS_OK &&
              heartbus_bus_connect(path, strlen(path), 10, &bus) == HEARTBUS_OK,
          "a server starts that asks the program whom to let in");
}

static void stop(void) {
    heartbus_bus_free(bus);
    heartbus_server_free(server);
}

static bool is_about(const heartbus_event *event, heartbus_event_type type, const char *text, uint64_t connection_id) {
    return event->type == type && is_text(event->text, event->text_len, text) && event->connection_id == connection_id &&
           is_text(event->ip, event->ip_len, "127.0.0.1") && event->port != 0;
}

static void who_comes_and_subscribes_is_told_of(void) {
    const char *config = "{\"host\":\"127.0.0.1\",\"port\":0,\"websocket\":true,\"firetower_conventions\":false}";
    unsigned events = HEARTBUS_ON_CONNECT | HEARTBUS_ON_SUBSCRIBE | HEARTBUS_ON_UNSUBSCRIBE | HEARTBUS_ON_CLOSE;
    check(heartbus_server_start(config, strlen(config), events, &server) == HEARTBUS_OK && heartbus_server_port(server, &port) == HEARTBUS_OK,
          "a server starts that tells who comes and subscribes");
    int fd = asks_for("n", "[]");
    heartbus_event event = question();
    uint64_t id = event.connection_id;
    check(id != 0 && is_about(&event, HEARTBUS_EVENT_CONNECT, "tcp", id), "a connection may speak");
    hears(fd, REGISTER, "");
    say(fd, SUBSCRIBE, "{\\\"filter\\\":\\\"a/+\\\"}");
    event = question();
    check(is_about(&event, HEARTBUS_EVENT_SUBSCRIBE, "a/+", id) && is_text(event.node_id, event.node_id_len, "n") && event.channel_id > 0 && event.count == 1 &&
              !event.payload && strcmp(heartbus_event_name(event.type), "subscribe") == 0,
          "a node has subscribed");
    check(heartbus_server_join(server, TEXT("n"), TEXT("own")) == HEARTBUS_OK, "the program puts it into a topic");
    event = question();
    check(is_about(&event, HEARTBUS_EVENT_SUBSCRIBE, "own", id), "which is told as well");
    say(fd, UNSUBSCRIBE, "{\\\"filter\\\":\\\"a/+\\\"}");
    event = question();
    check(is_about(&event, HEARTBUS_EVENT_UNSUBSCRIBE, "a/+", id) && is_text(event.node_id, event.node_id_len, "n") &&
              strcmp(heartbus_event_name(event.type), "unsubscribe") == 0,
          "and no longer");
    close(fd);
    event = question();
    check(event.type == HEARTBUS_EVENT_CLOSE && event.connection_id == id && is_text(event.ip, event.ip_len, "127.0.0.1") && !event.payload,
          "a node that leaves is told of by that alone");

    const char *handshake = "GET /?user_id=u HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    const char *wish = "{\"type\":\"subscribe\",\"topic\":\"x\",\"data\":\"\"}";
    unsigned char head[6] = {0x81, (unsigned char)(0x80 | strlen(wish))};
    fd = connects();
    check(send(fd, handshake, strlen(handshake), MSG_NOSIGNAL) > 0, "a browser shakes hands");
    event = question();
    id = event.connection_id;
    check(is_about(&event, HEARTBUS_EVENT_CONNECT, "websocket", id), "which is when it may speak");
    check(send(fd, head, sizeof head, MSG_NOSIGNAL) > 0 && send(fd, wish, strlen(wish), MSG_NOSIGNAL) > 0, "it subscribes");
    event = question();
    check(is_about(&event, HEARTBUS_EVENT_SUBSCRIBE, "x", id) && !event.node_id && is_text(event.payload, event.payload_len, "u"), "a user is no node");
    close(fd);
    event = question();
    check(is_about(&event, HEARTBUS_EVENT_UNSUBSCRIBE, "x", id), "what it had subscribed to ends");
    event = question();
    check(event.type == HEARTBUS_EVENT_CLOSE && event.connection_id == id && is_text(event.payload, event.payload_len, "u"), "before its connection");
    heartbus_server_free(server);
}

int main(void) {
    /* Longer than this takes, wherever it runs. */
    start(600);
    a_node_waits_until_the_program_has_decided();
    any_thread_may_answer();
    the_program_decides_on_topics();
    who_asks_for_nothing_is_not_asked();
    stop();
    start(0.2);
    who_is_not_answered_is_refused();
    stop();
    who_comes_and_subscribes_is_told_of();
    return summary();
}
