/*
 * Calls every function that takes a handle after its server or group was stopped, and compares what they say with the table of
 * docs/C-API.md, which must have a row for each of them and for nothing else.
 *
 *     after_stop docs/C-API.md
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <unistd.h>

#define ROOM 128

typedef struct {
    char function[64];
    char status[64];
} row;

static row promised[ROOM], found[ROOM];
static size_t promises, calls;

/* The text between two backticks behind `from`, and where it ends; NULL when there is none before `end`. */
static const char *quoted(const char *from, const char *end, char *text, size_t room) {
    const char *open = memchr(from, '`', (size_t)(end - from));
    const char *close = open ? memchr(open + 1, '`', (size_t)(end - open - 1)) : NULL;
    if (!close || (size_t)(close - open) > room)
        return NULL;
    memcpy(text, open + 1, (size_t)(close - open - 1));
    text[close - open - 1] = 0;
    return close + 1;
}

static void read_table(const char *page) {
    FILE *file = fopen(page, "r");
    static char line[65536];
    bool inside = false;
    while (file && fgets(line, sizeof line, file)) {
        /* Its head names both, in whichever language. */
        if (line[0] == '|' && !inside && strstr(line, "`heartbus_server_stop`") && strstr(line, "`heartbus_clients_stop`") && strstr(line, "| |"))
            inside = true;
        else if (inside && line[0] != '|')
            break;
        else if (inside && line[1] == ' ') {
            const char *bar = strchr(line + 1, '|'), *end = line + strlen(line), *at = line;
            char status[64] = "";
            quoted(bar, end, status, sizeof status);
            while (promises < ROOM && (at = quoted(at, bar, promised[promises].function, sizeof promised[promises].function)))
                strcpy(promised[promises++].status, status);
        }
    }
    if (file)
        fclose(file);
}

static void note(const char *function, heartbus_status status) {
    if (calls == ROOM)
        abort();
    snprintf(found[calls].function, sizeof found[calls].function, "%s", function);
    snprintf(found[calls++].status, sizeof found[0].status, "HEARTBUS_%s", heartbus_status_name(status));
}
#define CALL(function, ...) note(#function, function(__VA_ARGS__))

