/*
 * Topics of clients in C: what they hear and say, what comes back by itself after a server was stopped and started again, and what is
 * refused.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <inttypes.h>
#include <stdbool.h>

static heartbus_server *server;
static heartbus_clients *clients;
static uint16_t port;

static bool start_server(int at) {
    char config[256];
    int len = snprintf(config, sizeof config,
                       "{\"host\":\"127.0.0.1\",\"port\":%d,\"max_frame_bytes\":10000,\"history\":{\"kept/#\":{\"count\":100}}}", at);
    return heartbus_server_start(config, (size_t)len, 0, &server) == HEARTBUS_OK && heartbus_server_port(server, &port) == HEARTBUS_OK;
}

static uint64_t join(const char *node, const char *more) {
    uint64_t client_id = 0;
    char config[256];
    int len = snprintf(config, sizeof config, "{\"port\":%d,\"node_id\":\"%s\",\"heartbeat_interval\":3600,\"reconnect_interval\":0.1%s}", port, node, more);
    heartbus_client_connect(clients, config, (size_t)len, &client_id);
    return client_id;
}

/* An event with what it points to, which the next poll takes away. */
typedef struct {
    heartbus_event event;
    char text[256], payload[64], node_id[64];
    bool has_position;
    heartbus_position position;
} told;

static told client_tells(heartbus_event_type type) {
    heartbus_event event;
    size_t count = 1;
    told told = {0};
    while (heartbus_clients_poll(clients, &event, 1, LONGEST_WAIT_MS, &count) == HEARTBUS_OK && count == 1) {
        if (event.type != type)
            continue;
        told.event = event;
        snprintf(told.text, sizeof told.text, "%s", event.text ? event.text : "");
        snprintf(told.payload, sizeof told.payload, "%.*s", (int)event.payload_len, event.payload ? event.payload : "");
        snprintf(told.node_id, sizeof told.node_id, "%s", event.node_id ? event.node_id : "");
        told.has_position = heartbus_event_position(&event, &told.position) == HEARTBUS_OK;
        return told;
    }
    check(false, "%s is told", heartbus_event_name(type));
    return told;
}

static heartbus_publication publish(const char *topic, const char *data) {
    heartbus_publication publication = {0};
    heartbus_server_publish(server, topic, strlen(topic), data, strlen(data), NULL, 0, &publication);
    return publication;
}

static bool hears(const char *topic, const char *data, uint64_t offset) {
    told told = client_tells(HEARTBUS_EVENT_CLIENT_MESSAGE);
    bool as_wanted = strcmp(told.text, topic) == 0 && strcmp(told.payload, data) == 0 && told.has_position == (offset != 0) &&
                     (offset == 0 || told.position.offset == offset);
    if (!as_wanted)
        printf("        %s: %s at %" PRIu64 "\n", told.text, told.payload, told.position.offset);
    return as_wanted;
}

