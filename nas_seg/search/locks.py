"""Locks that a database server keeps, for processes on several machines: one of them at a time has its turn.

The server lets go of a lock whose holder has lost its connection.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy

# Backend: how to try for a lock of a number, and how to let it go.
_PG = ("SELECT pg_try_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)")
_MY = ("SELECT GET_LOCK(CONCAT('nas_seg-', :key), 0)", "SELECT RELEASE_LOCK(CONCAT('nas_seg-', :key))")
_SQL = {"postgresql": _PG, "mysql": _MY, "mariadb": _MY}
# Between two tries: two machines that try at once should not go on doing so.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 0.1


@contextlib.contextmanager
def server_lock(storage: Any, backend: str, name: str, wait_seconds: float) -> Iterator[bool]:
    """Holds the lock of a name where the storage is a server; elsewhere the lock is always there.

    Args:
        storage: Optuna's, without its cache.
        backend: of its URL.
        name: twelve hexadecimal digits.
        wait_seconds: for another holder, at the most.

    Yields:
        whether the lock is held.
    """
    with contextlib.ExitStack() as stack:
        if backend == "grpc":
            take, give = storage.take_turn, storage.give_turn
        elif backend in _SQL:
            # Both kinds of lock are a connection's and not a transaction's.
            connection = stack.enter_context(storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
            take, give = (_caller(connection, statement) for statement in _SQL[backend])
        else:
            take, give = (lambda _: True), (lambda _: None)
        yield stack.enter_context(_held(take, give, name, wait_seconds))


def _caller(connection: sqlalchemy.Connection, statement: str) -> Callable[[str], Any]:
    return lambda name: connection.scalar(sqlalchemy.text(statement), {"key": int(name, 16)})


@contextlib.contextmanager
def _held(take: Callable[[str], Any], give: Callable[[str], Any], name: str, wait_seconds: float) -> Iterator[bool]:
    deadline = time.monotonic() + wait_seconds
    while not (held := bool(take(name))) and time.monotonic() < deadline:
        time.sleep(random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT))
    try:
        yield held
    finally:
        if held:
            give(name)
