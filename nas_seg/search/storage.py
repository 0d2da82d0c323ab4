"""Where studies live: databases by URL, opened with messages that a user can act on.

sqlite:///FILE, postgresql+psycopg://USER@HOST/NAME, mysql+pymysql://USER@HOST/NAME, or a server in front of one of
these: grpc://HOST:PORT, which tools/serve_studies.py starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import Study
from sqlalchemy.engine import URL, make_url

from nas_seg.search.locks import server_lock
from nas_seg.utils import config
from nas_seg.utils.errors import InputError

# sqlite has one writer at a time: the others wait this long before they give up. So long a turn is waited for, too.
SECONDS_TO_LOCK = 60
# A call waits this long for a gRPC server that is away, or busy: it may have thousands of trials to send to many.
SECONDS_TO_WAIT = 300
# A first look at a server should tell sooner that it is not there.
SECONDS_TO_ANSWER = 10
# A running trial says this often that its worker lives; silent for the grace period, it is taken for dead.
HEARTBEAT_SECONDS = 60
GRACE_SECONDS = 300
GRPC = "grpc"
_SQLITE_OPTIONS = {"connect_args": {"timeout": SECONDS_TO_LOCK}}
# A hundred workers should leave no more than a hundred connections open. What a restart of the server has cut is
# found before it is used.
_SERVER_OPTIONS = {"pool_size": 1, "max_overflow": 9, "pool_pre_ping": True}
STORAGE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)


def default_storage(run_dir: str | os.PathLike) -> str:
    """The URL of the study that a run folder holds: sqlite:///RUN/study.db."""
    return f"sqlite:///{pathlib.Path(run_dir) / 'study.db'}"


def open_storage(url: str | None, must_exist: bool = False) -> BaseStorage:
    """Opens a database, making its tables where there are none; None is a storage in memory.

    Raises:
        InputError: when the URL is none, its driver is missing, or (sqlite) its folder or file is.
        STORAGE_ERRORS: when the database does not answer; see `unreachable`.
    """
    if url is None:
        return InMemoryStorage()
    shown, parsed = shown_url(url), make_url(url)
    if parsed.drivername == GRPC:
        return _connect_grpc(parsed)
    options = _SQLITE_OPTIONS if _check_sqlite(parsed, must_exist) else _SERVER_OPTIONS
    for attempt in range(5):
        try:
            return _connect(url, options)
        except ImportError as error:
            raise _no_driver(shown, error) from None
        except RuntimeError as error:
            raise InputError(f"{shown}: made by another version of Optuna ({error})") from None
        except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.IntegrityError) as error:
            # Processes that start together all find no tables; one makes them, the others look again.
            met = isinstance(error, sqlalchemy.exc.IntegrityError)
            if attempt == 4 or not (met or any(word in str(error) for word in ("already exists", "locked"))):
                raise
            time.sleep(0.2)
    raise InputError(f"{shown}: the storage cannot be opened")


def check_storage(url: str) -> bool:
    """Raises InputError unless the database can be reached; it is left as it is.

    Returns:
        whether there is a database to look into.
    """
    shown, parsed = shown_url(url), make_url(url)
    if _check_sqlite(parsed, must_exist=False):
        return os.path.exists(parsed.database)  # Connecting would make an empty file.
    try:
        if parsed.drivername == GRPC:
            _connect_grpc(parsed).close()
            return True
        engine = sqlalchemy.create_engine(parsed)
        with engine.connect():
            engine.dispose()
        return True
    except ImportError as error:
        raise _no_driver(shown, error) from None
    except STORAGE_ERRORS as error:
        raise unreachable(shown, error) from None


def shown_url(url: str | None) -> str:
    """The URL without its password; InputError when it is none."""
    if url is None:
        return "in memory"
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise InputError(f"storage: expected a URL such as sqlite:///run/study.db, received {url!r}") from None


def storage_url(study: Study) -> URL | None:
    """Of a study's storage; None for one in memory, which no other process can reach."""
    url = getattr(_without_cache(study), "url", None)
    return None if url is None else make_url(url)


