"""A run folder as a training leaves it, made up in milliseconds, and a network's answers to drawn pictures."""

from __future__ import annotations

import numpy as np

from nas_seg.utils import config, runs

CLASSES = ("Sky", "Road", "Car", "Pole")
COLORS = ((70, 130, 180), (128, 64, 128), (0, 0, 200), (220, 220, 0))
IGNORE = 255
GENOTYPE = {
    "kind": "dpc",
    "branches": [
        {"op": "conv", "input": -1, "kernel": [3, 3], "rate": [6, 3], "grid_size": None},
        {"op": "pyramid_pooling", "input": 0, "kernel": None, "rate": None, "grid_size": [2, 4]},
    ],
}


def make_training(run_dir, steps=200, evaluations=(100, 200), genotype=GENOTYPE, val_split="val", command="python x"):
    """A folder with config.json and metrics.jsonl; there are no weights and no data set."""
    backbone = {"name": "mobilenet_v2", "output_stride": 16, "depth_multiplier": 0.35}
    network = {"kind": "dpc", "genotype": genotype, "backbone": backbone, "filters": 64}
    train = {"train_split": "train", "val_split": val_split, "train_crop_size": [145, 193]}
    sections = {
        "model": {"num_classes": len(CLASSES), "network": network},
        "train": train | {"training_number_of_steps": 2 * steps, "base_learning_rate": 0.02},
        "dataset_dir": str(run_dir / "gone"),
        "versions": {"python": "3.11", "keras": "3.15"},
        "machine": "two cores",
        "command": command,
    }
    runs.open_run(run_dir, sections)
    for step in range(10, steps + 1, 10):
        row = {"step": step, "loss": 2.0 - step / steps, "learning_rate": 0.02 * (1 - step / 2 / steps), "seconds": 3.0}
        runs.append_metrics(run_dir, row | {"images_per_second": 8.0})
        if step in evaluations:
            miou = 0.5 if step == evaluations[0] else 0.4
            row = {"step": step, "val_miou": miou, "val_class_iou": [miou, 1.0, None, 0.25], "val_num_images": 9}
            runs.append_metrics(run_dir, row | {"val_pixel_accuracy": 0.75})
    return run_dir


def write_scores(run_dir, split="test"):
    """RUN/eval_SPLIT.json as tools/eval.py writes it."""
    scores = {
        "format_version": config.FORMAT_VERSION,
        "split": split,
        "dataset_dir": "/data/streets",
        "weights": "ckpt/best.weights.h5",
        "miou": 0.4321,
        "pixel_accuracy": 0.875,
        "num_images": 5,
        "class_iou": dict(zip(CLASSES, [0.9, 0.5, None, 0.1], strict=True)),
    }
    config.write_json(run_dir / f"eval_{split}.json", scores)


def answers(count=5, size=(24, 32)):
    """Batches of one picture, and a `predict` that is the more wrong the higher the picture's number.

    Each class has a quarter of a picture, from the left on. Of picture k the first 2 + k eighths are taken for class 0;
    the last picture has no labelled pixels.
    """
    rng = np.random.default_rng(0)
    batches, predictions = [], {}
    for number in range(count):
        image = rng.integers(0, 256, (*size, 3)).astype(np.float32)
        label = np.tile(np.arange(size[1]) // (size[1] // 4), (size[0], 1)).astype(np.int32)
        prediction = np.where(np.arange(size[1]) < (2 + number) * size[1] // 8, 0, label)
        label = np.full_like(label, IGNORE) if number == count - 1 else label
        batches.append({"image": image[None], "label": label[None], "image_name": [f"street/{number}.png".encode()]})
        predictions[image.tobytes()] = prediction
    return batches, lambda images: np.stack([predictions[np.asarray(image).tobytes()] for image in images])
