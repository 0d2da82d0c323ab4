"""Real servers for tests: a PostgreSQL and the gRPC storage proxy, on loopback, thrown away at the end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest
from case import REPOSITORY

_USER = "postgres"  # Debian's package makes it; the server refuses to run as root.


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class PostgreSQL:
    """A cluster of its own in a temporary folder, with a password; fails the test where it cannot be started."""

    def __init__(self):
        self._programs = _find_programs() or _install()
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