static void a_client_hears_and_says(void) {
    uint64_t me = join("n", ",\"max_subscriptions\":3");
    heartbus_position position, behind = {0};
    check(heartbus_client_subscribe(clients, me, TEXT("kept/a"), NULL) == HEARTBUS_OK && heartbus_client_subscribe(clients, me, TEXT("+"), NULL) == HEARTBUS_OK,
          "a client subscribes before it is connected");
    check_refused(heartbus_client_position(clients, me, TEXT("kept/b"), &position), HEARTBUS_NOT_FOUND, "no position", "to others it has no position");
    told told = client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBED);
    check(strcmp(told.text, "kept/a") == 0 && told.event.code == 1 && told.has_position && told.position.offset == 0 && told.position.epoch > 0,
          "the answer says where the topic stands");
    told = client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBED);
    check(strcmp(told.text, "+") == 0 && told.event.code == 1 && !told.has_position, "a filter has no position");
    publish("kept/a", "one");
    told = client_tells(HEARTBUS_EVENT_CLIENT_MESSAGE);
    check(strcmp(told.text, "kept/a") == 0 && strcmp(told.payload, "one") == 0 && strcmp(told.node_id, "n") == 0 && told.event.client_id == me &&
              told.event.channel_id > 0 && told.has_position && told.position.offset == 1,
          "a message has its topic, its position and whose it is");
    publish("plain", "two");
    check(hears("plain", "two", 0), "through a filter it is heard too, without a position where there is none");
    check(heartbus_client_position(clients, me, TEXT("kept/a"), &position) == HEARTBUS_OK && position.offset == 1, "the client knows how far it is");

    check(heartbus_client_publish(clients, me, TEXT("kept/a"), TEXT("silent"), 0) == HEARTBUS_OK && hears("kept/a", "silent", 2), "it publishes");
    check(heartbus_client_publish(clients, me, TEXT("kept/a"), TEXT("asked"), 4000000000u) == HEARTBUS_OK, "with a number");
    told = client_tells(HEARTBUS_EVENT_CLIENT_PUBLISHED);
    check(told.event.number == 4000000000u && told.event.count == 1 && told.has_position && told.position.offset == 3, "it learns position and reach");
    check(hears("kept/a", "asked", 3), "and hears itself");
    check(heartbus_client_publish(clients, me, TEXT("kept/a"), TEXT("\xff\0"), 0) == HEARTBUS_OK, "any bytes are published");
    told = client_tells(HEARTBUS_EVENT_CLIENT_MESSAGE);
    check(told.event.payload_len == 2 && (unsigned char)told.payload[0] == 0xff, "and arrive");

    check(heartbus_client_publish(clients, me, TEXT("$own"), TEXT("x"), 5) == HEARTBUS_OK, "what the server will not do");
    told = client_tells(HEARTBUS_EVENT_CLIENT_PUBLISH_REFUSED);
    check(told.event.number == 5 && told.event.code == HEARTBUS_ERROR_NOT_ALLOWED && strcmp(told.text, "$own") == 0 && strstr(told.payload, "belong to the server"),
          "it says: %s", told.payload);
    check(heartbus_client_subscribe(clients, me, TEXT("$own"), NULL) == HEARTBUS_OK, "so of a subscription");
    told = client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBE_REFUSED);
    check(told.event.code == HEARTBUS_ERROR_NOT_ALLOWED && strcmp(told.text, "$own") == 0 && told.event.number == 0, "which is none any more");

    /* Back to the second one. */
    behind = (heartbus_position){.offset = 1, .epoch = position.epoch};
    check(heartbus_client_subscribe(clients, me, TEXT("kept/a"), &behind) == HEARTBUS_OK && client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBED).event.code == 1 &&
              hears("kept/a", "silent", 2) && hears("kept/a", "asked", 3) && client_tells(HEARTBUS_EVENT_CLIENT_MESSAGE).position.offset == 4,
          "it goes back to a position, and gets what is behind it");
    check(heartbus_client_add_node(clients, me, TEXT("lamp"), NULL, 0) == HEARTBUS_OK, "it carries another node");
    client_tells(HEARTBUS_EVENT_CLIENT_REGISTER);
    check(heartbus_server_join(server, TEXT("lamp"), TEXT("room/1")) == HEARTBUS_OK, "which the server puts into a topic");
    publish("room/1", "light");
    told = client_tells(HEARTBUS_EVENT_CLIENT_MESSAGE);
    check(strcmp(told.node_id, "lamp") == 0 && strcmp(told.payload, "light") == 0, "the message says for which of them it is");

    check(heartbus_client_unsubscribe(clients, me, TEXT("kept/a")) == HEARTBUS_OK, "it ends a subscription");
    check_refused(heartbus_client_unsubscribe(clients, me, TEXT("kept/a")), HEARTBUS_NOT_FOUND, "no such subscription", "once");
    check_refused(heartbus_client_subscribe(clients, me, TEXT("a/#/b"), NULL), HEARTBUS_INVALID_ARGUMENT, "last level", "what is no filter is refused");
    check_refused(heartbus_client_subscribe(clients, me, TEXT("a/+"), &behind), HEARTBUS_INVALID_ARGUMENT, "no position to go on from", "and a filter with a position");
    check_refused(heartbus_client_subscribe(clients, me, NULL, 0, NULL), HEARTBUS_INVALID_ARGUMENT, "at least one byte", "and nothing");
    check_refused(heartbus_client_subscribe(clients, me, TEXT("\xff"), NULL), HEARTBUS_INVALID_ARGUMENT, "UTF-8", "and what is no text");
    check_refused(heartbus_client_publish(clients, me, TEXT("a/#"), TEXT("x"), 0), HEARTBUS_INVALID_ARGUMENT, "no level", "nothing is published to a filter");
    check_refused(heartbus_client_publish(clients, me, TEXT("a"), NULL, 1, 0), HEARTBUS_INVALID_ARGUMENT, "payload is NULL", "nor what is not there");
    check_refused(heartbus_client_position(clients, me, TEXT("+"), &position), HEARTBUS_NOT_FOUND, "no position", "a filter has none");
    check_refused(heartbus_client_position(clients, me, TEXT("kept/b"), NULL), HEARTBUS_INVALID_ARGUMENT, "position is NULL", "a position has a place");
    check_refused(heartbus_client_subscribe(clients, 4711, TEXT("t"), NULL), HEARTBUS_NOT_FOUND, "4711", "nobody subscribes");
    check(heartbus_client_subscribe(clients, me, TEXT("b"), NULL) == HEARTBUS_OK && heartbus_client_subscribe(clients, me, TEXT("c"), NULL) == HEARTBUS_OK, "it has what it may");
    check_refused(heartbus_client_subscribe(clients, me, TEXT("d"), NULL), HEARTBUS_LIMIT, "as many subscriptions as it may", "and no more");
    check_refused(heartbus_event_position(NULL, &position), HEARTBUS_INVALID_ARGUMENT, "event is NULL", "an event has to be there");
    heartbus_event other = {.type = HEARTBUS_EVENT_CONNECT, .ip = "127.0.0.1", .ip_len = 9};
    check_refused(heartbus_event_position(&other, &position), HEARTBUS_NOT_FOUND, "no position", "and to be one of a topic");
    check(heartbus_client_disconnect(clients, me) == HEARTBUS_OK, "it leaves");
    client_tells(HEARTBUS_EVENT_CLIENT_FINISHED);
    check_refused(heartbus_client_subscribe(clients, me, TEXT("t"), NULL), HEARTBUS_CLOSED, "Not connected", "and does not come back");
}

