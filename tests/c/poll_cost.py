"""What a poll costs in Python: as poll_cost.c, through examples/python/heartbus.py, which copies each event into an object."""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples/python"))
import heartbus  # noqa: E402

NODES, EVENTS, SIZES = 16, 20_000, (1, 64, 1024)


def drain(server, size):
    server._events = (heartbus._Event * size)()
    taken, since = 0, time.thread_time()
    while taken < EVENTS:
        taken += len(server.poll())
    return EVENTS / (time.thread_time() - since)


def fill(server, clients, ids):
    for i in range(EVENTS):
        while True:
            try:
                clients.send(ids[i % NODES], b"0123456789abcdef")
                break
            except heartbus.Error as error:
                if error.name != "LIMIT":
                    raise
                time.sleep(0.001)
    while server.stats()["inbox_queued_events"] < EVENTS:
        time.sleep(0.001)


server = heartbus.Server({"host": "127.0.0.1", "port": 0, "inbox_events": 65536}, heartbus.ON_DATA)
clients = heartbus.Clients()
ids = [clients.connect(port=server.port, node_id=f"node-{i}", heartbeat_interval=3600) for i in range(NODES)]
registered = 0
while registered < NODES:
    registered += sum(event.name == "client_register" for event in clients.poll(-1))
# Once for nothing: what grows has grown then.
fill(server, clients, ids)
drain(server, 1024)
for size in SIZES:
    fill(server, clients, ids)
    print(f"Python | {size} | {drain(server, size):.0f}")
clients.close()
server.close()
