"""The library `websockets` as a node: `client.py URL`. Ends with 0 when everything came as it should.

The server sends every message back to its node."""

import asyncio
import json
import struct
import sys

import websockets

REGISTER, HEARTBEAT, ANSWER, DATA = 6, 1, 2, 3


def frame(kind, payload=b"", channel=0):
    return struct.pack(">HBBII", 0xAB13, kind, 0, len(payload), channel) + payload


def parse(message):
    _, kind, _, length, channel = struct.unpack(">HBBII", message[:12])
    assert len(message) == 12 + length
    return kind, channel, message[12:]


async def v2(url, **options):
    async with websockets.connect(url, subprotocols=["heartbus.v2"], **options) as peer:
        assert peer.subprotocol == "heartbus.v2"
        await peer.send(frame(REGISTER, b'{"node_id":"python"}'))
        kind, _, payload = parse(await peer.recv())
        assert (kind, json.loads(payload)["node_id"]) == (REGISTER, "python")
        await peer.send(frame(HEARTBEAT))
        assert parse(await peer.recv())[0] == ANSWER
        for length in (0, 1, 125, 126, 65535, 65536, 500000):
            data = bytes(n % 256 for n in range(length))
            await peer.send(frame(DATA, data))
            kind, _, echo = parse(await peer.recv())
            assert (kind, echo) == (DATA, data), length
        # In fragments, with a ping behind them.
        whole = frame(DATA, b"in fragments" * 100)
        await peer.send([whole[:3], whole[3:500], whole[500:]])
        assert parse(await peer.recv())[2] == b"in fragments" * 100
        await asyncio.wait_for(await peer.ping(), 10)
        await peer.close(1000, "done")
    assert peer.close_code == 1000, peer.close_code


async def text(url):
    async with websockets.connect(url, subprotocols=["heartbus.json"], compression=None) as first:
        await first.send('{"type":"register","node_id":"tab"}')
        assert json.loads(await first.recv())["type"] == "register"
        await first.send(json.dumps({"type": "data", "data": "早上好 \U0001f600"}))
        assert json.loads(await first.recv())["data"] == "早上好 \U0001f600"
        async with websockets.connect(url, subprotocols=["heartbus.json"]) as second:
            await second.send('{"type":"register","node_id":"tab"}')
            assert json.loads(await second.recv())["type"] == "register"
            assert json.loads(await first.recv())["code"] == 409
            try:
                await first.recv()
                raise AssertionError("it is open")
            except websockets.ConnectionClosed:
                assert first.close_code == 4409, first.close_code
            # A message that is too long.
            try:
                await second.send("x" * 20000000)
                await second.recv()
                raise AssertionError("it is open")
            except websockets.ConnectionClosed:
                assert second.close_code in (1009, 1006), second.close_code


async def main(url):
    await v2(url, compression=None)
    # It offers permessage-deflate, and uses it where that is taken.
    await v2(url, compression="deflate")
    await text(url)
    print("OK")


asyncio.run(main(sys.argv[1]))
