/*
 * What a program attaches to handles, nodes and clients, and which events carry it and give it back; logs of the process and of one
 * handle; and which numbers are left to the program's own descriptors.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/select.h>
#include <unistd.h>

static heartbus_server *server;
static heartbus_clients *clients;
static uint16_t port;

static void start(const char *config, uint32_t events) {
    heartbus_server_start(config, strlen(config), events, &server);
    heartbus_server_port(server, &port);
    heartbus_clients_start(NULL, 0, &clients);
}

static void stop(void) {
    heartbus_clients_free(clients);
    heartbus_server_free(server);
}

static uint64_t join(const char *node) {
    uint64_t client_id = 0;
    char config[128];
    int len = snprintf(config, sizeof config, "{\"port\":%d,\"node_id\":\"%s\",\"heartbeat_interval\":3600}", port, node);
    heartbus_client_connect(clients, config, (size_t)len, &client_id);
    return client_id;
}

typedef struct {
    heartbus_event event;
    char node_id[64];
} told;

static told copy(const heartbus_event *event) {
    told told = {.event = *event};
    snprintf(told.node_id, sizeof told.node_id, "%s", event->node_id ? event->node_id : "");
    return told;
}

/* Polls one event after the other until this one. */
static told server_tells(heartbus_event_type type) {
    heartbus_event event;
    size_t count = 1;
    while (heartbus_server_poll(server, &event, 1, LONGEST_WAIT_MS, &count) == HEARTBUS_OK && count == 1)
        if (event.type == type)
            return copy(&event);
    return (told){0};
}
static told client_tells(heartbus_event_type type) {
    heartbus_event event;
    size_t count = 1;
    while (heartbus_clients_poll(clients, &event, 1, LONGEST_WAIT_MS, &count) == HEARTBUS_OK && count == 1)
        if (event.type == type)
            return copy(&event);
    return (told){0};
}

static uint64_t number(const char *name) {
    heartbus_stat stats[128];
    size_t count = 0;
    heartbus_server_stats(server, stats, 128, &count);
    for (size_t i = 0; i < count && i < 128; i++)
        if (strcmp(stats[i].name, name) == 0)
            return stats[i].value;
    return 0;
}

static void wait_for_number(const char *name, uint64_t wanted) {
    for (long long until = now_ms() + LONGEST_WAIT_MS; number(name) < wanted && now_ms() < until;)
        poll(NULL, 0, 1);
}

/* What is attached, by name: only addresses matter. */
static char first, second, third;

static void handles_have_a_pointer(void) {
    start("{\"host\":\"127.0.0.1\",\"port\":0}", 0);
    void *found = &third;
    check(heartbus_user_data(server, &found) == HEARTBUS_OK && found == NULL, "nothing is attached to a new handle");
    check(heartbus_set_user_data(server, &first) == HEARTBUS_OK && heartbus_set_user_data(clients, &second) == HEARTBUS_OK &&
              heartbus_user_data(server, &found) == HEARTBUS_OK && found == &first,
          "a pointer is attached to a server");
    check(heartbus_user_data(clients, &found) == HEARTBUS_OK && found == &second, "and another to a group of clients");
    heartbus_server_stop(server);
    check(heartbus_user_data(server, &found) == HEARTBUS_OK && found == &first && heartbus_set_user_data(server, NULL) == HEARTBUS_OK &&
              heartbus_user_data(server, &found) == HEARTBUS_OK && found == NULL,
          "it is there when the server is stopped, until it is taken away");
    check_refused(heartbus_user_data(server, NULL), HEARTBUS_INVALID_ARGUMENT, "user_data is NULL", "the result needs a place");
    stop();
    check_refused(heartbus_user_data(clients, &found), HEARTBUS_INVALID_ARGUMENT, "freed already", "it is gone with the handle");
}

