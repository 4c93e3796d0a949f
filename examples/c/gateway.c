/*
 * A gateway: brings many devices onto the bus over one connection. Each device is a node of its own there. The library's
 * descriptor stands in poll(2) beside whatever else the gateway has; here a pipe through which the devices report, as lines
 * "DEVICE READING". Who reports is alive: a device that falls silent times out, and comes back when it reports again.
 *
 *     cc gateway.c -o gateway $(pkg-config --cflags --libs heartbus)
 *     some-source-of-readings | ./gateway PORT DEVICES
 */
#define _POSIX_C_SOURCE 200809L

#include <heartbus.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static heartbus_clients *clients;
static uint64_t gateway;
static int devices, registered, sent, answered;

static void fail(void) {
    fprintf(stderr, "%s\n", heartbus_last_error());
    exit(1);
}

static void add(const char *device, size_t len) {
    if (heartbus_client_add_node(clients, gateway, device, len, NULL, 0) != HEARTBUS_OK)
        fail();
}

/* A line is a sign of life and a reading. */
static void forward(const char *line) {
    char device[32];
    int number, at;
    if (sscanf(line, "%d %n", &number, &at) != 1 || number < 1 || number > devices)
        return;
    size_t len = (size_t)snprintf(device, sizeof device, "device-%d", number);
    heartbus_status status = heartbus_client_heartbeat(clients, gateway, device, len);
    if (status == HEARTBUS_NOT_FOUND) /* It had timed out. */
        add(device, len);
    else if (status == HEARTBUS_OK)
        status = heartbus_client_send_from(clients, gateway, device, len, line + at, strcspn(line + at, "\n"));
    if (status == HEARTBUS_OK)
        sent++;
    else /* Not registered at this moment, or the server does not keep up. */
        fprintf(stderr, "%s: %s\n", device, heartbus_last_error());
}

/* Takes what the pipe holds and forwards the lines that are whole. False at its end. */
static bool take_readings(void) {
    static char text[4096];
    static size_t held;
    ssize_t more = read(STDIN_FILENO, text + held, sizeof text - 1 - held);
    if (more <= 0)
        return false;
    held += (size_t)more;
    text[held] = 0;
    char *line = text, *end;
    for (; (end = strchr(line, '\n')); line = end + 1)
        forward(line);
    held = line == text && held == sizeof text - 1 ? 0 : strlen(line); /* No device has a line that long. */
    memmove(text, line, held);
    return true;
}

/* Everything that waits, in batches. */
static void take_events(void) {
    heartbus_event events[256];
    size_t count;
    do {
        if (heartbus_clients_poll(clients, events, 256, 0, &count) != HEARTBUS_OK)
            fail();
        for (size_t i = 0; i < count; i++) {
            registered += events[i].type == HEARTBUS_EVENT_CLIENT_REGISTER;
            answered += events[i].type == HEARTBUS_EVENT_CLIENT_DATA;
            if (events[i].type == HEARTBUS_EVENT_CLIENT_NODE_LOST)
                fprintf(stderr, "%s: %s\n", events[i].node_id, events[i].text);
            if (events[i].type == HEARTBUS_EVENT_CLIENT_SERVER_ERROR || events[i].type == HEARTBUS_EVENT_CLIENT_ERROR)
                fprintf(stderr, "%s\n", events[i].text);
        }
    } while (count == 256);
}

int main(int argc, char **argv) {
    if (argc != 3 || (devices = atoi(argv[2])) < 1)
        return fprintf(stderr, "usage: gateway PORT DEVICES\n"), 2;
    char text[128];
    int len = snprintf(text, sizeof text, "{\"port\":%d,\"node_id\":\"gateway\",\"heartbeat_all\":false,\"max_nodes\":%d}",
                       atoi(argv[1]), devices + 1);
    if (heartbus_clients_start(NULL, 0, &clients) != HEARTBUS_OK ||
        heartbus_client_connect(clients, text, (size_t)len, &gateway) != HEARTBUS_OK)
        fail();
    for (int i = 1; i <= devices; i++)
        add(text, (size_t)snprintf(text, sizeof text, "device-%d", i));

    struct pollfd fds[2] = {{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    heartbus_clients_fd(clients, &fds[0].fd);
    bool announced = false, at_end = false;
    while (!at_end || answered < sent) {
        poll(fds, 2, -1);
        if (fds[0].revents)
            take_events();
        if (registered > devices && !announced) { /* The gateway itself is a node, too. */
            printf("%d devices are on the bus, over one connection\n", devices);
            fflush(stdout);
            announced = true;
            fds[1].fd = STDIN_FILENO; /* Readings are taken from now on. */
        }
        if (fds[1].revents && !take_readings()) {
            at_end = true;
            fds[1].fd = -1;
        }
    }
    printf("%d readings sent, %d answered\n", sent, answered);
    heartbus_clients_free(clients);
    return 0;
}
