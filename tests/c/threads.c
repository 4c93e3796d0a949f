/*
 * Polls and other threads: handles that are freed while a thread polls them or looks at what it got, and polls that are woken.
 * Under Valgrind and AddressSanitizer it shows that no freed memory is handed out.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static const char local[] = "{\"host\":\"127.0.0.1\",\"port\":0}";

static heartbus_server *start(uint32_t events, uint16_t *port) {
    heartbus_server *server = NULL;
    heartbus_server_start(TEXT(local), events, &server);
    heartbus_server_port(server, port);
    return server;
}

/* A group with a client whose node is `node`. */
static heartbus_clients *join(uint16_t port, const char *node, uint64_t *client_id) {
    heartbus_clients *clients = NULL;
    char config[128];
    int len = snprintf(config, sizeof config, "{\"port\":%d,\"node_id\":\"%s\",\"metadata\":{\"v\":\"1.0\"}}", port, node);
    heartbus_clients_start(NULL, 0, &clients);
    heartbus_client_connect(clients, config, (size_t)len, client_id);
    return clients;
}

/* ---- A thread that polls one handle ---- */

typedef heartbus_status (*poll_function)(void *, heartbus_event *, size_t, int32_t, size_t *);

static heartbus_status poll_server(void *handle, heartbus_event *events, size_t capacity, int32_t timeout_ms, size_t *count) {
    return heartbus_server_poll(handle, events, capacity, timeout_ms, count);
}
static heartbus_status poll_clients(void *handle, heartbus_event *events, size_t capacity, int32_t timeout_ms, size_t *count) {
    return heartbus_clients_poll(handle, events, capacity, timeout_ms, count);
}
static heartbus_status poll_log(void *handle, heartbus_event *events, size_t capacity, int32_t timeout_ms, size_t *count) {
    return heartbus_log_poll(handle, events, capacity, timeout_ms, count);
}

typedef struct {
    void *handle;
    poll_function poll;
    /* What it waits for before it looks at its events. */
    heartbus_event_type until;
    /* Set by the thread: it has such an event, and has not looked at it. By the other: it may look. */
    atomic_bool has_it, may_look;
    /* It ends without a poll more. */
    bool leaves;
    /* What it saw: whether all texts were what they should be, and how its next two polls ended. */
    bool whole;
    heartbus_status next, last;
    char why[128];
    size_t count;
    pthread_t thread;
} poller;

static void await(atomic_bool *flag) {
    for (long long until = now_ms() + LONGEST_WAIT_MS; !atomic_load(flag) && now_ms() < until;)
        poll(NULL, 0, 1);
}

/* Reads every byte that an event points to. */
static bool is_whole(const heartbus_event *event) {
    const char *payload = event->payload, *end = payload ? payload + event->payload_len : NULL;
    unsigned sum = 0;
    for (; payload != end; payload++)
        sum += (unsigned char)*payload;
    return (!event->node_id || strlen(event->node_id) == event->node_id_len) && (!event->ip || strlen(event->ip) == event->ip_len) &&
           (!event->text || strlen(event->text) == event->text_len) && (sum > 0 || !event->payload_len);
}

static void *poll_look_and_poll(void *argument) {
    poller *me = argument;
    heartbus_event events[8];
    size_t count = 0;
    bool found = false;
    while (!found && me->poll(me->handle, events, 8, -1, &count) == HEARTBUS_OK)
        for (size_t i = 0; i < count; i++)
            found = found || events[i].type == me->until;
    atomic_store(&me->has_it, true);
    await(&me->may_look);
    me->whole = found;
    for (size_t i = 0; found && i < count; i++)
        me->whole = me->whole && is_whole(&events[i]);
    if (me->leaves)
        return NULL;
    me->count = 77;
    me->next = me->poll(me->handle, events, 8, -1, &me->count);
    snprintf(me->why, sizeof me->why, "%s", heartbus_last_error());
    me->last = me->poll(me->handle, events, 8, -1, &me->count);
    return NULL;
}

static void begin(poller *poller) {
    pthread_create(&poller->thread, NULL, poll_look_and_poll, poller);
    await(&poller->has_it);
}