static void a_node_has_a_pointer(void) {
    start("{\"host\":\"127.0.0.1\",\"port\":0}", EVERYTHING);
    uint64_t me = join("n");
    told told = server_tells(HEARTBUS_EVENT_REGISTER);
    int64_t channel = told.event.channel_id;
    void *found = &third;
    heartbus_node node;
    check(told.event.user_data == NULL && heartbus_server_node_user_data(server, TEXT("n"), 0, &found) == HEARTBUS_OK && found == NULL,
          "nothing is attached to a new node");
    check(heartbus_server_set_node_user_data(server, TEXT("n"), channel, &first) == HEARTBUS_OK &&
              heartbus_server_node_user_data(server, TEXT("n"), 0, &found) == HEARTBUS_OK && found == &first,
          "a pointer is attached to it");
    check(heartbus_server_node(server, TEXT("n"), &node) == HEARTBUS_OK && node.user_data == &first, "a lookup has it");
    uint64_t cursor = 0;
    size_t count = 0;
    check(heartbus_server_nodes(server, &cursor, &node, 1, &count) == HEARTBUS_OK && count == 1 && node.user_data == &first, "and a list");
    client_tells(HEARTBUS_EVENT_CLIENT_REGISTER);
    heartbus_client_send(clients, me, TEXT("x"), 0);
    check(server_tells(HEARTBUS_EVENT_DATA).event.user_data == &first, "its data carries it");
    heartbus_client_heartbeat(clients, me, TEXT("n"));
    check(server_tells(HEARTBUS_EVENT_HEARTBEAT).event.user_data == &first, "and its heartbeats");
    check(heartbus_server_set_node_user_data(server, TEXT("n"), 0, &second) == HEARTBUS_OK, "another takes its place");
    check_refused(heartbus_server_set_node_user_data(server, TEXT("n"), channel + 1, &third), HEARTBUS_NOT_FOUND, "channel",
                  "on another channel it is not the same node");
    check_refused(heartbus_server_set_node_user_data(server, TEXT("nobody"), 0, &third), HEARTBUS_NOT_FOUND, "No such node", "nobody has none");

    uint64_t newer = join("n");
    told = server_tells(HEARTBUS_EVENT_REPLACED);
    check(told.event.user_data == &second && told.event.channel_id == channel, "the event of its departure gives it back");
    told = server_tells(HEARTBUS_EVENT_REGISTER);
    check(told.event.user_data == NULL && told.event.channel_id != channel, "the next node of that id begins without");
    check_refused(heartbus_server_set_node_user_data(server, TEXT("n"), channel, &third), HEARTBUS_NOT_FOUND, "channel",
                  "and the one that left takes nothing any more");
    heartbus_server_set_node_user_data(server, TEXT("n"), 0, &first);
    check(heartbus_server_set_node_user_data(server, TEXT("n"), 0, NULL) == HEARTBUS_OK, "it can be taken away");
    heartbus_client_disconnect(clients, newer);
    wait_for_number("nodes_unregistered", 1);
    check_refused(heartbus_server_set_node_user_data(server, TEXT("n"), 0, &third), HEARTBUS_NOT_FOUND, "No such node",
                  "a node that is gone takes nothing, although its departure was not polled yet");
    check(server_tells(HEARTBUS_EVENT_UNREGISTER).event.user_data == NULL, "what was taken away is not given back");

    join("stopped");
    server_tells(HEARTBUS_EVENT_REGISTER);
    heartbus_server_set_node_user_data(server, TEXT("stopped"), 0, &third);
    heartbus_server_stop(server);
    check(server_tells(HEARTBUS_EVENT_DISCONNECTED).event.user_data == &third, "a server that stops gives all of them back");
    stop();
}

