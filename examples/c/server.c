/*
 * A server that says who comes and goes and what they say, and answers everybody. Ctrl-C stops it.
 *
 *     cc server.c -o server $(pkg-config --cflags --libs heartbus)
 *     ./server [PORT]
 */
#define _POSIX_C_SOURCE 200809L

#include <heartbus.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stopping;

static void stop(int signal) {
    (void)signal;
    stopping = 1;
}

/* What this program knows about a node. It is attached to the node, so that events lead to it without a search. */
typedef struct {
    size_t messages, bytes;
} visitor;

static void tell(heartbus_server *server, const heartbus_event *event) {
    visitor *visitor = event->user_data;
    switch (event->type) {
    case HEARTBUS_EVENT_REGISTER:
        printf("+ %s from %s:%d, %.*s\n", event->node_id, event->ip, event->port, (int)event->payload_len, event->payload);
        if (visitor) /* It left and came back so quickly that this is told as one. */
            break;
        visitor = calloc(1, sizeof *visitor);
        /* A node that is gone already takes it no more. */
        if (heartbus_server_set_node_user_data(server, event->node_id, event->node_id_len, event->channel_id, visitor) != HEARTBUS_OK)
            free(visitor);
        break;
    case HEARTBUS_EVENT_DATA: {
        char answer[256];
        if (visitor) {
            visitor->messages++;
            visitor->bytes += event->payload_len;
        }
        int len = snprintf(answer, sizeof answer, "%s, I got %zu bytes", event->node_id, event->payload_len);
        printf("  %s says: %.*s\n", event->node_id, (int)event->payload_len, event->payload);
        if (heartbus_server_send(server, event->node_id, event->node_id_len, answer, (size_t)len, 0) != HEARTBUS_OK)
            printf("! no answer for %s: %s\n", event->node_id, heartbus_last_error());
        break;
    }
    default: /* The four ways to leave; nothing else was asked for. */
        printf("- %s: %s", event->node_id, heartbus_event_name(event->type));
        if (visitor)
            printf(", after %zu messages, %zu bytes", visitor->messages, visitor->bytes);
        puts("");
        free(visitor); /* It is in no later event. */
    }
}

int main(int argc, char **argv) {
    char config[64];
    snprintf(config, sizeof config, "{\"port\":%d}", argc > 1 ? atoi(argv[1]) : 9501);
    heartbus_server *server;
    if (heartbus_server_start(config, strlen(config), HEARTBUS_ON_REGISTER | HEARTBUS_ON_DATA | HEARTBUS_ON_LEFT, &server) != HEARTBUS_OK)
        return fprintf(stderr, "%s\n", heartbus_last_error()), 1;
    uint16_t port;
    heartbus_server_port(server, &port);
    printf("Listening on port %d\n", port);
    fflush(stdout);

    /* A signal ends the wait for events, with none of them; one that comes just before the wait is seen a second later. */
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    heartbus_event events[64];
    size_t count;
    while (!stopping && heartbus_server_poll(server, events, 64, 1000, &count) == HEARTBUS_OK) {
        for (size_t i = 0; i < count; i++)
            tell(server, &events[i]);
        fflush(stdout);
    }

    /* What happens until everybody has left is told, too. */
    heartbus_server_stop(server);
    while (heartbus_server_poll(server, events, 64, 0, &count) == HEARTBUS_OK)
        for (size_t i = 0; i < count; i++)
            tell(server, &events[i]);
    heartbus_server_free(server);
    puts("Stopped");
    return 0;
}
