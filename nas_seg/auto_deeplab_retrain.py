"""The networks of a gradient search trained from fresh weights: the decoded one, random draws, networks made by hand.

RETRAIN/config.json            searched (digest), random_seed, network, train, dataset_dir
RETRAIN/genotypes/NAME.json    of the searched network and of the random ones
RETRAIN/NAME_seedSEED/         run folder of a training, as tools/train.py makes it
RETRAIN/retrain.json           a `Retraining` of nas_seg.auto_deeplab.retraining, written after every network

All have one budget: the same steps of the same batches.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from nas_seg import full_training
from nas_seg.auto_deeplab import retraining
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.retraining import BASELINE, RANDOM, SEARCHED, Outcome, Retraining
from nas_seg.auto_deeplab.search_run import finished_genotype
from nas_seg.auto_deeplab.space import random_genotype
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.search import second_stage
from nas_seg.search.second_stage import Training
from nas_seg.train_config import TrainConfig
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Retrain:
    """What is trained; the flags of tools/retrain_auto_deeplab.py, which say what each of them is."""

    run_dir: str
    dataset_dir: str
    output_dir: str | None = None
    random_architectures: int = 4
    random_seed: int = 0
    baseline: tuple[str, ...] = ("deeplabv3plus_mobilenet_v2",)
    seeds: int = 1
    test_split: str | None = None
    filter_multiplier: int = 20
    allow_unfinished: bool = False
    strategy: str = "auto"

    @property
    def folder(self) -> pathlib.Path:
        """RETRAIN."""
        return pathlib.Path(self.output_dir or pathlib.Path(self.run_dir, retraining.FOLDER))


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A network to train: a genotype, or a preset by its name."""

    name: str
    group: str
    genotype: AutoDeepLabGenotype | None = None

    @property
    def summary(self) -> str:
        return self.genotype.summary() if self.genotype else self.name


def retrain(settings: Retrain, train_config: TrainConfig) -> Retraining:
    """Trains the networks that are not trained yet, from where each of them stands.

    Args:
        settings: what to train.
        train_config: how; its seed is the first one.

    Raises:
        InputError: for what does not fit; as far as possible before TensorFlow is imported or anything written. Also
            when every network failed.
    """
    candidates, sections = check(settings, train_config)
    app.import_tensorflow()
    from nas_seg import presets
    from nas_seg.utils import distribute

    strategy = distribute.get_strategy(settings.strategy)
    for name in settings.baseline:
        presets.network(name)
    seeds = range(train_config.seed, train_config.seed + settings.seeds)
    with runs.lock(settings.folder):
        runs.open_run(settings.folder, sections | runs.circumstances())
        outcomes, start = [], time.monotonic()
        for number, candidate in enumerate(candidates):
            gone = time.monotonic() - start
            left = f", about {gone / number * (len(candidates) - number):.0f} s left" if number else ""
            print(f"[{number + 1}/{len(candidates)}] {candidate.name} · {gone:.0f} s gone{left}", flush=True)
            configs = [dataclasses.replace(train_config, seed=seed) for seed in seeds]
            outcomes.append(_outcome(settings, candidate, configs, strategy))
            found = _write(settings, train_config, outcomes, len(candidates) - len(outcomes))
    if all(one.failed for one in outcomes):
        raise InputError(f"{settings.folder}: every network failed; {outcomes[0].name}: {outcomes[0].failed}")
    return found


def check(settings: Retrain, train_config: TrainConfig) -> tuple[list[_Candidate], dict[str, Any]]:
    """Raises InputError for all that can be found wrong without TensorFlow; writes nothing.

    Returns:
        the networks, and the sections of RETRAIN/config.json.
    """
    searched = AutoDeepLabGenotype.load(finished_genotype(settings.run_dir, settings.allow_unfinished))
    if not train_config.val_split:
        raise InputError("--val_split: expected the split to compare on")
    read_descriptor(settings.dataset_dir, train_config.train_split, train_config.val_split, settings.test_split)
    sections = {
        "searched": searched.digest,
        "random_seed": settings.random_seed,
        "filter_multiplier": settings.filter_multiplier,
        "train": runs.section(settings.folder, "train", train_config),
        "dataset_dir": os.path.abspath(settings.dataset_dir),
    }
    try:
        runs.check_run(settings.folder, sections)
    except InputError as problem:
        raise InputError(str(problem).replace("--run_dir", "--output_dir")) from None
    shape = (searched.num_layers, searched.num_blocks)
    drawn = [random_genotype(settings.random_seed + i, *shape) for i in range(settings.random_architectures)]
    return [
        _Candidate(SEARCHED, SEARCHED, searched),
        *(_Candidate(name, BASELINE) for name in settings.baseline),
        *(_Candidate(f"{RANDOM}_{i}", RANDOM, genotype) for i, genotype in enumerate(drawn)),
    ], sections


def _outcome(settings: Retrain, candidate: _Candidate, configs: Sequence[TrainConfig], strategy) -> Outcome:
    """Trains a network with every seed."""
    network = _network(settings, candidate)

    def train(one: TrainConfig) -> Training:
        run_dir = settings.folder / f"{candidate.name}_seed{one.seed}"
        return full_training.train(network, one, settings.dataset_dir, run_dir, strategy, settings.test_split)

    trainings, failed = full_training.train_seeds(candidate.name, configs, train)
    counts = _counts(settings, network, configs[0].val_split)
    return retraining.make_outcome(candidate.name, candidate.group, candidate.summary, counts, trainings, failed)


def _network(settings: Retrain, candidate: _Candidate):
    """The ModelConfig of a candidate; writes its genotype."""
    from nas_seg import presets

    num_classes = read_descriptor(settings.dataset_dir).num_classes
    if candidate.genotype is None:
        return presets.network_config(num_classes, preset=candidate.name)
    path = settings.folder / "genotypes" / f"{candidate.name}.json"
    candidate.genotype.save(path)
    return presets.network_config(num_classes, genotype=path, filter_multiplier=settings.filter_multiplier)


def _counts(settings: Retrain, network, val_split: str) -> tuple[int, int]:
    """(trainable weights, multiply-adds of a picture of the validation split)."""
    import math

    from nas_seg import model as model_lib
    from nas_seg.utils.flops import count_madds

    model = model_lib.build(network)
    size = read_descriptor(settings.dataset_dir).split(val_split).max_size
    return sum(math.prod(v.shape) for v in model.trainable_variables), count_madds(model, *size)


def _write(settings: Retrain, train_config: TrainConfig, outcomes: Sequence[Outcome], pending: int) -> Retraining:
    found = Retraining(
        outcomes=second_stage.rank(outcomes),
        pending=pending,
        steps=train_config.training_number_of_steps,
        size=read_descriptor(settings.dataset_dir).split(train_config.val_split).max_size,
        dataset_dir=os.path.abspath(settings.dataset_dir),
        train_split=train_config.train_split,
        val_split=train_config.val_split,
        test_split=settings.test_split,
        **runs.circumstances(),
    )
    config.save(settings.folder / retraining.FILE, found)
    return found
