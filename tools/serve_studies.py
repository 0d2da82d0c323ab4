"""Serves the studies of a database to workers on many machines, which name it as --storage=grpc://HOST:PORT.

python tools/serve_studies.py --storage=sqlite:///studies.db --port=13000

One process has the connections to the database; a worker needs no driver of it. Who can reach the port can read and
change every study, for there is neither password nor encryption: it listens on this machine alone unless --host says
otherwise, as --host=0.0.0.0 on a network that others cannot enter. Needs the package's extra "grpc".
"""

from __future__ import annotations

import os

from absl import flags

from nas_seg.search.interrupts import sigterm_as_interrupt
from nas_seg.utils import app
from nas_seg.utils.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("storage", None, "Database URL: sqlite:///FILE, postgresql+psycopg://..., mysql+pymysql://...")
flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
flags.DEFINE_integer("port", 13000, "Port to listen on.", 1, 65535)


def main() -> None:
    if not FLAGS.storage:
        raise InputError("--storage: expected the URL of a database")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Read at the import: a port that is taken is one line, and ours.
    try:
        from nas_seg.search.proxy_server import start_server
    except ImportError as error:
        raise InputError(f"the packages of the extra 'grpc' are not installed ({error})") from None
    with sigterm_as_interrupt():
        server = start_server(FLAGS.storage, FLAGS.port, FLAGS.host)
        print(f"serving: --storage=grpc://{FLAGS.host}:{FLAGS.port}", flush=True)
        try:
            server.wait_for_termination()
        finally:
            server.stop(grace=5).wait()


if __name__ == "__main__":
    app.run(main)