static void departures_must_be_told(void) {
    start("{\"host\":\"127.0.0.1\",\"port\":0}", HEARTBUS_ON_REGISTER);
    join("n");
    server_tells(HEARTBUS_EVENT_REGISTER);
    check_refused(heartbus_server_set_node_user_data(server, TEXT("n"), 0, &first), HEARTBUS_INVALID_ARGUMENT, "HEARTBUS_ON_LEFT",
                  "a server that tells no departures could not give it back");
    heartbus_server_subscribe(server, EVERYTHING);
    check(heartbus_server_set_node_user_data(server, TEXT("n"), 0, &first) == HEARTBUS_OK, "one that tells them can");
    stop();
}

static void a_slow_program_gets_it_back(void) {
    /* Room for one event: all others are put together. */
    start("{\"host\":\"127.0.0.1\",\"port\":0,\"inbox_events\":1}", HEARTBUS_ON_REGISTER | HEARTBUS_ON_LEFT);
    join("n");
    server_tells(HEARTBUS_EVENT_REGISTER);
    heartbus_server_set_node_user_data(server, TEXT("n"), 0, &first);
    join("filler");
    wait_for_number("nodes_registered", 2);
    uint64_t newer = join("n");
    wait_for_number("nodes_replaced", 1);
    wait_for_number("nodes_registered", 3);
    server_tells(HEARTBUS_EVENT_REGISTER);
    told told = server_tells(HEARTBUS_EVENT_REGISTER);
    check(strcmp(told.node_id, "n") == 0 && told.event.count > 1 && told.event.user_data == &first,
          "an event that stands for a departure and %d more gives back what the older node had", (int)told.event.count - 1);
    heartbus_client_disconnect(clients, newer);
    check(server_tells(HEARTBUS_EVENT_UNREGISTER).event.user_data == &first, "which the newer one has since");
    stop();
}

static void a_client_and_its_nodes_have_pointers(void) {
    start("{\"host\":\"127.0.0.1\",\"port\":0}", HEARTBUS_ON_REGISTER);
    uint64_t me = join("gateway");
    heartbus_client info;
    void *found = &third;
    check(heartbus_client_set_user_data(clients, me, NULL, 0, &first) == HEARTBUS_OK && heartbus_client_info(clients, me, &info) == HEARTBUS_OK &&
              info.user_data == &first,
          "a pointer is attached to a client");
    check(heartbus_client_user_data(clients, me, TEXT("gateway"), &found) == HEARTBUS_OK && found == &first, "which is its first node's, too");
    check_refused(heartbus_client_set_user_data(clients, me, TEXT("lamp"), &second), HEARTBUS_NOT_FOUND, "no such node", "it has no other yet");
    heartbus_client_add_node(clients, me, TEXT("lamp"), NULL, 0);
    heartbus_client_add_node(clients, me, TEXT("door"), NULL, 0);
    check(heartbus_client_set_user_data(clients, me, TEXT("lamp"), &second) == HEARTBUS_OK &&
              heartbus_client_user_data(clients, me, TEXT("lamp"), &found) == HEARTBUS_OK && found == &second,
          "another to a node that it was given");
    check(client_tells(HEARTBUS_EVENT_CLIENT_CONNECT).event.user_data == &first, "events of the client carry the one");
    bool own = true;
    for (int n = 0; n < 3; n++) {
        told told = client_tells(HEARTBUS_EVENT_CLIENT_REGISTER);
        void *wanted = strcmp(told.node_id, "gateway") == 0 ? &first : strcmp(told.node_id, "lamp") == 0 ? &second : NULL;
        own = own && told.event.user_data == wanted;
    }
    check(own, "those of its nodes their own, or none");
    const char *nodes[] = {"gateway", "lamp", "door"};
    void *wanted[] = {&first, &second, NULL};
    for (int n = 0; n < 3; n++) {
        heartbus_server_send(server, nodes[n], strlen(nodes[n]), TEXT("x"), 0);
        told told = client_tells(HEARTBUS_EVENT_CLIENT_DATA);
        check(strcmp(told.node_id, nodes[n]) == 0 && told.event.user_data == wanted[n], "data for %s names it", nodes[n]);
    }

    heartbus_server_disconnect(server, TEXT("lamp"));
    /* Added again as soon as it is lost, before that was polled. */
    heartbus_status status = HEARTBUS_INVALID_ARGUMENT;
    for (long long until = now_ms() + LONGEST_WAIT_MS; status == HEARTBUS_INVALID_ARGUMENT && now_ms() < until; poll(NULL, 0, 1))
        status = heartbus_client_add_node(clients, me, TEXT("lamp"), NULL, 0);
    check(status == HEARTBUS_OK && heartbus_client_set_user_data(clients, me, TEXT("lamp"), &third) == HEARTBUS_OK, "a node is lost and added again");
    check(client_tells(HEARTBUS_EVENT_CLIENT_NODE_LOST).event.user_data == &second, "the older one gives back what was its own");
    check(client_tells(HEARTBUS_EVENT_CLIENT_REGISTER).event.user_data == &third, "and the newer has what is its own");
    check(heartbus_client_remove_node(clients, me, TEXT("lamp")) == HEARTBUS_OK, "a node is removed");
    check_refused(heartbus_client_user_data(clients, me, TEXT("lamp"), &found), HEARTBUS_NOT_FOUND, "no such node", "and what it had with it");
    heartbus_client_disconnect(clients, me);
    check(client_tells(HEARTBUS_EVENT_CLIENT_FINISHED).event.user_data == &first, "the client gives back its own in the end");
    stop();
}

