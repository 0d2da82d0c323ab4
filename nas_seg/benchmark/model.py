"""How fast networks of the zoo are, picture in, labels out or a training step, beside the machine's matrix product."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from nas_seg import presets, train
from nas_seg.benchmark.children import answering
from nas_seg.benchmark.network_process import STEPS
from nas_seg.benchmark.timing import GEMM, GEMM_FLOPS, Timing, time_in_turns
from nas_seg.common import IMAGE, LABEL
from nas_seg.optimizers import from_config
from nas_seg.train_config import TrainConfig
from nas_seg.utils.errors import InputError
from nas_seg.utils.flops import count_madds

# A training step is a forward pass and two products of its size for each convolution: to its inputs and to its kernel.
_PASSES = 3
_IGNORE = 255
# Presets of published template networks, whose steps PyTorch can make, too.
_TEMPLATES = "template_"


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One network: the labels of a batch of pictures, arg-max included, or a training step.

    Attributes:
        name: of the preset; behind a comma what else runs it.
        size: (height, width) of the pictures.
        batch_size: how many they are.
        training: whether it is a step.
        gflop: floating-point operations of its convolutions, in billions: twice the multiply-adds, and three times
            that for a step.
        timing: of the batch.
        gemm: of the matrix product in the same run.
        peak_gib: the most memory that the process has held until then, in GiB.
    """

    name: str
    size: tuple[int, int]
    batch_size: int
    training: bool
    gflop: float
    timing: Timing
    gemm: Timing
    peak_gib: float

    @property
    def units(self) -> float:
        """Seconds over those of the matrix product."""
        return self.timing.median / self.gemm.median

    @property
    def share_of_gemm(self) -> float:
        """GFLOP/s over those of the matrix product."""
        return self.gflop * 1e9 / self.timing.median / (GEMM_FLOPS / self.gemm.median)


def time_models(
    names: Sequence[str],
    num_classes: int,
    size: tuple[int, int],
    repetitions: int = 9,
    batch_size: int = 1,
    training: bool = False,
    peer_python: str | os.PathLike | None = None,
) -> list[ModelRow]:
    """Times presets with fresh weights, each in turns with the matrix product; one network is in memory at a time.

    Labels come out as from an exported network: the logits brought to the size of the picture, and their arg-max. A
    step is that of tools/train.py with its defaults, without reading the pictures.

    Args:
        names: of presets.
        num_classes: of the networks.
        size: (height, width) of the pictures.
        repetitions: timed calls of each.
        batch_size: pictures at once.
        training: time a step and not the labels.
        peer_python: the Python of an environment with torch, whose steps of the same networks then take turns with
            those of here; for steps of template networks alone.

    Raises:
        InputError: for a peer that does not run, or that has no such network.
    """
    if peer_python and not training:
        raise InputError("peer_python: expected training beside it: PyTorch makes steps alone")
    if peer_python and not all(name.startswith(_TEMPLATES) for name in names):
        raise InputError(f"peer_python: expected presets {_TEMPLATES}*, received {', '.join(names)}")
    rows = []
    for name in names:
        keras.backend.clear_session()
        model = presets.from_preset(name, num_classes)
        gflop = 2 * batch_size * count_madds(model, *size) / 1e9 * (_PASSES if training else 1)
        image = tf.random.stateless_uniform((batch_size, *size, 3), (0, 0), 0.0, 255.0)
        action = _step(model, image, num_classes) if training else _labels(model, image)
        peaks: dict[str, float] = {}
        with _peers(name, num_classes, size, batch_size, peer_python, peaks) as peers:
            timings = time_in_turns({name: action} | peers, repetitions)
        peaks[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows += [
            ModelRow(one, tuple(size), batch_size, training, gflop, timings[one], timings[GEMM], peaks[one])
            for one in (name, *peers)
        ]
    return rows


@contextlib.contextmanager
def _peers(preset: str, num_classes: int, size, batch_size: int, python, peaks: dict[str, float]):
    """What has the steps of a preset made by PyTorch, by name of the row; `peaks` is told their memory, in GiB."""

    def action(name: str, answer: Callable[[], Mapping]) -> Callable[[], None]:
        def step():
            peaks[name] = answer()["peak_mib"] / 2**10

        step()  # The first of a process is not timed.
        return step

    with contextlib.ExitStack() as stack:
        path = f"{preset.removeprefix(_TEMPLATES)}:{num_classes}:{batch_size}"
        try:
            yield {
                name: action(name, stack.enter_context(answering(str(python), what, path, size)))
                for name, what in ((f"{preset}, {what}", what) for what in STEPS if python)
            }
        except (OSError, RuntimeError) as error:
            raise InputError(f"{python}: expected a Python with torch ({error})") from None


def _labels(model: keras.Model, image: tf.Tensor) -> Callable[[], object]:
    @tf.function
    def predict(images):
        return tf.argmax(model(images, training=False), axis=-1, output_type=tf.int32)

    return lambda: predict(image).numpy()


def _step(model: keras.Model, image: tf.Tensor, num_classes: int) -> Callable[[], object]:
    config = TrainConfig()
    optimizer = from_config(config)
    optimizer.build(model.trainable_variables)
    label = tf.random.stateless_uniform(image.shape[:3], (1, 0), 0, num_classes, tf.int32)
    steps = train.compile_steps(model, optimizer, config, _IGNORE, tf.distribute.get_strategy())
    batches = iter(tf.data.Dataset.from_tensors({IMAGE: image, LABEL: label}).cache().repeat())
    return lambda: steps(batches, tf.constant(1))[0].numpy()