static const row *of(const row *rows, size_t count, const char *function) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].function, function) == 0)
            return &rows[i];
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return fprintf(stderr, "usage: after_stop docs/C-API.md\n"), 2;
    read_table(argv[1]);
    check(promises > 40, "the table names %zu functions", promises);

    char path[64], config[160];
    snprintf(path, sizeof path, "/tmp/heartbus-after-stop-%d.sock", (int)getpid());
    snprintf(config, sizeof config, "{\"host\":\"127.0.0.1\",\"port\":0,\"bus\":\"%s\"}", path);
    heartbus_server *server = NULL;
    heartbus_clients *clients = NULL;
    heartbus_bus *bus = NULL;
    heartbus_log *log = NULL;
    uint64_t me = 0, cursor = 0;
    uint16_t port = 0;
    heartbus_server_start(config, strlen(config), EVERYTHING, &server);
    heartbus_bus_connect(path, strlen(path), 10, &bus);
    heartbus_bus_subscribe_topics(bus, TEXT("t"));
    heartbus_server_port(server, &port);
    heartbus_clients_start(NULL, 0, &clients);
    snprintf(config, sizeof config, "{\"port\":%d,\"node_id\":\"n\"}", port);
    heartbus_client_connect(clients, config, strlen(config), &me);

    /* A client that is registered, and whose end the program has not seen when its group was stopped. */
    heartbus_event event;
    size_t count = 1;
    for (event.type = 0; event.type != HEARTBUS_EVENT_CLIENT_REGISTER && count == 1;)
        if (heartbus_clients_poll(clients, &event, 1, LONGEST_WAIT_MS, &count) != HEARTBUS_OK)
            break;
    heartbus_client_add_node(clients, me, TEXT("added"), NULL, 0);
    heartbus_clients_stop(clients);
    heartbus_server_stop(server);
    static _Alignas(8) unsigned char result[256];
    void *any = result;
    const heartbus_text id = {TEXT("n")};

    CALL(heartbus_server_stop, server);
    CALL(heartbus_server_port, server, &port);
    CALL(heartbus_server_fd, server, any);
    CALL(heartbus_server_subscribe, server, HEARTBUS_ON_DATA);
    CALL(heartbus_server_send, server, TEXT("n"), TEXT("x"), 0);
    CALL(heartbus_server_broadcast, server, TEXT("x"), &count);
    CALL(heartbus_server_disconnect, server, TEXT("n"));
    CALL(heartbus_server_keep_alive, server, TEXT("n"));
    CALL(heartbus_server_set_metadata, server, TEXT("n"), TEXT("{}"));
    CALL(heartbus_server_heartbeat_timeout, server, any);
    CALL(heartbus_server_set_heartbeat_timeout, server, 10);
    CALL(heartbus_server_close_door, server);
    CALL(heartbus_server_node, server, TEXT("n"), any);
    CALL(heartbus_server_node_of_channel, server, 1, any);
    CALL(heartbus_server_node_of_connection, server, 1, any);
    CALL(heartbus_server_nodes, server, &cursor, any, 1, &count);
    CALL(heartbus_server_connections, server, any, 1, &count);
    CALL(heartbus_server_stats, server, any, 1, &count);
    CALL(heartbus_server_metrics, server, any, &count);
    CALL(heartbus_server_publish, server, TEXT("t"), TEXT("x"), NULL, 0, any);
    CALL(heartbus_server_broadcast_except, server, TEXT("x"), NULL, 0, &count);
    CALL(heartbus_server_subscribers, server, TEXT("t"), &count);
    cursor = 0;
    CALL(heartbus_server_topics, server, &cursor, any, 1, &count);
    CALL(heartbus_server_join, server, TEXT("n"), TEXT("t"));
    CALL(heartbus_server_leave, server, TEXT("n"), TEXT("t"));
    cursor = 0;
    CALL(heartbus_server_members, server, TEXT("t"), &cursor, any, 1, &count);
    CALL(heartbus_server_topics_of, server, TEXT("n"), any, 1, &count);
    CALL(heartbus_server_decide, server, 1, 1, NULL, 0);
    CALL(heartbus_server_decide_topics, server, 1, &id, 1);
    CALL(heartbus_server_decide_publication, server, 1, TEXT("t"), TEXT("x"));
    CALL(heartbus_server_subscribe_topics, server, TEXT("t"));
    CALL(heartbus_server_unsubscribe_topics, server, TEXT("t"));
    CALL(heartbus_server_node_user_data, server, TEXT("n"), 0, any);
    CALL(heartbus_server_set_node_user_data, server, TEXT("n"), 0, any);
    CALL(heartbus_clients_stop, clients);
    CALL(heartbus_clients_fd, clients, any);
    CALL(heartbus_clients_count, clients, &count);
    check(count == 0, "a stopped group has no clients");
    CALL(heartbus_clients_bytes_kept, clients, &count);
    check(count == 0, "and keeps nothing for them");
    CALL(heartbus_client_connect, clients, config, strlen(config), &cursor);
    CALL(heartbus_client_send, clients, me, TEXT("x"), 0);
    CALL(heartbus_client_add_node, clients, me, TEXT("m"), NULL, 0);
    CALL(heartbus_client_remove_node, clients, me, TEXT("added"));
    CALL(heartbus_client_send_from, clients, me, TEXT("n"), TEXT("x"));
    CALL(heartbus_client_heartbeat, clients, me, TEXT("n"));
    CALL(heartbus_client_ping, clients, me);
    CALL(heartbus_client_subscribe, clients, me, TEXT("t"), NULL);
    CALL(heartbus_client_unsubscribe, clients, me, TEXT("t"));
    CALL(heartbus_client_publish, clients, me, TEXT("t"), TEXT("x"), 0);
    CALL(heartbus_client_position, clients, me, TEXT("t"), any);
    CALL(heartbus_client_disconnect, clients, me);
    CALL(heartbus_client_info, clients, me, any);
    CALL(heartbus_client_user_data, clients, me, NULL, 0, any);
    CALL(heartbus_client_set_user_data, clients, me, NULL, 0, any);
    check_refused(heartbus_client_ping(clients, 4711), HEARTBUS_CLOSED, "stopped", "nor does it look for one that never was");
    CALL(heartbus_user_data, server, any);
    CALL(heartbus_set_user_data, server, any);
    CALL(heartbus_wake, server);
    CALL(heartbus_log_start_for, server, HEARTBUS_LOG_INFO, &log);
    heartbus_log_free(log);
    CALL(heartbus_bus_send, bus, TEXT("n"), TEXT("x"), 0);
    CALL(heartbus_bus_send_many, bus, &id, 1, TEXT("x"), &count);
    CALL(heartbus_bus_broadcast, bus, TEXT("x"), &count);
    CALL(heartbus_bus_disconnect, bus, TEXT("n"));
    CALL(heartbus_bus_keep_alive, bus, TEXT("n"));
    CALL(heartbus_bus_node, bus, TEXT("n"), any);
    CALL(heartbus_bus_node_of_channel, bus, 1, any);
    CALL(heartbus_bus_node_of_connection, bus, 1, any);
    cursor = 0;
    CALL(heartbus_bus_nodes, bus, NULL, 0, NULL, 0, &cursor, any, 1, &count);
    cursor = 0;
    CALL(heartbus_bus_find_nodes, bus, NULL, 0, NULL, 0, NULL, 0, &cursor, any, 1, &count);
    CALL(heartbus_bus_set_metadata, bus, TEXT("n"), TEXT("{}"));
    CALL(heartbus_bus_connections, bus, any, 1, &count);
    CALL(heartbus_bus_stats, bus, any, 1, &count);
    CALL(heartbus_bus_metrics, bus, any, &count);
    CALL(heartbus_bus_publish, bus, TEXT("t"), TEXT("x"), NULL, 0, any);
    CALL(heartbus_bus_broadcast_except, bus, TEXT("x"), NULL, 0, &count);
    CALL(heartbus_bus_subscribers, bus, TEXT("t"), &count);
    cursor = 0;
    CALL(heartbus_bus_topics, bus, &cursor, any, 1, &count);
    CALL(heartbus_bus_join, bus, TEXT("n"), TEXT("t"));
    CALL(heartbus_bus_leave, bus, TEXT("n"), TEXT("t"));
    cursor = 0;
    CALL(heartbus_bus_members, bus, TEXT("t"), &cursor, any, 1, &count);
    CALL(heartbus_bus_topics_of, bus, TEXT("n"), any, 1, &count);
    CALL(heartbus_bus_subscribe_topics, bus, TEXT("u"));
    CALL(heartbus_bus_subscribe_topics_since, bus, TEXT("v"), NULL);
    CALL(heartbus_bus_fd, bus, any);
    CALL(heartbus_bus_poll, bus, &event, 1, 0, &count);
    CALL(heartbus_bus_unsubscribe_topics, bus, TEXT("t"));
    CALL(heartbus_bus_decide, bus, 1, 1, NULL, 0);
    CALL(heartbus_bus_decide_topics, bus, 1, &id, 1);
    CALL(heartbus_bus_decide_publication, bus, 1, TEXT("t"), TEXT("x"));
    CALL(heartbus_bus_heartbeat_timeout, bus, any);
    CALL(heartbus_bus_set_heartbeat_timeout, bus, 10);
    CALL(heartbus_bus_close_door, bus);
    /* What is left first. */
    heartbus_status status;
    for (count = 0; (status = heartbus_server_poll(server, &event, 1, -1, &count)) == HEARTBUS_OK;)
        ;
    note("heartbus_server_poll", status);
    bool finished = false;
    while ((status = heartbus_clients_poll(clients, &event, 1, -1, &count)) == HEARTBUS_OK)
        finished = finished || event.type == HEARTBUS_EVENT_CLIENT_FINISHED;
    note("heartbus_clients_poll", status);
    check(finished, "what is left is told to the end");
    CALL(heartbus_bus_free, bus);
    CALL(heartbus_clients_free, clients);
    CALL(heartbus_server_free, server);

    for (size_t i = 0; i < calls; i++) {
        const row *promise = of(promised, promises, found[i].function);
        check(promise && strcmp(promise->status, found[i].status) == 0, "%s: %s, and the table says %s", found[i].function, found[i].status,
              promise ? promise->status : "nothing");
    }
    for (size_t i = 0; i < promises; i++)
        if (!of(found, calls, promised[i].function))
            check(false, "%s is in the table, and was not called", promised[i].function);
    return summary();
}