static void end(poller *poller) {
    atomic_store(&poller->may_look, true);
    pthread_join(poller->thread, NULL);
}

static void check_closed(const poller *poller, const char *what) {
    check(poller->whole, "%s is freed: what the thread got of it is still whole", what);
    check(poller->next == HEARTBUS_CLOSED && poller->count == 77 && strcmp(poller->why, "Another thread has freed the handle") == 0 &&
              poller->last == HEARTBUS_CLOSED,
          "and its polls say %s: %s", heartbus_status_name(poller->next), poller->why);
}

/* ---- The sentences ---- */

static void what_a_thread_got_outlives_its_handle(void) {
    uint16_t port;
    uint64_t me;
    heartbus_event event;
    size_t count;
    heartbus_server *server = start(EVERYTHING, &port);
    heartbus_clients *clients = join(port, "n", &me);
    poller of_server = {.handle = server, .poll = poll_server, .until = HEARTBUS_EVENT_REGISTER};
    poller of_clients = {.handle = clients, .poll = poll_clients, .until = HEARTBUS_EVENT_CLIENT_DATA};
    begin(&of_server);
    heartbus_server_send(server, TEXT("n"), TEXT("a payload"), 0);
    begin(&of_clients);
    check(heartbus_server_free(server) == HEARTBUS_OK && heartbus_clients_free(clients) == HEARTBUS_OK,
          "handles are freed while threads look at their events");
    end(&of_server);
    check_closed(&of_server, "a server");
    end(&of_clients);
    check_closed(&of_clients, "a group of clients");
    check_refused(heartbus_server_poll(server, &event, 1, 0, &count), HEARTBUS_INVALID_ARGUMENT, "freed already",
                  "the thread that freed it has no handle any more");

    heartbus_log *log = NULL;
    heartbus_log_start(HEARTBUS_LOG_INFO, &log);
    poller of_log = {.handle = log, .poll = poll_log, .until = HEARTBUS_EVENT_LOG};
    server = start(0, &port);
    clients = join(port, "logged", &me);
    begin(&of_log);
    check(heartbus_log_free(log) == HEARTBUS_OK, "so is a log");
    end(&of_log);
    check_closed(&of_log, "a log");
    heartbus_clients_free(clients);
    heartbus_server_free(server);
}

static void it_lasts_as_long_as_its_thread(void) {
    int descriptors = entries("/proc/self/fd");
    uint16_t port;
    uint64_t me;
    heartbus_server *server = start(EVERYTHING, &port);
    heartbus_clients *clients = join(port, "n", &me);
    poller poller = {.handle = server, .poll = poll_server, .until = HEARTBUS_EVENT_REGISTER, .leaves = true};
    begin(&poller);
    heartbus_server_free(server);
    heartbus_clients_free(clients);
    for (int n = 0; n < 3000; n++) {
        heartbus_log *log = NULL;
        heartbus_log_start(HEARTBUS_LOG_ERROR, &log);
        heartbus_log_free(log);
    }
    end(&poller);
    check(poller.whole, "3,000 more handles are freed, and what the thread got is still whole");
    check(shrinks_to("/proc/self/fd", descriptors), "it goes with the thread, and leaves no descriptor");
}

typedef struct {
    heartbus_server *server;
    atomic_bool polls;
    heartbus_status status;
    size_t count;
} waiting;

static void *wait_without_end(void *argument) {
    waiting *waiting = argument;
    heartbus_event event;
    atomic_store(&waiting->polls, true);
    do
        waiting->status = heartbus_server_poll(waiting->server, &event, 1, -1, &waiting->count);
    while (waiting->status == HEARTBUS_OK);
    return NULL;
}

static void who_polls_only_then_is_told_as_well(void) {
    uint16_t port;
    waiting late = {.server = start(0, &port), .count = 9};
    heartbus_server_free(late.server);
    pthread_t thread;
    pthread_create(&thread, NULL, wait_without_end, &late);
    pthread_join(thread, NULL);
    check(late.status == HEARTBUS_CLOSED && late.count == 9, "a thread that polls a handle only after another has freed it is told as well");
}

