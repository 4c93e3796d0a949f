"""heartbus.h for Python: ctypes, nothing to compile. Waits in asyncio, through loop.add_reader().

    async with Server({"port": 9501}, ON_DATA) as server:
        async for event in server:
            server.send(event.node_id, b"thanks")
"""

import asyncio
import ctypes
import json
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass

ABI = 1  # HEARTBUS_ABI_VERSION of the header that this file was written after.
ON_CONNECT, ON_REGISTER, ON_HEARTBEAT, ON_DATA, ON_LEFT, ON_CLOSE, ON_BUFFER = 1, 2, 4, 8, 16, 32, 64
LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR = 1, 2, 3, 4
CLOSED = 4  # heartbus_status

library = ctypes.CDLL(os.environ.get("HEARTBUS_LIBRARY", f"libheartbus.so.{ABI}"))


class _Event(Structure):
    _fields_ = [
        ("type", c_int), ("code", c_int32), ("connection_id", c_uint64), ("client_id", c_uint64), ("channel_id", c_int64),
        ("count", c_uint32), ("port", c_uint16), ("reserved16", c_uint16),
        # Pointers with lengths: c_char_p would stop at the first NUL.
        ("node_id", c_void_p), ("node_id_len", c_size_t), ("payload", c_void_p), ("payload_len", c_size_t),
        ("ip", c_void_p), ("ip_len", c_size_t), ("text", c_void_p), ("text_len", c_size_t), ("time", c_double), ("cause", c_int32),
        ("reserved32", c_uint32), ("user_data", c_void_p),
    ]  # fmt: skip


class _Stat(Structure):
    _fields_ = [("name", c_char_p), ("value", c_uint64)]


_text = [c_char_p, c_size_t]
_poll = [c_void_p, POINTER(_Event), c_size_t, c_int32, POINTER(c_size_t)]
for _name, _arguments, _result in [
    ("heartbus_abi_version", [], c_uint32),
    ("heartbus_version", [], c_char_p),
    ("heartbus_last_error", [], c_char_p),
    ("heartbus_status_name", [c_int32], c_char_p),
    ("heartbus_event_name", [c_int32], c_char_p),
    ("heartbus_reason_name", [c_int32], c_char_p),
    ("heartbus_wake", [c_void_p], c_int),
    ("heartbus_server_start", [*_text, c_uint32, POINTER(c_void_p)], c_int),
    ("heartbus_server_free", [c_void_p], c_int),
    ("heartbus_server_fd", [c_void_p, POINTER(c_int)], c_int),
    ("heartbus_server_poll", _poll, c_int),
    ("heartbus_server_port", [c_void_p, POINTER(c_uint16)], c_int),
    ("heartbus_server_send", [c_void_p, *_text, *_text, c_int64], c_int),
    ("heartbus_server_broadcast", [c_void_p, *_text, POINTER(c_size_t)], c_int),
    ("heartbus_server_stats", [c_void_p, POINTER(_Stat), c_size_t, POINTER(c_size_t)], c_int),
    ("heartbus_clients_start", [*_text, POINTER(c_void_p)], c_int),
    ("heartbus_clients_free", [c_void_p], c_int),
    ("heartbus_clients_fd", [c_void_p, POINTER(c_int)], c_int),
    ("heartbus_clients_poll", _poll, c_int),
    ("heartbus_client_connect", [c_void_p, *_text, POINTER(c_uint64)], c_int),
    ("heartbus_client_send", [c_void_p, c_uint64, *_text, c_int64], c_int),
    ("heartbus_client_disconnect", [c_void_p, c_uint64], c_int),
    ("heartbus_log_start", [c_int32, POINTER(c_void_p)], c_int),
    ("heartbus_log_start_for", [c_void_p, c_int32, POINTER(c_void_p)], c_int),
    ("heartbus_log_free", [c_void_p], c_int),
    ("heartbus_log_fd", [c_void_p, POINTER(c_int)], c_int),
    ("heartbus_log_poll", _poll, c_int),
]:
    _function = getattr(library, _name)
    _function.argtypes, _function.restype = _arguments, _result

if library.heartbus_abi_version() != ABI:
    raise ImportError(f"libheartbus has ABI {library.heartbus_abi_version()}, this file was written for {ABI}")
version = library.heartbus_version().decode()


class Error(Exception):
    def __init__(self, status):
        super().__init__(library.heartbus_last_error().decode())
        self.status = status
        self.name = library.heartbus_status_name(status).decode()


def _check(status):
    if status:
        raise Error(status)


