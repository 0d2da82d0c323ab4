"""The client of Optuna's gRPC storage proxy, with a turn that processes of several machines take one after another.

grpc://HOST:PORT names a server that tools/serve_studies.py starts; Optuna's own server does too, without turns.
"""

from __future__ import annotations

import uuid
import warnings
from typing import Any

import grpc
import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import GrpcStorageProxy
from sqlalchemy.engine import URL

# Methods of our server beside Optuna's: bytes "NAME HOLDER" in, b"yes" or b"" out.
TAKE_TURN, GIVE_TURN = "TakeTurn", "GiveTurn"
TURNS_SERVICE = "nas_seg.Turns"
# Optuna tells its own errors by these; all others mean that the server, or the database behind it, does not answer.
_ANSWERS = (
    grpc.StatusCode.OK,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)


class GrpcStorage(GrpcStorageProxy):
    """A storage behind a server.

    Args:
        url: grpc://host:port.
        seconds: that a call waits for a server that is away.

    Raises:
        StorageInternalError: from every method, when the server does not answer.
    """

    def __init__(self, url: URL, seconds: float):
        self.url = url.render_as_string(hide_password=True)
        self._seconds = seconds
        self._holder = uuid.uuid4().hex
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(host=url.host, port=url.port)

    def wait_until_ready(self, seconds: float) -> None:
        """Waits for the server to answer, for so long at the most."""
        try:
            self.wait_server_ready(seconds)
        except ConnectionError:
            raise StorageInternalError("no server answers there") from None

    def take_turn(self, name: str) -> bool:
        """Whether the turn of that name is this client's now. It is lost again after a minute, if not taken anew."""
        return self._turn(TAKE_TURN, name)

    def give_turn(self, name: str) -> None:
        """Ends a turn."""
        self._turn(GIVE_TURN, name)

    def _setup(self) -> None:
        # Called by the base class, which makes its stub of the channel.
        super()._setup()
        self._channel = grpc.intercept_channel(self._channel, _Patience(self._seconds))
        self._stub = type(self._stub)(self._channel)
        self._cache = type(self._cache)(self._stub)

    def _turn(self, method: str, name: str) -> bool:
        call = self._channel.unary_unary(f"/{TURNS_SERVICE}/{method}")
        try:
            return bool(call(f"{name} {self._holder}".encode()))
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return True  # Optuna's own server keeps no turns.
            raise


class _Patience(grpc.UnaryUnaryClientInterceptor):
    """Makes calls wait for the server, and turns its silence into Optuna's error for it."""

    def __init__(self, seconds: float):
        self._seconds = seconds

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = continuation(_Details(client_call_details, self._seconds), request)
        if call.code() not in _ANSWERS:
            raise StorageInternalError(call.details() or call.code().name)
        return call


class _Details(grpc.ClientCallDetails):
    """The details of a call, with a limit of time and the wish to wait for the server."""

    def __init__(self, details: Any, seconds: float):
        self.method = details.method
        self.metadata = details.metadata
        self.credentials = details.credentials
        self.compression = getattr(details, "compression", None)
        self.timeout, self.wait_for_ready = seconds, True