static void *read_until_closed(void *argument) {
    waiting *waiting = argument;
    heartbus_event events[4];
    bool whole = true;
    atomic_store(&waiting->polls, true);
    while ((waiting->status = heartbus_server_poll(waiting->server, events, 4, -1, &waiting->count)) == HEARTBUS_OK)
        for (size_t i = 0; i < waiting->count; i++)
            whole = whole && is_whole(&events[i]);
    return whole ? argument : NULL;
}

static void at_whatever_moment(void) {
    enum { ROUNDS = 40 };
    int closed = 0, whole = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint16_t port;
        uint64_t me;
        waiting waiting = {.count = 0};
        waiting.server = start(EVERYTHING, &port);
        heartbus_clients *clients = join(port, "n", &me);
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, read_until_closed, &waiting);
        await(&waiting.polls);
        /* The events of the first rounds come afterwards, those of the last before. */
        for (int sent = 0; sent < round * 10; sent++)
            heartbus_server_send(waiting.server, TEXT("n"), TEXT("x"), 0);
        heartbus_server_free(waiting.server);
        pthread_join(thread, &result);
        closed += waiting.status == HEARTBUS_CLOSED;
        whole += result == &waiting;
        heartbus_clients_free(clients);
    }
    check(closed == ROUNDS && whole == ROUNDS, "freed at %d moments: %d polls are closed, %d saw whole events only", ROUNDS, closed, whole);
}

/* Whether a node comes online in time, without a poll. */
static bool is_there(heartbus_server *server, const char *node_id) {
    heartbus_node node;
    for (long long until = now_ms() + LONGEST_WAIT_MS; now_ms() < until; poll(NULL, 0, 1))
        if (heartbus_server_node(server, node_id, strlen(node_id), &node) == HEARTBUS_OK)
            return true;
    return false;
}

static void stop_join_free_loses_nothing(void) {
    uint16_t port;
    uint64_t me;
    heartbus_server *server = start(EVERYTHING, &port);
    heartbus_clients *clients = join(port, "n", &me);
    is_there(server, "n");
    poller poller = {.handle = server, .poll = poll_server, .until = HEARTBUS_EVENT_CLOSE};
    pthread_create(&poller.thread, NULL, poll_look_and_poll, &poller);
    atomic_store(&poller.may_look, true);
    check(heartbus_server_stop(server) == HEARTBUS_OK, "a server is stopped while a thread polls it");
    pthread_join(poller.thread, NULL);
    check(poller.whole && poller.next == HEARTBUS_CLOSED && strcmp(poller.why, "Stopped, and every event was taken") == 0,
          "the thread gets every event, then: %s", poller.why);
    check(heartbus_server_free(server) == HEARTBUS_OK, "and the server is freed when the thread is done");
    heartbus_clients_free(clients);
}

static bool is_readable(int fd) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    return poll(&readable, 1, 0) == 1;
}

static void a_poll_is_woken(void) {
    uint16_t port;
    uint64_t me;
    heartbus_event events[8];
    size_t count = 9;
    int fd = -1;
    heartbus_server *server = start(EVERYTHING, &port);
    heartbus_server_fd(server, &fd);
    check(heartbus_wake(server) == HEARTBUS_OK && heartbus_wake(server) == HEARTBUS_OK && is_readable(fd),
          "a server is woken twice: its descriptor is readable");
    check(heartbus_server_poll(server, events, 8, -1, &count) == HEARTBUS_OK && count == 0 && !is_readable(fd),
          "the next poll does not wait, and then it is not readable any more");
    long long since = now_ms();
    check(heartbus_server_poll(server, events, 8, 50, &count) == HEARTBUS_OK && count == 0 && now_ms() - since >= 50, "the one after it waits");

    heartbus_clients *clients = join(port, "n", &me);
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    is_there(server, "n");
    heartbus_wake(server);
    check(heartbus_server_poll(server, events, 8, -1, &count) == HEARTBUS_OK && count > 0, "a woken poll returns the events that are there");
    while (count > 0)
        heartbus_server_poll(server, events, 8, 50, &count);
    heartbus_wake(server);
    heartbus_server_poll(server, events, 8, 0, &count);
    heartbus_client_disconnect(clients, me);
    check(poll(&readable, 1, LONGEST_WAIT_MS) == 1 && heartbus_server_poll(server, events, 8, 0, &count) == HEARTBUS_OK && count > 0,
          "events that come after a wake make the descriptor readable as before");
    check(heartbus_wake(clients) == HEARTBUS_OK, "a group of clients is woken");
    do
        heartbus_clients_poll(clients, events, 8, -1, &count);
    while (count > 0 && events[count - 1].type != HEARTBUS_EVENT_CLIENT_FINISHED);
    heartbus_log *log = NULL;
    heartbus_log_start(HEARTBUS_LOG_ERROR, &log);
    heartbus_log_fd(log, &fd);
    check(heartbus_wake(log) == HEARTBUS_OK && is_readable(fd) && heartbus_log_poll(log, events, 8, -1, &count) == HEARTBUS_OK && count == 0 &&
              !is_readable(fd),
          "and a log");
    heartbus_log_free(log);
    heartbus_clients_free(clients);
    heartbus_server_free(server);
}

