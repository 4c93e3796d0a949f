/*
 * Topics from C, asked for in the server's process and over its bus socket: both must say the same. The nodes are raw sockets, which
 * show what arrives.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { REGISTER = 6, DATA = 3, PING = 4, PONG = 5, SUBSCRIBE = 9, PUBLISH = 11, MESSAGE = 12 };

static heartbus_server *server;
static heartbus_bus *bus;
static uint16_t port;
static bool over_bus;

/* The same call of either handle. */
#define ASK(name, ...) (over_bus ? heartbus_bus_##name(bus, __VA_ARGS__) : heartbus_server_##name(server, __VA_ARGS__))

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

/* The body of the next frame, which must be of this type. */
static const char *hear(int fd, int type) {
    static char body[4096];
    unsigned char head[7];
    size_t len = 0;
    strcpy(body, "nothing");
    if (exactly(fd, head, sizeof head) && (len = (size_t)head[5] << 8 | head[6]) < sizeof body && exactly(fd, (unsigned char *)body, len))
        body[len] = 0;
    if (head[2] != type)
        check(false, "a frame of type %d came instead of %d: %s", head[2], type, body);
    return body;
}

static bool heard(int fd, int type, const char *text) {
    const char *body = hear(fd, type);
    if (!strstr(body, text))
        printf("        %s\n", body);
    return strstr(body, text) != NULL;
}

static int node(const char *id) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval longest = {.tv_sec = LONGEST_WAIT_MS / 1000};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        check(false, "a node connects");
    char registration[128];
    snprintf(registration, sizeof registration, "{\\\"node_id\\\":\\\"%s\\\",\\\"metadata\\\":[]}", id);
    say(fd, REGISTER, registration);
    hear(fd, REGISTER);
    return fd;
}

/* A PING sent now is the next thing that is answered. */
static bool is_silent(int fd) {
    say(fd, PING, "");
    return strcmp(hear(fd, PONG), "nothing") != 0;
}

static bool is_text(heartbus_text text, const char *wanted) {
    return text.len == strlen(wanted) && memcmp(text.text, wanted, text.len) == 0 && text.text[text.len] == 0;
}

