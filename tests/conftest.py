"""Set-up of the whole suite: quiet TensorFlow; what tests share (`case`, `training`, ...) can be imported anywhere."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
_TESTS = pathlib.Path(__file__).parent
sys.path[:0] = [str(_TESTS), *(str(path) for path in sorted(_TESTS.iterdir()) if path.is_dir())]
