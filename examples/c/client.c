/*
 * A client: registers, sends each of its words, prints what the server answers, and leaves after the last answer.
 *
 *     cc client.c -o client $(pkg-config --cflags --libs heartbus)
 *     ./client PORT NAME WORD...
 */
#include <heartbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void must(heartbus_status status) {
    if (status == HEARTBUS_OK)
        return;
    fprintf(stderr, "%s: %s\n", heartbus_status_name(status), heartbus_last_error());
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return fprintf(stderr, "usage: client PORT NAME WORD...\n"), 2;
    int answers_to_come = argc - 3;

    heartbus_clients *clients;
    must(heartbus_clients_start(NULL, 0, &clients));
    char config[512];
    int len = snprintf(config, sizeof config, "{\"port\":%d,\"node_id\":\"%s\",\"metadata\":{\"type\":\"example\"}}", atoi(argv[1]), argv[2]);
    uint64_t me;
    must(heartbus_client_connect(clients, config, (size_t)len, &me));

    heartbus_event events[16];
    size_t count;
    while (heartbus_clients_poll(clients, events, 16, -1, &count) == HEARTBUS_OK) {
        for (size_t i = 0; i < count; i++) {
            const heartbus_event *event = &events[i];
            switch (event->type) {
            case HEARTBUS_EVENT_CLIENT_REGISTER:
                printf("Registered as %s on channel %lld\n", event->node_id, (long long)event->channel_id);
                for (int word = 3; word < argc; word++)
                    must(heartbus_client_send(clients, me, argv[word], strlen(argv[word]), 0));
                break;
            case HEARTBUS_EVENT_CLIENT_DATA:
                fputs("Server: ", stdout);
                show(event->payload, event->payload_len);
                puts("");
                if (--answers_to_come == 0)
                    must(heartbus_client_disconnect(clients, me));
                break;
            case HEARTBUS_EVENT_CLIENT_SERVER_ERROR:
            case HEARTBUS_EVENT_CLIENT_ERROR: /* It tries again by itself. */
                printf("Error %d: ", event->code);
                show(event->text, event->text_len);
                puts("");
                break;
            case HEARTBUS_EVENT_CLIENT_FINISHED:
                must(heartbus_clients_free(clients));
                puts("Left");
                return 0;
            default:;
            }
        }
    }
    return 1;
}