static void publications_reach_subscribers(void) {
    int a = node("a"), b = node("b"), c = node("c");
    say(a, SUBSCRIBE, "{\\\"filter\\\":\\\"chat/hall\\\"}");
    hear(a, SUBSCRIBE);
    say(b, SUBSCRIBE, "{\\\"filter\\\":\\\"chat/+\\\"}");
    hear(b, SUBSCRIBE);
    size_t count = 0;
    check(ASK(subscribers, TEXT("chat/hall"), &count) == HEARTBUS_OK && count == 2, "two have subscribed, one of them by a filter");
    check(ASK(subscribers, TEXT("chat/attic"), &count) == HEARTBUS_OK && count == 1, "to another topic the filter alone");
    heartbus_publication first, second;
    check(ASK(publish, TEXT("chat/hall"), TEXT("hello"), NULL, 0, &first) == HEARTBUS_OK && first.reach == 2 && first.offset == 1 && first.epoch > 0,
          "a publication says for how many it is, and where it stands");
    check(heard(a, MESSAGE, "hello") && heard(b, MESSAGE, "hello"), "and reaches both");
    heartbus_text except[] = {{TEXT("b")}, {TEXT("nobody")}};
    check(ASK(publish, TEXT("chat/hall"), TEXT("again"), except, 2, &second) == HEARTBUS_OK && second.offset == 2 && second.epoch == first.epoch,
          "the next one stands behind it");
    check(heard(a, MESSAGE, "again") && is_silent(b), "and leaves out who is named");
    check(ASK(publish, TEXT("news"), TEXT("x"), NULL, 0, &second) == HEARTBUS_OK && second.reach == 0 && second.offset == 0 && second.epoch == 0,
          "where nobody listens and nothing is kept there are no positions");
    check(ASK(publish, TEXT("kept/x"), TEXT("y"), NULL, 0, &second) == HEARTBUS_OK && second.reach == 0 && second.offset > 0 && second.epoch > 0,
          "where something is kept there are");
    check(ASK(publish, TEXT("chat/hall"), TEXT("bye"), NULL, 0, NULL) == HEARTBUS_OK && heard(a, MESSAGE, "bye") && heard(b, MESSAGE, "bye"),
          "nobody has to want to know");
    check(ASK(broadcast_except, TEXT("to all"), except, 2, &count) == HEARTBUS_OK && count == 2 && heard(a, DATA, "to all") && heard(c, DATA, "to all") && is_silent(b),
          "a broadcast leaves out who is named as well");
    check(ASK(broadcast_except, TEXT("to all"), NULL, 0, NULL) == HEARTBUS_OK && heard(b, DATA, "to all"), "or nobody");

    check_refused(ASK(publish, TEXT("a/#"), TEXT("x"), NULL, 0, &second), HEARTBUS_INVALID_ARGUMENT, "no level that is + or #", "a filter is no topic");
    check_refused(ASK(publish, TEXT("$nodes"), TEXT("x"), NULL, 0, NULL), HEARTBUS_INVALID_ARGUMENT, "belong to the server", "nor is one of the server's");
    check_refused(ASK(publish, TEXT("\xff"), TEXT("x"), NULL, 0, NULL), HEARTBUS_INVALID_ARGUMENT, "topic is not UTF-8", "nor are bytes");
    check_refused(ASK(publish, NULL, 0, TEXT("x"), NULL, 0, NULL), HEARTBUS_INVALID_ARGUMENT, "at least one byte", "nor is nothing");
    check_refused(ASK(publish, TEXT("t"), TEXT("x"), NULL, 1, NULL), HEARTBUS_INVALID_ARGUMENT, "except is NULL", "an array has a place");
    check_refused(ASK(subscribers, TEXT("+"), &count), HEARTBUS_INVALID_ARGUMENT, "no level", "a filter has no subscribers");
    check_refused(ASK(subscribers, TEXT("t"), NULL), HEARTBUS_INVALID_ARGUMENT, "count is NULL", "a number has a place");
    static const char large[20000];
    check_refused(ASK(publish, TEXT("t"), large, sizeof large, NULL, 0, NULL), HEARTBUS_LIMIT, "longer than a frame", "a publication has a longest size");
    close(a), close(b), close(c);
}

static void wait_for_subscribers(const char *topic, size_t wanted) {
    size_t count = wanted + 1;
    for (long long until = now_ms() + LONGEST_WAIT_MS; count != wanted && now_ms() < until; poll(NULL, 0, 1))
        if (ASK(subscribers, topic, strlen(topic), &count) != HEARTBUS_OK)
            break;
    check(count == wanted, "%s has %d subscribers in the end", topic, (int)count);
}

