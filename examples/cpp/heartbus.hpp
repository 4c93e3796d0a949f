// heartbus.h for C++17: handles that free themselves, errors as exceptions, batches to loop over. Everything else is called
// through heartbus.h, which takes what get() returns.
#pragma once

#include <heartbus.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heartbus {

// The message is heartbus_last_error's.
class Error : public std::runtime_error {
public:
    explicit Error(heartbus_status status) : std::runtime_error(heartbus_last_error()), status(status) {}
    const heartbus_status status;
};

inline void check(heartbus_status status) {
    if (status != HEARTBUS_OK)
        throw Error(status);
}

// Views of an event's texts, valid as long as they are: until the next poll.
struct Event : heartbus_event {
    std::string_view node() const { return {node_id ? node_id : "", node_id_len}; }
    std::string_view data() const { return {payload ? payload : "", payload_len}; }
    std::string_view words() const { return {text ? text : "", text_len}; }
    std::string_view name() const { return heartbus_event_name(type); }
    // Of HEARTBUS_EVENT_CLOSE.
    std::string_view reason() const { return heartbus_reason_name(code); }
    // What was attached to the node or client that it is about.
    template <typename T> T *user() const { return static_cast<T *>(user_data); }
};
static_assert(sizeof(Event) == sizeof(heartbus_event), "an array of one is an array of the other");

class Batch {
public:
    Batch(const Event *events, std::size_t count) : first(events), past(events + count) {}
    const Event *begin() const { return first; }
    const Event *end() const { return past; }
    std::size_t size() const { return static_cast<std::size_t>(past - first); }
    bool empty() const { return first == past; }

private:
    const Event *first, *past;
};

// What a server and a group of clients have in common: a handle that can be moved and polled.
template <typename H, heartbus_status (*Free)(H *), heartbus_status (*Stop)(H *), heartbus_status (*Fd)(const H *, int *),
          heartbus_status (*Poll)(H *, heartbus_event *, std::size_t, std::int32_t, std::size_t *)>
class Handle {
public:
    Handle(Handle &&other) noexcept : handle(std::exchange(other.handle, nullptr)), events(std::move(other.events)) {}
    Handle &operator=(Handle &&other) noexcept {
        std::swap(handle, other.handle);
        events.swap(other.events);
        return *this;
    }
    ~Handle() { Free(handle); } // Takes NULL, and refuses what belongs to a forked process's parent.

    H *get() const { return handle; }
    void stop() { check(Stop(handle)); }
    // Makes a poll of another thread return.
    void wake() { check(heartbus_wake(handle)); }
    int fd() const {
        int fd;
        check(Fd(handle, &fd));
        return fd;
    }
    // Empty when the time is over or a signal came. Throws an Error with HEARTBUS_CLOSED after the last event.
    Batch poll(std::chrono::milliseconds timeout) {
        std::size_t count;
        check(Poll(handle, events.data(), events.size(), static_cast<std::int32_t>(timeout.count()), &count));
        return {events.data(), count};
    }

protected:
    explicit Handle(std::size_t batch) : events(batch) {}
    H *handle = nullptr;

private:
    std::vector<Event> events;
};

class Server : public Handle<heartbus_server, heartbus_server_free, heartbus_server_stop, heartbus_server_fd, heartbus_server_poll> {
public:
    // `events` is a sum of heartbus_events.
    explicit Server(std::string_view config = {}, std::uint32_t events = HEARTBUS_ON_NOTHING, std::size_t batch = 64) : Handle(batch) {
        check(heartbus_server_start(config.data(), config.size(), events, &handle));
    }
    std::uint16_t port() const {
        std::uint16_t port;
        check(heartbus_server_port(handle, &port));
        return port;
    }
    void send(std::string_view node, std::string_view data, std::int64_t channel = 0) {
        check(heartbus_server_send(handle, node.data(), node.size(), data.data(), data.size(), channel));
    }
    std::size_t broadcast(std::string_view data) {
        std::size_t count;
        check(heartbus_server_broadcast(handle, data.data(), data.size(), &count));
        return count;
    }
    void disconnect(std::string_view node) { check(heartbus_server_disconnect(handle, node.data(), node.size())); }
    // Its events carry it, the one of its departure for the last time. Throws an Error with HEARTBUS_NOT_FOUND when it is gone already.
    void attach(const Event &node, void *data) {
        check(heartbus_server_set_node_user_data(handle, node.node_id, node.node_id_len, node.channel_id, data));
    }
};

class Clients : public Handle<heartbus_clients, heartbus_clients_free, heartbus_clients_stop, heartbus_clients_fd, heartbus_clients_poll> {
public:
    explicit Clients(std::string_view config = {}, std::size_t batch = 64) : Handle(batch) {
        check(heartbus_clients_start(config.data(), config.size(), &handle));
    }
    std::uint64_t connect(std::string_view config) {
        std::uint64_t client;
        check(heartbus_client_connect(handle, config.data(), config.size(), &client));
        return client;
    }
    void send(std::uint64_t client, std::string_view data, std::int64_t channel = 0) {
        check(heartbus_client_send(handle, client, data.data(), data.size(), channel));
    }
    void disconnect(std::uint64_t client) { check(heartbus_client_disconnect(handle, client)); }
};

} // namespace heartbus
