"""Real servers for tests: a PostgreSQL, a MariaDB and the gRPC storage proxy, on loopback, thrown away at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest
import sqlalchemy
from case import REPOSITORY

# Debian's daemons are where a user's shell does not look.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_USER = "postgres"  # Debian's package makes it; the server refuses to run as root.


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class PostgreSQL:
    """A cluster of its own in a temporary folder, with a password; fails the test where it cannot be started."""

    def __init__(self):
        self._programs = _find_programs() or _install_once()
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="nas_seg-postgres-"))
        self._data, self._port, password = self._folder / "data", free_port(), secrets.token_hex(8)
        self.password = password
        self.url = f"postgresql+psycopg://nas_seg:{password}@127.0.0.1:{self._port}/postgres"
        (self._folder / "password").write_text(password)
        if os.getuid() == 0:
            shutil.chown(self._folder, _USER)
            shutil.chown(self._folder / "password", _USER)
        login = ("--username=nas_seg", "--auth=scram-sha-256", f"--pwfile={self._folder / 'password'}")
        self._run("initdb", f"--pgdata={self._data}", "--no-sync", "--encoding=UTF8", "--locale=C", *login)
        self.start()

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def stop(self) -> None:
        """As after a loss of power."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", "immediate")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments) -> None:
        as_user = ["runuser", "-u", _USER, "--"] if os.getuid() == 0 else []
        command = [*as_user, str(self._programs / program), *map(str, arguments)]
        # A pipe would stay open as long as the server runs.
        with tempfile.TemporaryFile() as output:
            code = subprocess.run(command, cwd="/", stdout=output, stderr=output).returncode
            output.seek(0)
            if code:
                pytest.fail(f"PostgreSQL: {program} ended with {code}: {output.read().decode(errors='replace')}")


def _find_programs() -> pathlib.Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps out of PATH."""
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    folders += [pathlib.Path(found).parent] if found else []
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _install_once() -> pathlib.Path:
    """Processes of one test run wait for the first of them, for apt-get lets in no second one."""
    with open(pathlib.Path(tempfile.gettempdir(), f"nas_seg-install-{os.getuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _find_programs() or _install()


def _install() -> pathlib.Path:
    reason = "only root can install it"
    if os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], capture_output=True)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "postgresql"]
        done = subprocess.run(
            command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True
        )
        reason = (done.stderr.strip().splitlines() or ["apt-get says nothing"])[-1]
    programs = _find_programs()
    if programs is None:
        pytest.fail(f"PostgreSQL is not there ({reason}): apt-get install postgresql")
    return programs


class MariaDB:
    """MySQL's free twin with a data folder of its own and a password; skips where it or its driver is not installed."""

    def __init__(self):
        pytest.importorskip("pymysql", reason="the extra mysql is not installed")
        server, setup = (shutil.which(name, path=_PATH) for name in ("mariadbd", "mariadb-install-db"))
        if not server or not setup:
            pytest.skip("MariaDB is not there: apt-get install mariadb-server")
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="nas_seg-mariadb-"))
        data, begin = self._folder / "data", self._folder / "begin.sql"
        self._port, self.password = free_port(), secrets.token_hex(8)
        self.url = f"mysql+pymysql://nas_seg:{self.password}@127.0.0.1:{self._port}/nas_seg"
        begin.write_text(
            "CREATE DATABASE IF NOT EXISTS nas_seg;\n"
            f"CREATE USER IF NOT EXISTS nas_seg@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            "GRANT ALL ON nas_seg.* TO nas_seg@'127.0.0.1';\n"
        )
        user = []
        if os.getuid() == 0:
            shutil.chown(self._folder, "mysql")
            shutil.chown(begin, "mysql")
            user = ["--user=mysql"]
        done = subprocess.run(
            [setup, "--no-defaults", f"--datadir={data}", "--skip-test-db", *user], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        network = ["--bind-address=127.0.0.1", f"--port={self._port}", "--skip-name-resolve"]
        files = [f"--datadir={data}", f"--socket={self._folder}/socket", f"--pid-file={self._folder}/pid"]
        self._command = [server, "--no-defaults", *network, *files, *user, f"--init-file={begin}"]
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool).connect().close()
                return
            except sqlalchemy.exc.OperationalError:
                log = (self._folder / "log").read_text(errors="replace")
                assert self._process.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.1)

    def stop(self) -> None:
        """As after a loss of power."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class Proxy:
    """tools/serve_studies.py in front of a database."""

    password = None

    def __init__(self, storage: str):
        self._storage, self._port = storage, free_port()
        self.url = f"grpc://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "tools/serve_studies.py", f"--storage={self._storage}", f"--port={self._port}"]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == f"serving: --storage={self.url}\n"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    close = stop