static void nodes_are_put_into_topics(void) {
    int d = node("d"), e = node("e");
    check(ASK(join, TEXT("d"), TEXT("room/1")) == HEARTBUS_OK && ASK(join, TEXT("e"), TEXT("room/1")) == HEARTBUS_OK &&
              ASK(join, TEXT("d"), TEXT("room/2")) == HEARTBUS_OK,
          "nodes are put into topics");
    check(ASK(publish, TEXT("room/1"), TEXT("both"), NULL, 0, NULL) == HEARTBUS_OK && heard(d, MESSAGE, "both") && heard(e, MESSAGE, "both"),
          "and get the messages without having asked");
    heartbus_text found[8] = {{NULL, 0}};
    size_t count = 0;
    check(ASK(topics_of, TEXT("d"), found, 8, &count) == HEARTBUS_OK && count == 2 &&
              ((is_text(found[0], "room/1") && is_text(found[1], "room/2")) || (is_text(found[0], "room/2") && is_text(found[1], "room/1"))),
          "a node's topics are listed");
    check(ASK(topics_of, TEXT("d"), NULL, 0, &count) == HEARTBUS_OK && count == 2, "or counted");

    bool seen_d = false, seen_e = false;
    uint64_t cursor = 0;
    int pages = 0;
    do {
        if (ASK(members, TEXT("room/1"), &cursor, found, 1, &count) != HEARTBUS_OK || count > 1 || ++pages > 9)
            break;
        seen_d |= count == 1 && is_text(found[0], "d");
        seen_e |= count == 1 && is_text(found[0], "e");
    } while (cursor);
    check(seen_d && seen_e && pages >= 2 && pages <= 3, "members come in pages, %d of one each", pages);

    size_t topics = 0, subscribers = 0;
    heartbus_topic topic[2];
    cursor = 0;
    do {
        if (ASK(topics, &cursor, topic, 2, &count) != HEARTBUS_OK || count > 2)
            break;
        for (size_t i = 0; i < count; i++)
            if (strncmp(topic[i].topic, "room/", 5) == 0 && topic[i].topic_len == 6)
                topics++, subscribers += topic[i].subscribers;
    } while (cursor);
    check(topics == 2 && subscribers == 3, "and so do topics, with their subscribers");

    check(ASK(leave, TEXT("d"), TEXT("room/1")) == HEARTBUS_OK && ASK(leave, TEXT("d"), TEXT("room/1")) == HEARTBUS_OK, "a node is taken out, if it is in or not");
    check(ASK(publish, TEXT("room/1"), TEXT("one"), NULL, 0, NULL) == HEARTBUS_OK && heard(e, MESSAGE, "one") && is_silent(d), "and hears nothing more");
    /* It is taken out by its own thread, behind the call. */
    wait_for_subscribers("room/1", 1);
    check_refused(ASK(join, TEXT("nobody"), TEXT("room/1")), HEARTBUS_NOT_FOUND, "No such node", "nobody is put into a topic");
    check_refused(ASK(leave, TEXT("nobody"), TEXT("room/1")), HEARTBUS_NOT_FOUND, "No such node", "or taken out");
    check_refused(ASK(topics_of, TEXT("nobody"), found, 8, &count), HEARTBUS_NOT_FOUND, "No such node", "or is in any");
    check_refused(ASK(join, TEXT("d"), TEXT("room/#")), HEARTBUS_INVALID_ARGUMENT, "no level", "a filter is not joined");
    check_refused(ASK(leave, TEXT("d"), TEXT("#/room")), HEARTBUS_INVALID_ARGUMENT, "last level", "nor is what is none left");
    cursor = 0;
    check_refused(ASK(topics, &cursor, topic, 0, &count), HEARTBUS_INVALID_ARGUMENT, "capacity is 0", "a page has room");
    check_refused(ASK(members, TEXT("t"), NULL, found, 8, &count), HEARTBUS_INVALID_ARGUMENT, "cursor is NULL", "and a place to go on from");
    close(d), close(e);
}

static heartbus_event next_event(bool of_bus) {
    static heartbus_event event;
    size_t count = 0;
    memset(&event, 0, sizeof event);
    for (long long until = now_ms() + LONGEST_WAIT_MS; count == 0 && now_ms() < until;)
        if ((of_bus ? heartbus_bus_poll(bus, &event, 1, 100, &count) : heartbus_server_poll(server, &event, 1, 100, &count)) != HEARTBUS_OK)
            break;
    return event;
}

static heartbus_event next_message(void) { return next_event(false); }

static bool is_message(const heartbus_event *event, const char *topic, const char *payload, const char *from) {
    return event->type == HEARTBUS_EVENT_MESSAGE && event->text_len == strlen(topic) && memcmp(event->text, topic, event->text_len) == 0 &&
           event->payload_len == strlen(payload) && memcmp(event->payload, payload, event->payload_len) == 0 &&
           (from ? event->node_id && strcmp(event->node_id, from) == 0 : event->node_id == NULL);
}