@dataclass(frozen=True)
class Event:
    """A copy: it stays valid after the next poll. `name` is that of heartbus_event_name()."""

    name: str
    node_id: str
    payload: bytes
    text: str
    ip: str
    port: int
    code: int
    connection_id: int
    client_id: int
    channel_id: int
    count: int

    @property
    def reason(self):
        """Of a "close": why the connection ended, by name."""
        return library.heartbus_reason_name(self.code).decode()


_names = {}


def _copy(event):
    if event.type not in _names:
        _names[event.type] = library.heartbus_event_name(event.type).decode()
    take = ctypes.string_at
    return Event(
        _names[event.type],
        take(event.node_id, event.node_id_len).decode() if event.node_id else "",
        take(event.payload, event.payload_len) if event.payload else b"",
        take(event.text, event.text_len).decode() if event.text else "",
        take(event.ip, event.ip_len).decode() if event.ip else "",
        event.port, event.code, event.connection_id, event.client_id, event.channel_id, event.count,
    )  # fmt: skip


class _Handle:
    """What a server, a group of clients and a log have in common."""

    _kind = ""

    def __init__(self, batch=64):
        self._handle = c_void_p()
        self._events = (_Event * batch)()
        self._count = c_size_t()
        self._poll = getattr(library, f"heartbus_{self._kind}_poll")

    def fileno(self):
        fd = c_int()
        _check(getattr(library, f"heartbus_{self._kind}_fd")(self._handle, byref(fd)))
        return fd.value

    def poll(self, timeout_ms=0):
        """A batch of events, as a list. None once it is stopped and every event was taken."""
        status = self._poll(self._handle, self._events, len(self._events), timeout_ms, byref(self._count))
        if status == CLOSED:
            return None
        _check(status)
        return [_copy(event) for event in self._events[: self._count.value]]

    def wake(self):
        """Makes a poll of another thread return, with what there is."""
        _check(library.heartbus_wake(self._handle))

    def close(self):
        """Stops it. Takes up to 1.5 s; the interpreter's lock is free meanwhile."""
        handle, self._handle = self._handle, c_void_p()
        _check(getattr(library, f"heartbus_{self._kind}_free")(handle))

    async def __aiter__(self):
        loop, fd = asyncio.get_running_loop(), self.fileno()
        while True:
            readable = loop.create_future()
            loop.add_reader(fd, lambda: readable.done() or readable.set_result(None))
            try:
                await readable
            finally:
                loop.remove_reader(fd)
            events = self.poll()
            if events is None:
                return
            for event in events:
                yield event

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await asyncio.get_running_loop().run_in_executor(None, self.close)


class Server(_Handle):
    _kind = "server"

    def __init__(self, config, events, batch=64):
        super().__init__(batch)
        config = json.dumps(config).encode()
        _check(library.heartbus_server_start(config, len(config), events, byref(self._handle)))

    @property
    def port(self):
        port = c_uint16()
        _check(library.heartbus_server_port(self._handle, byref(port)))
        return port.value

    def send(self, node_id, payload, channel_id=0):
        node_id = node_id.encode()
        _check(library.heartbus_server_send(self._handle, node_id, len(node_id), payload, len(payload), channel_id))

    def broadcast(self, payload):
        count = c_size_t()
        _check(library.heartbus_server_broadcast(self._handle, payload, len(payload), byref(count)))
        return count.value

    def stats(self):
        stats, count = (_Stat * 256)(), c_size_t()
        _check(library.heartbus_server_stats(self._handle, stats, len(stats), byref(count)))
        return {stat.name.decode(): stat.value for stat in stats[: count.value]}


class Clients(_Handle):
    _kind = "clients"

    def __init__(self, config=None, batch=64):
        super().__init__(batch)
        config = json.dumps(config or {}).encode()
        _check(library.heartbus_clients_start(config, len(config), byref(self._handle)))

    def connect(self, **config):
        config, client_id = json.dumps(config).encode(), c_uint64()
        _check(library.heartbus_client_connect(self._handle, config, len(config), byref(client_id)))
        return client_id.value

    def send(self, client_id, payload, channel_id=0):
        _check(library.heartbus_client_send(self._handle, client_id, payload, len(payload), channel_id))

    def disconnect(self, client_id):
        _check(library.heartbus_client_disconnect(self._handle, client_id))


class Log(_Handle):
    """Messages of one server or group of clients, or of all. Several do not take them away from each other."""

    _kind = "log"

    def __init__(self, level=LOG_INFO, of=None, batch=64):
        super().__init__(batch)
        if of is None:
            _check(library.heartbus_log_start(level, byref(self._handle)))
        else:
            _check(library.heartbus_log_start_for(of._handle, level, byref(self._handle)))