static void subscriptions_come_back(void) {
    uint64_t me = join("back", "");
    heartbus_client_subscribe(clients, me, TEXT("kept/b"), NULL);
    uint64_t epoch = client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBED).position.epoch;
    publish("kept/b", "1");
    check(hears("kept/b", "1", 1), "a message before");
    check(heartbus_server_disconnect(server, TEXT("back")) == HEARTBUS_OK, "the connection is cut");
    client_tells(HEARTBUS_EVENT_CLIENT_CLOSE);
    char number[12];
    for (int n = 2; n <= 50; n++)
        snprintf(number, sizeof number, "%d", n), publish("kept/b", number);
    told told = client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBED);
    check(told.event.code == 1 && told.position.epoch == epoch, "it comes back from where it was");
    bool all = true;
    for (uint64_t n = 2; n <= 50; n++)
        snprintf(number, sizeof number, "%d", (int)n), all = all && hears("kept/b", number, n);
    check(all, "and nothing is missed, nothing twice");
    /* What the server keeps goes with it. */
    uint16_t again = port;
    check(heartbus_server_free(server) == HEARTBUS_OK && start_server(again), "the server is stopped and started again");
    publish("kept/b", "new");
    told = client_tells(HEARTBUS_EVENT_CLIENT_SUBSCRIBED);
    check(told.event.code == 0 && told.position.epoch > epoch, "that something is missing is told");
    check(hears("kept/b", "new", 1), "and then what is there");
}

int main(void) {
    check(start_server(0) && heartbus_clients_start(NULL, 0, &clients) == HEARTBUS_OK, "a server and a group of clients start");
    a_client_hears_and_says();
    subscriptions_come_back();
    heartbus_clients_free(clients);
    heartbus_server_free(server);
    return summary();
}