static void the_program_hears_topics(void) {
    int f = node("f");
    check(heartbus_server_subscribe_topics(server, TEXT("to/+")) == HEARTBUS_OK && heartbus_server_subscribe_topics(server, TEXT("to/me")) == HEARTBUS_OK &&
              heartbus_server_subscribe_topics(server, TEXT("to/me")) == HEARTBUS_OK,
          "the program subscribes to topics");
    say(f, PUBLISH, "{\\\"topic\\\":\\\"to/me\\\",\\\"data\\\":\\\"hello\\\"}");
    heartbus_event event = next_message();
    heartbus_position position = {0, 0};
    check(heartbus_event_position(&event, &position) == HEARTBUS_OK && position.offset == 1 && position.epoch > 0, "a message has its position");
    check(is_message(&event, "to/me", "hello", "f") && strcmp(heartbus_event_name(event.type), "message") == 0, "a node's message comes once, with its sender");
    heartbus_publication told;
    check(heartbus_bus_publish(bus, TEXT("to/you"), TEXT("from outside"), NULL, 0, &told) == HEARTBUS_OK && told.reach == 1, "another process publishes");
    event = next_message();
    check_refused(heartbus_event_position(&event, &position), HEARTBUS_NOT_FOUND, "no position", "where the topic has one");
    check(is_message(&event, "to/you", "from outside", NULL), "what no node has published has no sender");
    check(heartbus_server_unsubscribe_topics(server, TEXT("to/+")) == HEARTBUS_OK &&
              heartbus_server_publish(server, TEXT("to/you"), TEXT("unheard"), NULL, 0, &told) == HEARTBUS_OK && told.reach == 0 &&
              heartbus_server_publish(server, TEXT("to/me"), TEXT("heard"), NULL, 0, NULL) == HEARTBUS_OK,
          "one subscription ends");
    event = next_message();
    check(is_message(&event, "to/me", "heard", NULL), "and the other goes on");
    check_refused(heartbus_server_unsubscribe_topics(server, TEXT("to/+")), HEARTBUS_NOT_FOUND, "no such subscription", "what is ended is not there");
    check_refused(heartbus_server_subscribe_topics(server, TEXT("a/#/b")), HEARTBUS_INVALID_ARGUMENT, "last level", "a filter has a form");
    check_refused(heartbus_server_subscribe_topics(server, TEXT("\xff")), HEARTBUS_INVALID_ARGUMENT, "filter is not UTF-8", "and is text");
    close(f);
}

static bool is_change(const heartbus_event *event, const char *json) {
    char text[512];
    snprintf(text, sizeof text, "%.*s", (int)event->payload_len, event->payload ? event->payload : "");
    if (event->type != HEARTBUS_EVENT_MESSAGE || strcmp(event->text, "$nodes") != 0 || event->node_id || !strstr(text, json))
        printf("        %s: %s\n", heartbus_event_name(event->type), text);
    return event->type == HEARTBUS_EVENT_MESSAGE && strcmp(event->text, "$nodes") == 0 && !event->node_id && strstr(text, json);
}

