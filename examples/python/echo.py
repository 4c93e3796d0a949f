"""A server and three clients in one asyncio loop: the clients say hello, the server answers.

PYTHONPATH need not be set: heartbus.py lies beside this file. HEARTBUS_LIBRARY names the library, if it is not installed.
"""

import asyncio

import heartbus
from heartbus import LOG_INFO, ON_DATA, ON_LEFT, ON_REGISTER


async def serve(server, guests):
    """Until that many have left again."""
    async for event in server:
        print(f"server: {event.node_id} {event.name} {event.payload.decode()}".rstrip())
        if event.name == "data":
            server.send(event.node_id, b"hello " + event.node_id.encode())
        elif event.name != "register":
            guests -= 1
            if guests == 0:
                return


async def main():
    async with heartbus.Server({"host": "127.0.0.1", "port": 0}, ON_REGISTER | ON_DATA | ON_LEFT) as server, heartbus.Clients() as clients:
        log = heartbus.Log(LOG_INFO, server)
        running = {clients.connect(port=server.port, node_id=name) for name in ("ann", "ben", "cleo")}
        serving = asyncio.create_task(serve(server, len(running)))
        async for event in clients:
            if event.name == "client_register":
                clients.send(event.client_id, b"hello")
            elif event.name == "client_data":
                print(f"{event.node_id}: the server says {event.payload.decode()}")
                clients.disconnect(event.client_id)
            elif event.name == "client_finished":
                running.remove(event.client_id)
                if not running:
                    break
        # The loop was never blocked: something else could have run all the time.
        await serving
        try:
            server.send("nobody", b"?")
        except heartbus.Error as error:
            print(f"refused: {error.name}, {error}")
    # The server has stopped; what it had to say until then is still there.
    for event in log.poll():
        print(f"log: {event.text} {event.payload.decode()}")
    log.close()


asyncio.run(main())
