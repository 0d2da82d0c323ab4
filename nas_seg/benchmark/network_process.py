"""One network in a process of its own, which labels a picture or makes a training step whenever it is told to.

python -m nas_seg.benchmark.network_process WHAT PATH HEIGHT WIDTH

WHAT is a format of `nas_seg.export_formats`, a row of `PEERS`, which has no PATH, or one of `STEPS`, whose PATH is
GENOTYPE:CLASSES:BATCH. The process writes a line of JSON when it has done so for the first time, and one for every line
that it reads; it ends with its input. Nothing but the run time of its one network is imported, so that the memory it
holds is that network's. Parents: `latency`, `model`.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# uint8 [H, W, 3] -> anything that is there only when the labels are.
Run = Callable[[np.ndarray], Any]


def main(what: str, path: str, height: str, width: str) -> None:
    """Answers lines until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    # What a library prints is no answer.
    os.dup2(2, 1)
    size = int(height), int(width)
    if what in STEPS:
        run, facts = _torch_step(path, size, STEPS[what])
    else:
        run, facts = PEERS[what]() if what in PEERS else _load(what, path)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    _answer(answers, run, image, facts)
    for _ in sys.stdin:
        _answer(answers, run, image, {})


def _answer(answers, run: Run, image: np.ndarray, facts: dict[str, Any]) -> None:
    start = time.perf_counter()
    run(image)
    told = {"seconds": time.perf_counter() - start, "peak_mib": _peak_mib()} | facts
    print(json.dumps(told), file=answers, flush=True)


def _load(name: str, path: str) -> tuple[Run, dict[str, Any]]:
    from nas_seg import export_formats

    run, by = export_formats.FORMATS[name].load(pathlib.Path(path), "serving_default")
    return run, {"run_by": by}


def _torch_mobilenet_v3() -> tuple[Run, dict[str, Any]]:
    """torchvision's DeepLabv3 (output stride 16, ASPP of 12, 24, 36) on MobileNet-v3-large, with fresh weights."""
    import torch
    import torchvision

    torch.set_num_threads(os.cpu_count())
    make = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
    model = make(weights=None, weights_backbone=None, num_classes=21).eval()
    facts = {"run_by": f"torch {torch.__version__}", "gflop": 0.0}

    def count(layer, _inputs, outputs):
        facts["gflop"] += 2e-9 * outputs.numel() * layer.weight[0].numel()

    hooks = [one.register_forward_hook(count) for one in model.modules() if isinstance(one, torch.nn.Conv2d)]

    def run(image):
        with torch.inference_mode():
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
            labels = model(pixels)["out"].argmax(1).numpy()
        while hooks:  # Of the first picture.
            hooks.pop().remove()
        return labels

    return run, facts


def _torch_step(path: str, size: tuple[int, int], memory_format: str) -> tuple[Run, dict[str, Any]]:
    """A training step of a published template network; the picture has no part in it."""
    import torch

    from nas_seg.benchmark import torch_template
    from nas_seg.template.genotype import published

    torch.set_num_threads(os.cpu_count())
    name, *numbers = path.split(":")
    num_classes, batch_size = map(int, numbers)
    step = torch_template.training_step(published(name), num_classes, size, batch_size, getattr(torch, memory_format))
    return lambda _: step(), {"run_by": f"torch {torch.__version__}"}


# The layouts of a map in PyTorch: the default, and the one that TensorFlow has.
STEPS = {"PyTorch": "contiguous_format", "PyTorch, channels last": "channels_last"}
PEERS: dict[str, Callable[[], tuple[Run, dict[str, Any]]]] = {"torchvision_deeplabv3_mobilenet_v3": _torch_mobilenet_v3}


def _peak_mib() -> float:
    """The most memory that this process has held; Linux counts its parent's in ru_maxrss, and tells its own apart."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        # Bytes on macOS, where there is no such file.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main(*sys.argv[1:])