def unreachable(shown: str, error: Exception) -> InputError:
    """One of STORAGE_ERRORS as a line for the user."""
    return InputError(f"{shown}: the storage cannot be opened ({_reason(error)})")


@contextlib.contextmanager
def lost_as_input_error(place: Study | str) -> Iterator[None]:
    """Turns a storage (a study's, or that of a URL) that stops answering amid a search into a line for the user."""
    try:
        yield
    except STORAGE_ERRORS as error:
        url = place if isinstance(place, str) else str(_without_cache(place).url)
        raise InputError(
            f"{shown_url(url)}: the storage stopped answering ({_reason(error)}); "
            "what it holds is kept, and the same command goes on once it is back"
        ) from None


@contextlib.contextmanager
def turn(study: Study, what: str = "lock", wait: bool = True) -> Iterator[bool]:
    """Held by one process at a time, for what must not happen twice in one study.

    Processes of one machine exclude one another by a locked file, machines by a lock of the database server
    (PostgreSQL, MySQL, our gRPC server). One that has waited for a minute goes on without the server's lock: a machine
    that vanished in its turn must not stop all others.

    Args:
        study: in any storage; one in memory has no other process.
        what: turns of different names do not exclude one another.
        wait: for the process that holds it; otherwise False is what the context gives.
    """
    url = storage_url(study)
    if url is None:
        yield True
        return
    name = config.digest([url.database, study.study_name, what])
    with open(_lock_path(url, study.study_name, what), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        backend, seconds = url.get_backend_name(), SECONDS_TO_LOCK if wait else 0.0
        with server_lock(_without_cache(study), backend, name, seconds) as mine:
            yield mine or wait


def _without_cache(study: Study) -> Any:
    return getattr(study._storage, "_backend", study._storage)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())


def _lock_path(url: URL, study_name: str, what: str) -> pathlib.Path:
    if url.get_backend_name() == "sqlite" and url.database:
        path = pathlib.Path(url.database)
        return path.with_name(f".{path.name}.{what}")
    name = config.digest([url.render_as_string(hide_password=True), study_name, what])
    return pathlib.Path(tempfile.gettempdir(), f"nas_seg-{os.getuid()}-{name}.lock")


def _connect_grpc(url: URL) -> BaseStorage:
    shown = url.render_as_string(hide_password=True)
    if not url.host or not url.port or url.database or url.query or url.username:
        raise InputError(f"{shown}: expected {GRPC}://HOST:PORT")
    try:
        from nas_seg.search.grpc_storage import GrpcStorage
    except ImportError as error:
        raise InputError(f"{shown}: the packages of the extra 'grpc' are not installed ({error})") from None
    storage = GrpcStorage(url, SECONDS_TO_WAIT)
    storage.wait_until_ready(SECONDS_TO_ANSWER)
    return storage


def _connect(url: str, options: dict[str, Any]) -> RDBStorage:
    with warnings.catch_warnings():
        # Optuna calls its heartbeat experimental, in every process anew.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RDBStorage(url, engine_kwargs=options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)


def _check_sqlite(url: URL, must_exist: bool) -> bool:
    """Whether the URL is of sqlite; InputError when its folder is missing, or its file where it `must_exist`."""
    if url.get_backend_name() != "sqlite":
        return False
    path, shown = pathlib.Path(url.database or ""), url.render_as_string(hide_password=True)
    if not path.parent.is_dir():
        raise InputError(f"{shown}: the folder {path.parent} does not exist")
    if must_exist and not path.is_file():
        raise InputError(f"{shown}: the file {path} does not exist")
    locks = sorted(path.parent.glob(f".{path.name}.*")) if path.is_file() and not path.stat().st_size else ()
    if locks:
        shown_locks = ", ".join(map(str, locks))
        # A search makes them once the study is there. SQLite would take the file for a new one, and all begin anew.
        raise InputError(f"{shown}: the file is empty, but was not; put it back, or delete {shown_locks} to begin anew")
    return True


def _no_driver(shown: str, error: ImportError) -> InputError:
    return InputError(f"{shown}: its database driver is not installed ({error.__cause__ or error})")
