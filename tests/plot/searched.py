"""Run folders as a search and a trained network leave them, made up in milliseconds."""

from __future__ import annotations

import dataclasses

import numpy as np

from nas_seg import vis
from nas_seg.dpc import DPCSpace, count
from nas_seg.dpc.baselines import BASELINES
from nas_seg.search import samplers, study
from nas_seg.search import second_stage as stage
from nas_seg.search.baselines import baselines, score_baselines
from nas_seg.search.early_stop import MedianRule
from nas_seg.search.evaluator import TrialFailed
from nas_seg.search.loop import run_search
from nas_seg.utils import config, runs

CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
COLORS = tuple((20 * i, 255 - 20 * i, 90) for i in range(len(CLASSES)))
TASK = {
    "dataset_dir": "/data/camvid",
    "train_split": "train",
    "val_split": "val",
    "backbone": {"name": "mobilenet_v2", "output_stride": 16},
    "backbone_weights": None,
    "size": [353, 481],
    "views": 1,
    "seed": 3,
    "proxy": {"steps": 200, "batch_size": 8},
}


def sections(seed):
    """Of the config.json of a search."""
    return {"task": TASK | {"seed": seed}, "search": {"sampler": "random"}} | runs.circumstances()


def evaluate(genotype, *, seed, classes=CLASSES):
    """A made-up score; every seventh architecture or so diverges."""
    draw = np.random.default_rng(int(genotype.digest, 16))
    if draw.random() < 0.15:
        raise TrialFailed("diverged: loss <nan> at step 7 of 200")
    cost = count(genotype, 320, 23, 31)
    ious = dict(zip(classes, draw.uniform(0.1, 0.9, len(classes)), strict=True))
    reward = 0.4 + 0.02 * draw.standard_normal() + 2e-9 * cost.madds**0.8
    return {"reward": reward, "params": cost.params, "madds": cost.madds} | {f"iou/{k}": v for k, v in ious.items()}


def make_search(
    folder,
    num_trials=12,
    sampler="random",
    seed=0,
    space=None,
    study_name="search",
    classes=CLASSES,
    rejected_below=None,
):
    """A folder with config.json, study.db and genotype.json; returns the leaderboard."""

    def score(genotype, *, seed):
        metrics = evaluate(genotype, seed=seed, classes=classes)
        return metrics if rejected_below is None else metrics | {"rejected": float(metrics["reward"] < rejected_below)}

    space = space or DPCSpace()
    runs.open_run(folder, sections(seed))
    proposer = samplers.make_sampler(sampler, space, seed)
    opened = study.open_study(f"sqlite:///{folder}/study.db", study_name, space, proposer, conditions={"seed": seed})
    run_search(opened, space, score, num_trials=num_trials, seed=seed)
    rows = study.leaderboard(opened, space)
    config.save(folder / "genotype.json", rows[0].genotype)
    return rows


def evaluate_in_steps(genotype, *, seed, report=None):
    """The score of `evaluate` with losses on the way to it, and the seconds of a forward pass."""
    metrics = evaluate(genotype, seed=seed)
    for step in (100, 200) if report else ():
        report(step, 2.0 - metrics["reward"] - step / 200)
    return metrics | {"latency": 2e-12 * metrics["madds"] ** 1.2 + 1e-8 * metrics["params"]}


def make_full_search(folder, num_trials=7, objectives=("reward", "latency"), seed=0, named=tuple(BASELINES)):
    """A folder with baselines, trials that failed and trials that were stopped early; returns the study."""
    space = DPCSpace()
    runs.open_run(folder, sections(seed))
    proposer = samplers.make_sampler("random", space, seed)
    opened = study.open_study(f"sqlite:///{folder}/study.db", "search", space, proposer, objectives, {"seed": seed})
    score_baselines(opened, {name: BASELINES[name] for name in named}, evaluate_in_steps, seed=seed)
    rule = MedianRule(min_trials=4, warmup_reports=1)
    run_search(opened, space, evaluate_in_steps, num_trials=num_trials, seed=seed, early_stop=rule)
    return opened


def make_rerank(folder, opened, num_candidates=8, seed=0):
    """FOLDER/rerank.json of the best trials and the baselines of a study, the last candidate failed; the candidates."""
    draw, rows = np.random.default_rng(seed), study.leaderboard(opened, DPCSpace())[:num_candidates]
    scored = [(row.digest, row.rank, row) for row in rows] + [(b.name, None, b) for b in baselines(opened)]
    trained = [stage.Training("runs/x", 0, 0.5, 0.4, 60.0)]
    results = []
    for name, rank, one in scored:
        full = one.reward + 0.1 + 0.02 * draw.standard_normal()
        results.append(stage.Result(
            name, rank, one.reward, one.params, one.madds, one.summary, full, full - 0.1, 60.0, None, tuple(trained)
        ))  # fmt: skip
    failed = "seed 0: the loss diverged at step 7"
    results[-1] = dataclasses.replace(results[-1], val_miou=None, test_miou=None, failed=failed, trainings=())
    found = stage.Reranking(
        stage.rank(results), 2, stage.correlate(results), 3000, "/data/camvid", "train", "val", "test",
        **runs.circumstances(),
    )  # fmt: skip
    config.save(folder / "rerank.json", found)
    return found


def make_network_run(folder, split="test", num_images=8, classes=CLASSES, with_images=True, size=(72, 96)):
    """A folder with eval_SPLIT.json and vis_SPLIT/, whose pictures are worst where their colour is reddest."""
    rng = np.random.default_rng(5)
    names = [f"street/0001TP_{number:04d}.png" for number in range(num_images)]
    mious = [float(v) for v in rng.permutation(np.linspace(0.2, 0.8, num_images))]
    images = [np.broadcast_to(np.array([255 * (1 - m), 60, 255 * m]), (*size, 3)).astype(np.float32) for m in mious]
    labels = [rng.integers(0, len(classes), (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1) for _ in names]
    batches = [
        {"image": image[None], "label": label[None], "image_name": [name.encode()]}
        for image, label, name in zip(images, labels, names, strict=True)
    ]
    colors = [COLORS[i % len(COLORS)] for i in range(len(classes))]
    vis.visualize(lambda x: np.zeros(x.shape[:3], np.int64), batches, colors, folder / f"vis_{split}")
    report = {
        "format_version": 1,
        "split": split,
        "dataset_dir": "/data/camvid",
        "weights": "ckpt/best.weights.h5",
        "miou": 0.5,
        "pixel_accuracy": 0.875,
        "num_images": num_images,
        "class_iou": dict(zip(classes, [None, *rng.uniform(0, 1, len(classes) - 1).tolist()], strict=True)),
    }
    if with_images:
        report["images"] = [{"name": n, "miou": m} for n, m in zip(names, mious, strict=True)]
    config.write_json(folder / f"eval_{split}.json", report)
    return dict(zip(names, mious, strict=True))
