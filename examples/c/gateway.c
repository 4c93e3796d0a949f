/*
 * A gateway: brings many devices onto the bus from one thread. The library drives all of them behind one descriptor, which
 * stands in poll(2) beside whatever else the gateway has; here a pipe through which readings of devices come in, as lines
 * "DEVICE READING".
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
static uint64_t *ids; /* The client of each device, from the first on; the library counts upwards. */
static int devices, registered, sent, answered;

static void fail(void) {
    fprintf(stderr, "%s\n", heartbus_last_error());
    exit(1);
}

static void forward(const char *line) {
    int device, at;
    if (sscanf(line, "%d %n", &device, &at) != 1 || device < 1 || device > devices)
        return;
    if (heartbus_client_send(clients, ids[device - 1], line + at, strcspn(line + at, "\n"), 0) == HEARTBUS_OK)
        sent++;
    else /* Not registered at this moment, or the server does not keep up. */
        fprintf(stderr, "device-%d: %s\n", device, heartbus_last_error());
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
            if (events[i].type == HEARTBUS_EVENT_CLIENT_SERVER_ERROR || events[i].type == HEARTBUS_EVENT_CLIENT_ERROR)
                fprintf(stderr, "device-%llu: %s\n", (unsigned long long)(events[i].client_id - ids[0] + 1), events[i].text);
        }
    } while (count == 256);
}

int main(int argc, char **argv) {
    if (argc != 3 || (devices = atoi(argv[2])) < 1)
        return fprintf(stderr, "usage: gateway PORT DEVICES\n"), 2;
    ids = calloc((size_t)devices, sizeof *ids);
    if (!ids || heartbus_clients_start(NULL, 0, &clients) != HEARTBUS_OK)
        fail();
    for (int i = 0; i < devices; i++) {
        char config[96];
        int len = snprintf(config, sizeof config, "{\"port\":%d,\"node_id\":\"device-%d\"}", atoi(argv[1]), i + 1);
        if (heartbus_client_connect(clients, config, (size_t)len, &ids[i]) != HEARTBUS_OK)
            fail();
    }

    struct pollfd fds[2] = {{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    heartbus_clients_fd(clients, &fds[0].fd);
    bool announced = false, at_end = false;
    while (!at_end || answered < sent) {
        poll(fds, 2, -1);
        if (fds[0].revents)
            take_events();
        if (registered >= devices && !announced) {
            printf("%d devices are on the bus, over one descriptor\n", devices);
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
    free(ids);
    return 0;
}
