"""The second stage of a search: some of its genotypes trained end to end, and ranked anew.

RERANK/config.json              study, choice, candidates (digest -> rank by proxy), backbone, train, dataset_dir
RERANK/genotypes/NAME.json      of every candidate; NAME is its digest, or the name of a baseline
RERANK/NAME_seedSEED/           run folder of a training
RERANK/rerank.json              a `Reranking` of nas_seg.search.second_stage, written after every candidate
RERANK/genotype.json            the best searched genotype so far

A network is what tools/train.py makes of the genotype, on the backbone of the search.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from optuna.study import Study

from nas_seg import full_training, spaces
from nas_seg.datasets.descriptors import read_descriptor
from nas_seg.search import baselines, second_stage, study
from nas_seg.search.second_stage import Candidate, Reranking, Result, Training
from nas_seg.search.space import SearchSpace
from nas_seg.train_config import TrainConfig
from nas_seg.utils import app, config, runs
from nas_seg.utils.errors import InputError, unknown

FILE = "rerank.json"
# The section of a search's config.json that says what its scores depend on.
_TASK = "task"
# Metrics of a trial: iou/CLASS.
_IOU = "iou/"


@dataclasses.dataclass(frozen=True)
class Rerank:
    """What is trained; the flags of tools/rerank.py, which say what each of them is."""

    run_dir: str
    dataset_dir: str
    output_dir: str | None = None
    top_k: int = 5
    random_k: int = 5
    baseline: tuple[str, ...] = ()
    seeds: int = 1
    test_split: str | None = None
    storage: str | None = None
    study_name: str = "search"
    strategy: str = "auto"

    @property
    def folder(self) -> pathlib.Path:
        """RERANK."""
        return pathlib.Path(self.output_dir or pathlib.Path(self.run_dir, "rerank"))

    def training_dir(self, candidate: Candidate, seed: int) -> pathlib.Path:
        """The run folder of a training."""
        return self.folder / f"{candidate.name}_seed{seed}"


def rerank(settings: Rerank, train_config: TrainConfig) -> Reranking:
    """Trains the candidates that are not trained yet, from where each of them stands, and ranks all.

    Args:
        settings: what to train.
        train_config: how. Without backbone_weights it takes those of the search; its seed is the first one, and that
            of the random choice.

    Raises:
        InputError: for what does not fit; as far as possible before TensorFlow is imported or anything written. Also
            when every candidate failed.
    """
    train_config, candidates, sections = check(settings, train_config)
    app.import_tensorflow()
    from nas_seg.utils import distribute

    strategy = distribute.get_strategy(settings.strategy)
    if not (settings.folder / runs.CONFIG).exists():
        _check_backbone(sections["backbone"], train_config.backbone_weights)
    configs = [dataclasses.replace(train_config, seed=train_config.seed + i) for i in range(settings.seeds)]
    with runs.lock(settings.folder):
        runs.open_run(settings.folder, sections | runs.circumstances())
        announce = _announcer(settings, candidates, [one.seed for one in configs])

        def train(candidate: Candidate, one: TrainConfig) -> Training:
            announce(candidate, one.seed)
            return _train(settings, sections["backbone"], strategy, candidate, one)

        results = []
        for candidate in candidates:
            trained = full_training.train_seeds(candidate.name, configs, functools.partial(train, candidate))
            results.append(second_stage.make_result(candidate, *trained))
            found = _write(settings, train_config, candidates, results)
    if all(result.failed for result in results):
        raise InputError(f"{settings.folder}: every candidate failed; {results[0].name}: {results[0].failed}")
    return found


def check(settings: Rerank, train_config: TrainConfig) -> tuple[TrainConfig, list[Candidate], dict[str, Any]]:
    """Raises InputError for all that can be found wrong without TensorFlow; writes nothing.

    Returns:
        how to train (with the backbone's weights), the candidates, and the sections of RERANK/config.json.
    """
    opened = study.read_study(settings.storage or study.default_storage(settings.run_dir), settings.study_name)
    facts = opened.user_attrs[study.FACTS]
    space = spaces.read_space(facts["space"])
    # Processes that search at once may have scored a genotype twice.
    by_digest = {row.digest: row for row in reversed(study.leaderboard(opened, space))}
    rows = sorted(by_digest.values(), key=lambda row: row.rank)
    _check_data(settings, train_config, rows)
    backbone, weights = _searched_on(settings.run_dir)
    train_config = dataclasses.replace(train_config, backbone_weights=train_config.backbone_weights or weights)
    chosen = _chosen(settings, rows, train_config.seed)
    sections = {
        "study": {name: facts[name] for name in ("space_digest", "conditions")},
        "choice": {name: getattr(settings, name) for name in ("top_k", "random_k")},
        "candidates": chosen,
        "backbone": backbone,
        "train": runs.section(settings.folder, "train", train_config),
        "dataset_dir": os.path.abspath(settings.dataset_dir),
    }
    try:
        runs.check_run(settings.folder, sections)
    except InputError as problem:
        raise InputError(str(problem).replace("--run_dir", "--output_dir")) from None
    lost = [digest for digest in chosen if digest not in by_digest]
    if lost:
        raise InputError(f"{settings.folder / runs.CONFIG}: candidates: {lost[0]} is not in the study of this search")
    searched = [
        _candidate(digest, rank, by_digest[digest], by_digest[digest].genotype) for digest, rank in chosen.items()
    ]
    candidates = searched + _baselines(settings.baseline, opened, space)
    if not candidates:
        raise InputError("--top_k, --random_k, --baseline: expected at least one genotype to train")
    return train_config, candidates, sections


def _searched_on(run_dir: str) -> tuple[dict[str, Any], str | None]:
    """(fields of the backbone's configuration, weights) of a search of any family, from its config.json."""
    where, task = f"{pathlib.Path(run_dir, runs.CONFIG)}: {_TASK}", runs.read_config(run_dir).get(_TASK)
    if not isinstance(task, dict):
        raise InputError(f"{where}: expected an object with backbone and backbone_weights, received {task!r}")
    backbone = task.get("backbone")
    # What it says is checked when TensorFlow is there, which a backbone's configuration imports.
    config.from_json(dict[str, str | bool | int | float | tuple[int, ...] | None], backbone, f"{where}.backbone")
    return backbone, config.from_json(str | None, task.get("backbone_weights"), f"{where}.backbone_weights")


def _check_data(settings: Rerank, train_config: TrainConfig, rows: Sequence[study.Row]) -> None:
    if not train_config.val_split:
        raise InputError("--val_split: expected the split to rank by")
    data = read_descriptor(settings.dataset_dir, train_config.train_split, train_config.val_split, settings.test_split)
    searched = {name.removeprefix(_IOU) for row in rows for name in row.metrics if name.startswith(_IOU)}
    for name in sorted(searched - set(data.class_names)):
        raise InputError(f"{settings.dataset_dir}: {unknown('class of the search', name, data.class_names)}")


def _chosen(settings: Rerank, rows: Sequence[study.Row], seed: int) -> dict[str, int]:
    """Digest -> rank by proxy: what RERANK/config.json says, for the study may have grown since, or a new choice."""
    if (settings.folder / runs.CONFIG).exists():
        return runs.read_section(settings.folder, "candidates", dict[str, int])
    if not rows:
        raise InputError(f"{settings.run_dir}: study {settings.study_name!r}: no trial is scored yet")
    return {row.digest: row.rank for row in second_stage.choose(rows, settings.top_k, settings.random_k, seed)}


def _candidate(name: str, rank: int | None, scored: study.Row | baselines.Baseline, genotype: Any) -> Candidate:
    return Candidate(name, rank, scored.reward, scored.params, scored.madds, genotype)


def _baselines(names: Sequence[str], opened: Study, space: SearchSpace) -> list[Candidate]:
    genotypes = spaces.baselines(space)
    scored = {baseline.name: baseline for baseline in baselines.baselines(opened) if baseline.name in genotypes}
    for name in names:
        if not scored:
            tool = f"tools/search_{space.KIND}.py"
            raise InputError(f"--baseline={name}: the search scored none; {tool} --baseline={name} does")
        if name not in scored:
            raise unknown("baseline of this search", name, scored)
    return [_candidate(name, None, scored[name], genotypes[name]) for name in dict.fromkeys(names)]


def _check_backbone(backbone: dict[str, Any], weights: str | None) -> None:
    """A backbone and weights that do not fit must not leave a folder behind."""
    from nas_seg import model
    from nas_seg.core.backbones import build_backbone

    network = _backbone(backbone)
    if weights is not None:
        model.fill_backbone(build_backbone(network), network, weights)


def _backbone(fields: dict[str, Any]):
    """The configuration that RERANK/config.json holds: of a backbone, or of a template network's own encoder."""
    from nas_seg.core.backbones import BackboneConfig
    from nas_seg.template.encoder import TemplateEncoder

    kind = TemplateEncoder if "variant" in fields else BackboneConfig
    return config.from_json(kind, fields, f"{runs.CONFIG}: {_TASK}.backbone")


def _announcer(settings: Rerank, candidates: Sequence[Candidate], seeds: Sequence[int]) -> Callable[..., None]:
    """What prints a line before each training: a bar would fight with the training's own."""
    jobs = [settings.training_dir(candidate, seed) for candidate in candidates for seed in seeds]
    missing, start = [job for job in jobs if not full_training.is_trained(job)], time.monotonic()

    def announce(candidate: Candidate, seed: int) -> None:
        job, times = settings.training_dir(candidate, seed), "trained before"
        if job in missing:
            gone, done = time.monotonic() - start, missing.index(job)
            left = f", about {gone / done * (len(missing) - done):.0f} s left" if done else ""
            times = f"{gone:.0f} s gone{left}"
        rank = "baseline" if candidate.rank is None else f"rank {candidate.rank} by proxy"
        print(f"[{jobs.index(job) + 1}/{len(jobs)}] {job.name}: {rank}, {candidate.reward:.4f} · {times}", flush=True)

    return announce


def _train(settings: Rerank, backbone: dict[str, Any], strategy, candidate: Candidate, one: TrainConfig) -> Training:
    """One training of a candidate; writes its genotype."""
    from nas_seg import presets

    genotype = settings.folder / "genotypes" / f"{candidate.name}.json"
    config.save(genotype, candidate.genotype)
    num_classes = read_descriptor(settings.dataset_dir).num_classes
    network = presets.network_config(num_classes, genotype=genotype, **vars(_backbone(backbone)))
    run_dir = settings.training_dir(candidate, one.seed)
    return full_training.train(network, one, settings.dataset_dir, run_dir, strategy, settings.test_split)


def _write(
    settings: Rerank, train_config: TrainConfig, candidates: Sequence[Candidate], results: Sequence[Result]
) -> Reranking:
    """rerank.json and genotype.json of the candidates that are trained so far."""
    found = Reranking(
        candidates=second_stage.rank(results),
        pending=len(candidates) - len(results),
        correlation=second_stage.correlate(results),
        steps=train_config.training_number_of_steps,
        dataset_dir=os.path.abspath(settings.dataset_dir),
        train_split=train_config.train_split,
        val_split=train_config.val_split,
        test_split=settings.test_split,
        **runs.circumstances(),
    )
    config.save(settings.folder / FILE, found)
    best = second_stage.winner(found.candidates)
    if best is not None:
        genotypes = {candidate.name: candidate.genotype for candidate in candidates}
        config.save(settings.folder / "genotype.json", genotypes[best.name])
    return found
