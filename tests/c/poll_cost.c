/*
 * What a poll costs: how many events a C program takes out of a server in each second that its thread spends on a core, by the
 * size of its batches. The events wait already when the clock starts, so that nothing but poll is measured: 50,000 times data of
 * 16 bytes from 16 nodes. Prints one line for each size, as "C | 64 | 12345678". heartbus-bench run --only poll makes medians of many runs.
 */
#define _POSIX_C_SOURCE 200809L

#include "heartbus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NODES 16
#define EVENTS 50000

static heartbus_server *server;
static heartbus_clients *clients;
static uint64_t ids[NODES];
static heartbus_event events[1024];

static void must(heartbus_status status) {
    if (status == HEARTBUS_OK)
        return;
    fprintf(stderr, "%s: %s\n", heartbus_status_name(status), heartbus_last_error());
    exit(1);
}

/* Of this thread on a core: whatever else the machine does costs other time. */
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void pause_ms(long ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL); }

static uint64_t waiting(void) {
    heartbus_stat stats[128];
    size_t count;
    must(heartbus_server_stats(server, stats, 128, &count));
    for (size_t i = 0; i < count && i < 128; i++)
        if (strcmp(stats[i].name, "inbox_queued_events") == 0)
            return stats[i].value;
    return 0;
}

static void fill(void) {
    for (int i = 0; i < EVENTS; i++) {
        heartbus_status status;
        while ((status = heartbus_client_send(clients, ids[i % NODES], "0123456789abcdef", 16, 0)) == HEARTBUS_LIMIT)
            pause_ms(1);
        must(status);
    }
    while (waiting() < EVENTS)
        pause_ms(1);
}

static double drain(size_t batch) {
    size_t taken = 0, count;
    double since = now();
    while (taken < EVENTS) {
        must(heartbus_server_poll(server, events, batch, 0, &count));
        taken += count;
    }
    return EVENTS / (now() - since);
}

int main(void) {
    const char *config = "{\"host\":\"127.0.0.1\",\"port\":0,\"inbox_events\":65536}";
    must(heartbus_server_start(config, strlen(config), HEARTBUS_ON_DATA, &server));
    must(heartbus_clients_start(NULL, 0, &clients));
    uint16_t port;
    must(heartbus_server_port(server, &port));
    for (int i = 0; i < NODES; i++) {
        char settings[64];
        int len = snprintf(settings, sizeof settings, "{\"port\":%d,\"node_id\":\"node-%d\",\"heartbeat_interval\":3600}", port, i);
        must(heartbus_client_connect(clients, settings, (size_t)len, &ids[i]));
    }
    size_t count;
    for (int registered = 0; registered < NODES;) {
        must(heartbus_clients_poll(clients, events, 64, -1, &count));
        for (size_t i = 0; i < count; i++)
            registered += events[i].type == HEARTBUS_EVENT_CLIENT_REGISTER;
    }

    /* Once for nothing: what grows has grown then. */
    fill();
    drain(1024);
    const size_t sizes[] = {1, 64, 1024};
    for (int size = 0; size < 3; size++) {
        fill();
        printf("C | %zu | %.0f\n", sizes[size], drain(sizes[size]));
    }
    must(heartbus_clients_free(clients));
    must(heartbus_server_free(server));
    return 0;
}
