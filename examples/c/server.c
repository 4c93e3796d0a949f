/*
 * A server that says who comes and goes and what they say, and answers everybody. Who is there is put into the topic "visitors", and
 * hears of those who leave. Ctrl-C stops it.
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

/* Prints what a stranger wrote. What steers a terminal or turns its text around (control characters, the marks of direction) is shown
 * in numbers. */
static void show(const char *text, size_t len) {
    static const char *const unseen[] = {"\xd8\x9c", "\xe2\x80\x8e", "\xe2\x80\x8f", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaa", "\xe2\x80\xab",
                                         "\xe2\x80\xac", "\xe2\x80\xad", "\xe2\x80\xae", "\xe2\x81\xa6", "\xe2\x81\xa7", "\xe2\x81\xa8", "\xe2\x81\xa9"};
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        size_t hidden = byte < 0x20 || byte == 0x7f;
        if (byte == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0)
            hidden = 2;
        for (size_t k = 0; k < sizeof unseen / sizeof *unseen; k++)
            if (strlen(unseen[k]) <= len - i && memcmp(text + i, unseen[k], strlen(unseen[k])) == 0)
                hidden = strlen(unseen[k]);
        if (!hidden)
            putchar(byte);
        for (size_t end = i + hidden; hidden && i < end; i++)
            printf("\\x%02x", (unsigned char)text[i]);
        i -= hidden > 0;
    }
}

/* What this program knows about a node. It is attached to the node, so that events lead to it without a search. */
typedef struct {
    size_t messages, bytes;
} visitor;

static void tell(heartbus_server *server, const heartbus_event *event) {
    visitor *visitor = event->user_data;
    switch (event->type) {
    case HEARTBUS_EVENT_REGISTER:
        fputs("+ ", stdout);
        show(event->node_id, event->node_id_len);
        printf(" from %s:%d, ", event->ip, event->port);
        show(event->payload, event->payload_len);
        puts("");
        heartbus_server_join(server, event->node_id, event->node_id_len, "visitors", 8);
        if (visitor) /* It left and came back so quickly that this is told as one. */
            break;
        visitor = calloc(1, sizeof *visitor);
        /* A node that is gone already takes it no more. */
        if (heartbus_server_set_node_user_data(server, event->node_id, event->node_id_len, event->channel_id, visitor) != HEARTBUS_OK)
            free(visitor);
        break;
    case HEARTBUS_EVENT_DATA: {
        char answer[320]; /* An id may have 255 bytes. */
        if (visitor) {
            visitor->messages++;
            visitor->bytes += event->payload_len;
        }
        int len = snprintf(answer, sizeof answer, "%s, I got %zu bytes", event->node_id, event->payload_len);
        fputs("  ", stdout);
        show(event->node_id, event->node_id_len);
        fputs(" says: ", stdout);
        show(event->payload, event->payload_len);
        puts("");
        if (heartbus_server_send(server, event->node_id, event->node_id_len, answer, (size_t)len, 0) != HEARTBUS_OK)
            printf("! no answer: %s\n", heartbus_last_error());
        break;
    }
    default: /* The four ways to leave; nothing else was asked for. */
        fputs("- ", stdout);
        show(event->node_id, event->node_id_len);
        printf(": %s", heartbus_event_name(event->type));
        if (visitor)
            printf(", after %zu messages, %zu bytes", visitor->messages, visitor->bytes);
        /* It is in no topic any more; after the stop there is nobody to tell. */
        heartbus_publication told;
        if (heartbus_server_publish(server, "visitors", 8, event->node_id, event->node_id_len, NULL, 0, &told) == HEARTBUS_OK)
            printf("; %u others hear of it", (unsigned)told.reach);
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