static void another_program_hears_topics(const char *config) {
    int fd = -1;
    check(heartbus_bus_subscribe_topics(bus, TEXT("next/+")) == HEARTBUS_OK && heartbus_bus_subscribe_topics(bus, TEXT("next/door")) == HEARTBUS_OK &&
              heartbus_bus_subscribe_topics(bus, TEXT("next/door")) == HEARTBUS_OK && heartbus_bus_fd(bus, &fd) == HEARTBUS_OK && fd >= 0,
          "a program next door subscribes to topics");
    int g = node("g");
    say(g, PUBLISH, "{\\\"topic\\\":\\\"next/door\\\",\\\"data\\\":\\\"hello\\\"}");
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    check(poll(&readable, 1, LONGEST_WAIT_MS) == 1 && readable.revents == POLLIN, "its descriptor says that there is something");
    heartbus_event event = next_event(true);
    heartbus_position position = {0, 0};
    check(is_message(&event, "next/door", "hello", "g") && heartbus_event_position(&event, &position) == HEARTBUS_OK && position.offset == 1,
          "a node's message comes once, with its sender and its position");
    heartbus_publication told;
    check(heartbus_server_publish(server, TEXT("next/house"), TEXT("from the server"), NULL, 0, &told) == HEARTBUS_OK && told.reach == 1, "the server publishes");
    event = next_event(true);
    check(is_message(&event, "next/house", "from the server", NULL), "and the program next door hears it");
    size_t count = 1;
    check(heartbus_bus_poll(bus, &event, 1, 0, &count) == HEARTBUS_OK && count == 0, "there is no more");

    check(heartbus_bus_subscribe_topics(bus, TEXT("$nodes")) == HEARTBUS_OK, "it subscribes to who comes and goes");
    int h = node("h");
    event = next_event(true);
    check(is_change(&event, "\"event\":\"joined\",\"node\":\"h\",\"reason\":\"registered\""), "a node comes");
    close(h);
    event = next_event(true);
    check(is_change(&event, "\"event\":\"left\",\"node\":\"h\",\"reason\":\"disconnected\""), "and goes");

    heartbus_position since = {0, 0};
    check(heartbus_server_publish(server, TEXT("kept/door"), TEXT("one"), NULL, 0, &told) == HEARTBUS_OK &&
              heartbus_server_publish(server, TEXT("kept/door"), TEXT("two"), NULL, 0, NULL) == HEARTBUS_OK,
          "something is kept");
    since.offset = told.offset, since.epoch = told.epoch;
    check(heartbus_bus_subscribe_topics_since(bus, TEXT("kept/door"), &since) == HEARTBUS_OK, "it goes on from a position");
    event = next_event(true);
    check(is_message(&event, "kept/door", "two", NULL) && heartbus_event_position(&event, &position) == HEARTBUS_OK && position.offset == since.offset + 1,
          "what is kept behind it comes");
    check(heartbus_server_publish(server, TEXT("kept/door"), TEXT("three"), NULL, 0, NULL) == HEARTBUS_OK, "and then");
    event = next_event(true);
    check(is_message(&event, "kept/door", "three", NULL), "what is live");
    since.offset = since.epoch = 0;
    check(heartbus_bus_subscribe_topics_since(bus, TEXT("kept/door"), &since) == HEARTBUS_OK, "with 0 and 0 all that is kept comes");
    event = next_event(true);
    check(event.type == HEARTBUS_EVENT_MISSED && event.count == 0 && is_text((heartbus_text){event.text, event.text_len}, "kept/door"),
          "behind the word that the first is not kept any more");
    event = next_event(true);
    check(is_message(&event, "kept/door", "two", NULL), "the second is the first that is kept");
    event = next_event(true);
    check(is_message(&event, "kept/door", "three", NULL), "and the third comes again");
    check(heartbus_bus_subscribe_topics_since(bus, TEXT("kept/door"), NULL) == HEARTBUS_OK, "without a position it stays as it is");
    check_refused(heartbus_bus_subscribe_topics_since(bus, TEXT("kept/+"), &since), HEARTBUS_INVALID_ARGUMENT, "no position to go on from", "a filter has no position");
    check(heartbus_bus_unsubscribe_topics(bus, TEXT("kept/door")) == HEARTBUS_OK, "it has heard enough");

    check(heartbus_bus_unsubscribe_topics(bus, TEXT("next/+")) == HEARTBUS_OK, "one subscription ends");
    check_refused(heartbus_bus_unsubscribe_topics(bus, TEXT("next/+")), HEARTBUS_NOT_FOUND, "no such subscription", "what is ended is not there");
    check_refused(heartbus_bus_subscribe_topics(bus, TEXT("a/#/b")), HEARTBUS_INVALID_ARGUMENT, "last level", "a filter has a form");
    check_refused(heartbus_bus_subscribe_topics(bus, TEXT("\xff")), HEARTBUS_INVALID_ARGUMENT, "filter is not UTF-8", "and is text");
    check_refused(heartbus_bus_poll(bus, &event, 0, 0, &count), HEARTBUS_INVALID_ARGUMENT, "capacity is 0", "a poll has room");
    check_refused(heartbus_bus_poll(bus, &event, 1, 0, NULL), HEARTBUS_INVALID_ARGUMENT, "count is NULL", "and a place for a number");
    check_refused(heartbus_bus_fd(bus, NULL), HEARTBUS_INVALID_ARGUMENT, "fd is NULL", "a descriptor has a place");
    close(g);

    heartbus_server_free(server);
    check_refused(heartbus_bus_subscribe_topics(bus, TEXT("late")), HEARTBUS_IO, "No Heartbus server", "where no server runs nothing is subscribed to");
    check(heartbus_server_start(config, strlen(config), HEARTBUS_ON_MESSAGE, &server) == HEARTBUS_OK && heartbus_server_port(server, &port) == HEARTBUS_OK,
          "the server is started anew");
    for (event = next_event(true); event.type == HEARTBUS_EVENT_MESSAGE;)
        event = next_event(true);
    check(event.type == HEARTBUS_EVENT_MISSED && event.count == 0 && strcmp(heartbus_event_name(event.type), "missed") == 0,
          "the program next door is told that something may be missing");
    /* Of each that it has subscribed to, when that is back. */
    check(is_text((heartbus_text){event.text, event.text_len}, "$nodes"), "and of what");
    event = next_event(true);
    check(event.type == HEARTBUS_EVENT_MISSED && is_text((heartbus_text){event.text, event.text_len}, "next/door"), "of its other topic as well");
    check(heartbus_server_publish(server, TEXT("next/door"), TEXT("again"), NULL, 0, &told) == HEARTBUS_OK && told.reach == 1, "what it has subscribed to came back");
    event = next_event(true);
    check(is_message(&event, "next/door", "again", NULL), "and it hears on");
}