/* ---- Logs ---- */

/* How many messages of a log have this text at the beginning, of those that come before a wake. */
static int messages(heartbus_log *log, const char *text, void *user_data) {
    heartbus_event events[64];
    size_t count;
    int found = 0;
    do {
        if (heartbus_log_poll(log, events, 64, 0, &count) != HEARTBUS_OK)
            return -1;
        for (size_t i = 0; i < count; i++)
            found += strncmp(events[i].text, text, strlen(text)) == 0 && events[i].user_data == user_data;
    } while (count > 0);
    return found;
}

static void logs_do_not_compete(void) {
    start("{\"host\":\"127.0.0.1\",\"port\":0}", HEARTBUS_ON_REGISTER);
    heartbus_server *other = NULL;
    heartbus_server_start(TEXT("{\"host\":\"127.0.0.1\",\"port\":0}"), 0, &other);
    heartbus_log *all = NULL, *errors = NULL, *of_server = NULL, *of_other = NULL, *of_clients = NULL;
    heartbus_set_user_data(server, &first);
    heartbus_set_user_data(clients, &second);
    check(heartbus_log_start(HEARTBUS_LOG_INFO, &all) == HEARTBUS_OK && heartbus_log_start(HEARTBUS_LOG_ERROR, &errors) == HEARTBUS_OK &&
              heartbus_log_start_for(server, HEARTBUS_LOG_INFO, &of_server) == HEARTBUS_OK &&
              heartbus_log_start_for(other, HEARTBUS_LOG_INFO, &of_other) == HEARTBUS_OK &&
              heartbus_log_start_for(clients, HEARTBUS_LOG_INFO, &of_clients) == HEARTBUS_OK,
          "several logs are open");
    join("n");
    server_tells(HEARTBUS_EVENT_REGISTER);
    client_tells(HEARTBUS_EVENT_CLIENT_REGISTER);
    /* The server writes once per tick what its threads have seen. */
    int told = 0;
    for (long long until = now_ms() + LONGEST_WAIT_MS; told == 0 && now_ms() < until; poll(NULL, 0, 1))
        told = messages(of_server, "Node registered", &first);
    check(told == 1, "that of a server has what happens to it, and says whose it is");
    check(messages(of_other, "", &first) == 0 && messages(of_other, "Node registered", NULL) == 0, "that of another has nothing of it");
    check(messages(of_clients, "Registration successful", &second) == 1, "that of clients has theirs");
    check(messages(of_clients, "Node registered", &first) == 0, "and nothing of the server's");
    check(messages(all, "", &first) >= 1, "that of the process has all of it, although others have read the same");
    check(messages(errors, "", &first) == 0, "and that for errors none");
    /* A call that is refused tells so on the thread of the program. Nobody listens on port 1. */
    port = 1;
    heartbus_client_send(clients, join("m"), TEXT("too early"), 0);
    check(messages(of_clients, "Cannot send", &second) == 1 && messages(errors, "Cannot send", &second) == 1 &&
              messages(of_other, "Cannot send", &second) == 0,
          "so it is with what a call has to say");
    heartbus_server_free(other);
    check(messages(of_other, "", NULL) >= 0 && heartbus_log_free(of_other) == HEARTBUS_OK, "it outlives its handle");
    check_refused(heartbus_log_start_for(other, HEARTBUS_LOG_INFO, &of_other), HEARTBUS_INVALID_ARGUMENT, "freed already",
                  "a log of what is freed cannot be opened");
    check_refused(heartbus_log_start_for(server, 9, &of_other), HEARTBUS_INVALID_ARGUMENT, "no heartbus_log_level", "nor one of no level");

    heartbus_log *more[64];
    int opened = 0;
    while (opened < 64 && heartbus_log_start(HEARTBUS_LOG_ERROR, &more[opened]) == HEARTBUS_OK)
        opened++;
    check(opened == 60 && last_error_has("64 logs"), "64 logs may be open: %s", heartbus_last_error());
    while (opened > 0)
        heartbus_log_free(more[--opened]);
    check(heartbus_log_free(all) == HEARTBUS_OK && heartbus_log_free(errors) == HEARTBUS_OK && heartbus_log_free(of_server) == HEARTBUS_OK &&
              heartbus_log_free(of_clients) == HEARTBUS_OK,
          "they are closed");
    stop();
}

