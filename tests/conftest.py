"""Set-up of the whole suite: quiet TensorFlow, and the folder of tests on the path for `case`."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parent))
