// A server and a client in one program: the client says hello, the server answers, both tell what they saw.
//
//     c++ -std=c++17 echo.cpp -o echo $(pkg-config --cflags --libs heartbus)
#include "heartbus.hpp"

#include <iostream>
#include <poll.h>

using namespace std::chrono_literals;

int main() try {
    heartbus::Server server(R"({"host":"127.0.0.1","port":0})", HEARTBUS_ON_REGISTER | HEARTBUS_ON_DATA | HEARTBUS_ON_LEFT);
    heartbus::Clients clients;
    auto me = clients.connect(R"({"node_id":"cpp","port":)" + std::to_string(server.port()) + "}");

    pollfd fds[] = {{server.fd(), POLLIN, 0}, {clients.fd(), POLLIN, 0}};
    for (bool finished = false, left = false; !finished || !left;) {
        ::poll(fds, 2, -1);
        for (const auto &event : server.poll(0ms)) {
            std::cout << "server: " << event.node() << ' ' << event.name() << ' ' << event.data() << '\n';
            if (event.type == HEARTBUS_EVENT_DATA)
                server.send(event.node(), "hello " + std::string(event.node()));
            left |= event.type == HEARTBUS_EVENT_UNREGISTER;
        }
        for (const auto &event : clients.poll(0ms)) {
            std::cout << "client: " << event.name() << ' ' << event.data() << event.words() << '\n';
            if (event.type == HEARTBUS_EVENT_CLIENT_REGISTER)
                clients.send(me, "hello");
            else if (event.type == HEARTBUS_EVENT_CLIENT_DATA)
                clients.disconnect(me);
            finished |= event.type == HEARTBUS_EVENT_CLIENT_FINISHED;
        }
    }

    heartbus::Server moved = std::move(server);
    try {
        moved.send("nobody", "?");
    } catch (const heartbus::Error &error) {
        std::cout << "refused: " << heartbus_status_name(error.status) << ", " << error.what() << '\n';
    }
} catch (const heartbus::Error &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