static void a_wrong_history_is_refused(void) {
    heartbus_server *none = NULL;
    const struct {
        const char *config, *says;
    } wrong[] = {
        {"{\"history\":{\"a/#/b\":{}}}", "history: \"a/#/b\" is no filter. In a filter # stands for the rest, so it is the last level"},
        {"{\"history\":{\"a\":{\"count\":-1}}}", "history of \"a\": count must be a whole number from 0"},
        {"{\"history\":[]}", "history must be an object of filters"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_refused(heartbus_server_start(wrong[i].config, strlen(wrong[i].config), 0, &none), HEARTBUS_CONFIG, wrong[i].says, wrong[i].config);
}

int main(void) {
    char path[64], config[256];
    snprintf(path, sizeof path, "/tmp/heartbus-topics-%d.sock", (int)getpid());
    snprintf(config, sizeof config,
             "{\"host\":\"127.0.0.1\",\"port\":0,\"bus\":\"%s\",\"max_frame_bytes\":10000,\"presence_debounce\":0,"
             "\"history\":{\"kept/#\":{\"count\":2,\"ttl\":600}}}",
             path);
    check(heartbus_server_start(config, strlen(config), HEARTBUS_ON_MESSAGE, &server) == HEARTBUS_OK && heartbus_server_port(server, &port) == HEARTBUS_OK &&
              heartbus_bus_connect(path, strlen(path), 10, &bus) == HEARTBUS_OK,
          "a server starts, and its bus is there");
    for (int way = 0; way < 2; way++) {
        over_bus = way == 1;
        printf("%s\n", over_bus ? "over the bus socket" : "in the server's process");
        publications_reach_subscribers();
        nodes_are_put_into_topics();
        /* What a node was in ends with its registration. */
        wait_for_subscribers("room/1", 0);
        wait_for_subscribers("chat/hall", 0);
    }
    the_program_hears_topics();
    another_program_hears_topics(config);
    a_wrong_history_is_refused();
    heartbus_bus_free(bus);
    heartbus_server_free(server);
    return summary();
}
