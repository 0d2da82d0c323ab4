"""Trains the tiny network of `training` as a tool does: RUN_DIR STEPS SECONDS, the seconds for each step.

The values of all its variables go to RUN_DIR/values.npz at the end.
"""

import os
import pathlib
import sys
import time

_TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]

import numpy as np  # noqa: E402
import training  # noqa: E402

from nas_seg import train  # noqa: E402
from nas_seg.utils import app  # noqa: E402

RUN_DIR, STEPS, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
del sys.argv[1:]


def score():
    """Takes the seconds, and is the best one so far: weights are written again and again."""
    time.sleep(SECONDS)
    return {"miou": time.time() / 1e10}


def main():
    model = training.tiny_model()
    # What a checkpoint, a score and a row cost is most of a step here.
    config = {"training_number_of_steps": STEPS, "save_interval_steps": 3, "eval_interval_steps": 1, "log_steps": 1}
    train.fit(
        model,
        training.batches,
        train.TrainConfig(**training.CONFIG | config),
        RUN_DIR,
        ignore_label=training.IGNORE,
        evaluate=score,
    )
    np.savez(os.path.join(RUN_DIR, "values.npz"), *training.values(model))


app.run(main)