/* Every number that is open now and was not then: in[] has one flag for each. */
static void open_numbers(bool in[]) {
    for (int fd = 0; fd < 4096; fd++)
        in[fd] = fcntl(fd, F_GETFD) >= 0;
}

static void its_descriptors_leave_the_programs_numbers_alone(void) {
    static bool before[4096], now[4096];
    int watched[2] = {-1, -1}, low = 0, standard = dup(STDIN_FILENO);
    close(STDIN_FILENO); /* The next number that anybody opens would be 0. */
    open_numbers(before);
    start("{\"port\":0,\"host\":\"127.0.0.1\"}", HEARTBUS_ON_REGISTER);
    join("n");
    server_tells(HEARTBUS_EVENT_REGISTER);
    check(heartbus_server_fd(server, &watched[0]) == HEARTBUS_OK && heartbus_clients_fd(clients, &watched[1]) == HEARTBUS_OK, "both can be watched");
    open_numbers(now);
    for (int fd = 0; fd < 1024; fd++)
        low += now[fd] && !before[fd] && fd != watched[0] && fd != watched[1];
    check(low == 0 || sysconf(_SC_OPEN_MAX) <= FD_SETSIZE, "only what the program watches has a number that select() knows: %d others", low);
    check(watched[0] > STDERR_FILENO && watched[1] > STDERR_FILENO && watched[0] < FD_SETSIZE && watched[1] < FD_SETSIZE,
          "these can be given to select(), and are no standard stream: %d, %d", watched[0], watched[1]);
    check(!now[STDIN_FILENO], "a standard stream that was closed stays closed");
    stop();
    dup2(standard, STDIN_FILENO);
    close(standard);
}

int main(void) {
    int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    handles_have_a_pointer();
    a_node_has_a_pointer();
    departures_must_be_told();
    a_slow_program_gets_it_back();
    a_client_and_its_nodes_have_pointers();
    logs_do_not_compete();
    its_descriptors_leave_the_programs_numbers_alone();
    check(entries("/proc/self/fd") == descriptors, "no descriptor is left behind");
    check(shrinks_to("/proc/self/task", threads), "and no thread");
    return summary();
}