typedef struct {
    heartbus_server *server;
    atomic_int asked;
    int seen;
    bool in_order;
} worker;

static void *do_what_is_asked(void *argument) {
    worker *worker = argument;
    heartbus_event events[4];
    size_t count;
    while (worker->seen < 2000 && heartbus_server_poll(worker->server, events, 4, -1, &count) == HEARTBUS_OK)
        worker->seen = atomic_load(&worker->asked);
    return NULL;
}

static void no_wake_is_lost(void) {
    uint16_t port;
    uint64_t me;
    worker worker = {.server = start(EVERYTHING, &port)};
    heartbus_clients *clients = join(port, "n", &me);
    pthread_t thread;
    pthread_create(&thread, NULL, do_what_is_asked, &worker);
    /* Meanwhile events come as well. */
    for (int n = 0; n < 2000; n++) {
        heartbus_client_ping(clients, me);
        heartbus_client_heartbeat(clients, me, TEXT("n"));
        atomic_fetch_add(&worker.asked, 1);
        heartbus_wake(worker.server);
    }
    pthread_join(thread, NULL);
    check(worker.seen == 2000, "who is woken sees what was done before: %d of 2000 at last", worker.seen);
    heartbus_clients_free(clients);
    heartbus_server_free(worker.server);
}

static void a_bus_is_woken_and_what_is_no_handle_is_not(void) {
    char path[64], config[160];
    snprintf(path, sizeof path, "/tmp/heartbus-threads-%d.sock", (int)getpid());
    snprintf(config, sizeof config, "{\"host\":\"127.0.0.1\",\"port\":0,\"bus\":\"%s\"}", path);
    heartbus_server *server = NULL;
    heartbus_bus *bus = NULL;
    heartbus_server_start(config, strlen(config), 0, &server);
    heartbus_bus_connect(path, strlen(path), 10, &bus);
    heartbus_event event;
    size_t count = 1;
    check(heartbus_wake(bus) == HEARTBUS_OK && heartbus_bus_poll(bus, &event, 1, -1, &count) == HEARTBUS_OK && count == 0,
          "a connection to the bus socket is woken before its first poll");
    check(heartbus_wake(bus) == HEARTBUS_OK && heartbus_bus_poll(bus, &event, 1, -1, &count) == HEARTBUS_OK && count == 0, "and later");
    check_refused(heartbus_wake(&server), HEARTBUS_INVALID_ARGUMENT, "no handle", "the address of something else is not");
    heartbus_bus_free(bus);
    heartbus_server_free(server);
}

int main(void) {
    int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    what_a_thread_got_outlives_its_handle();
    it_lasts_as_long_as_its_thread();
    who_polls_only_then_is_told_as_well();
    at_whatever_moment();
    stop_join_free_loses_nothing();
    a_poll_is_woken();
    no_wake_is_lost();
    a_bus_is_woken_and_what_is_no_handle_is_not();
    check(shrinks_to("/proc/self/fd", descriptors), "no descriptor is left behind");
    check(shrinks_to("/proc/self/task", threads), "and no thread");
    return summary();
}
