"""How a command-line tool starts and ends: flags parsed, one line for an error, exit codes.

0: done. 1: a bug, with its traceback. 2: the user can put it right (one line says how). 130: Ctrl-C. 143: SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging

from nas_seg.utils import progress
from nas_seg.utils.errors import InputError, Terminated
from nas_seg.utils.quiet import deaf_stderr

# Set before TensorFlow is imported: its start-up notices would drown the tool's own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The disk, a quota, or the limit of a file's size.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main: Callable[[], None]) -> None:
    """Runs a tool: parses sys.argv into absl's FLAGS, calls main(), turns errors into one line and a code."""
    if "quiet" not in flags.FLAGS:
        flags.DEFINE_boolean("quiet", False, "Show no progress.")
    app.run(lambda _: _call(main), flags_parser=_parse)


def import_tensorflow() -> None:
    """Imports TensorFlow without the notices that its C++ side prints before it reads any log level.

    Tools call it once their flags are checked. What Python raises is raised; only file descriptor 2 is deaf.
    """
    with deaf_stderr():
        import tensorflow as tf

        # What TensorFlow's Python side says of saving, and of a search tracing one function a cell.
        logging.set_verbosity(logging.WARNING)
        tf.get_logger().setLevel("ERROR")


def height_width(flag: str, words: Sequence[str]) -> tuple[int, int]:
    """The two integers of a list flag such as --cache_size=353,481."""
    try:
        height, width = (int(word) for word in words)
    except ValueError:
        raise InputError(f"--{flag}: expected height,width, received {','.join(words)}") from None
    if min(height, width) < 1:
        raise InputError(f"--{flag}: expected two sizes of 1 or more, received {height},{width}")
    return height, width


def _call(main: Callable[[], None]) -> None:
    try:
        with _reader_may_leave():
            main()
    except InputError as error:
        _refuse(_by_flag(str(error)))
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except Exception as error:
        reason = _full_disk(error)
        if reason is None:
            raise
        _refuse(f"nothing more can be written: {reason}; the same command goes on once there is room")


def _full_disk(error: BaseException | None) -> str | None:
    """What an error says of a full disk, whichever library met it: some have the system's words alone."""
    words = [os.strerror(number) for number in _FULL]
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(word in str(error) for word in words):
            return " ".join(str(error).split())[:300]
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Ends quietly when the reader of what is printed (head, a pager) has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(argv: Sequence[str]) -> list[str]:
    if any(argument in ("--help", "-help", "-h", "--h") for argument in argv[1:]):
        with _reader_may_leave():
            print(_help(argv[0]))
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _refuse(str(error))
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(f"--{name}: expected a finite number, received {value}")
    if flags.FLAGS.quiet:
        os.environ[progress.VARIABLE] = progress.QUIET
    if len(rest) > 1:
        _refuse(f"unexpected argument {rest[1]!r}: values are given as --flag=value")
    return rest


def _by_flag(message: str) -> str:
    """A message about a field or a name as one about the flag, where the tool has one of that name."""
    match = re.match(r"(unknown )?(\w+)(?(1) |: )", message)
    if not match or match[2] not in flags.FLAGS:
        return message
    return f"--{match[2]}: {message}" if match[1] else f"--{message}"


def _refuse(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _help(program: str) -> str:
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", f"usage: python {program} [--flag=value ...]", ""]
    for flag in (*flags.FLAGS.get_key_flags_for_module(sys.modules["__main__"]), flags.FLAGS["quiet"]):
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        lines.append(f"  --{flag.name}" + ("" if default in (None, "") else f" (default: {default})"))
        lines.append(textwrap.fill(flag.help or "", 100, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)
