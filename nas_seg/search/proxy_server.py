"""A server that many workers reach one database through: Optuna's gRPC storage proxy, and the turns of a search.

Who can reach its port can read and change every study: it asks for no password and encrypts nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import optuna
from optuna.storages._grpc.auto_generated import api_pb2_grpc
from optuna.storages._grpc.servicer import OptunaStorageProxyService

from nas_seg.search.grpc_storage import GIVE_TURN, TAKE_TURN, TURNS_SERVICE
from nas_seg.search.storage import SECONDS_TO_LOCK, STORAGE_ERRORS, open_storage, shown_url, unreachable
from nas_seg.utils.errors import InputError

LOOPBACK = "127.0.0.1"
# Calls that are answered at once; the others wait, each for milliseconds.
_THREADS = 16
# Nobody has more turns at once than a few names for each study.
_MOST_TURNS = 10_000


class Turns:
    """Who has the turn of which name. A holder that is silent for `seconds` has lost it."""

    def __init__(self, seconds: float = SECONDS_TO_LOCK, clock: Callable[[], float] = time.monotonic):
        self._seconds, self._clock = seconds, clock
        self._held: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def take(self, name: str, holder: str) -> bool:
        """Whether the turn is the holder's now."""
        now = self._clock()
        with self._lock:
            self._held = {key: value for key, value in self._held.items() if value[1] > now}
            there = self._held.get(name)
            if len(self._held) >= _MOST_TURNS or (there is not None and there[0] != holder):
                return False
            self._held[name] = (holder, now + self._seconds)
            return True

    def give(self, name: str, holder: str) -> bool:
        """Ends a turn; False when it was not the holder's any more."""
        with self._lock:
            if self._held.get(name, ("",))[0] != holder:
                return False
            del self._held[name]
            return True


def start_server(storage: str, port: int, host: str = LOOPBACK) -> grpc.Server:
    """Starts to serve a database in threads of this process.

    Args:
        storage: URL of the database, which is not one of grpc.
        port: to listen on.
        host: address to listen on; "0.0.0.0" for all of this machine.

    Raises:
        InputError: when the database does not answer, or the port is taken.
    """
    shown = shown_url(storage)
    if shown.startswith("grpc:"):
        raise InputError(f"--storage: expected the URL of a database, received the server {shown}")
    try:
        opened = optuna.storages.get_storage(open_storage(storage))
    except STORAGE_ERRORS as error:
        raise unreachable(shown, error) from None
    # Two servers must not share a port: each would have turns of its own.
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    api_pb2_grpc.add_StorageServiceServicer_to_server(OptunaStorageProxyService(opened), server)
    turns = Turns()
    methods = {TAKE_TURN: _handler(turns.take), GIVE_TURN: _handler(turns.give)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(TURNS_SERVICE, methods),))
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        reason = f"is it taken, or is --host={host} no address of this machine?"
        raise InputError(f"--port={port}: cannot listen on {host}:{port}: {reason}") from None
    server.start()
    return server


def _handler(act: Callable[[str, str], bool]) -> Any:
    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        name, _, holder = request.decode(errors="replace").rpartition(" ")
        return b"yes" if act(name, holder) else b""

    return grpc.unary_unary_rpc_method_handler(handle)
