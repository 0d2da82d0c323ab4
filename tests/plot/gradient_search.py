"""The run folder of a gradient search, written in milliseconds."""

from __future__ import annotations

import numpy as np

from nas_seg.auto_deeplab import decode, retraining, search_run
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.relaxation import num_edges
from nas_seg.auto_deeplab.search_config import SearchConfig
from nas_seg.auto_deeplab.space import random_genotype
from nas_seg.search import second_stage
from nas_seg.search.second_stage import Training
from nas_seg.utils import config, runs

HOSTILE = "<script>alert(1)</script>"
LAYERS, EPOCHS, FROZEN = 6, 8, 4


def make_gradient_search(run_dir, epochs=EPOCHS, collapse=None):
    """A search whose alpha and beta drift from the fifth epoch on."""
    settings = SearchConfig(num_layers=LAYERS, num_blocks=3, epochs=EPOCHS)
    about = {"versions": {"python": "3"}, "machine": f"two cores {HOSTILE}", "command": f"python x {HOSTILE}"}
    runs.open_run(run_dir, {search_run.SECTION: config.to_json(settings), "dataset_dir": "records"} | about)
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(num_edges(3), 8)), rng.normal(size=(LAYERS, 4, 3))
    for epoch in range(1, epochs + 1):
        moved = max(epoch - FROZEN, 0)
        alpha, beta = (1e-3 + moved * part for part in drift)
        path = decode.best_path(beta)
        genotype = AutoDeepLabGenotype(decode.decode_cell(alpha), path.levels)
        search_run.write_epoch(run_dir, epoch, genotype, {"alpha": alpha, "beta": beta})
        entropies = decode.entropies(alpha, beta)
        row = {
            "step": 10 * epoch,
            "epoch": epoch,
            "architecture_steps": 10 * moved,
            "weight_loss": 2.0 / epoch,
            "architecture_loss": 2.1 / epoch if moved else None,
            "learning_rate": 0.01,
            "val_miou": None if epoch == 1 else 0.1 + 0.01 * epoch,
            "val_pixel_accuracy": 0.5,
            "alpha_entropy": entropies.alpha,
            "beta_entropy": entropies.beta,
            "path_entropy": entropies.path,
            "margin": path.margin,
            "genotype": genotype.summary(),
            "collapse": collapse,
            "seconds": 30.0,
            "peak_gib": 2.5 + epoch / 100,
        }
        runs.append_metrics(run_dir, row)
    return run_dir


def make_retraining(run_dir):
    genotypes = [random_genotype(seed, LAYERS, 3) for seed in range(4)]
    groups = [retraining.SEARCHED, *[retraining.RANDOM] * 3]
    outcomes = [
        retraining.make_outcome(
            group if i == 0 else f"random_{i - 1}",
            group,
            genotype.summary(),
            (1_200_000, 3_400_000_000),
            [] if i == 3 else [Training("run", 0, 0.5 - 0.02 * i, 0.4 - 0.01 * i, 60.0)],
            f"seed 0: out of memory {HOSTILE}" if i == 3 else None,
        )
        for i, (group, genotype) in enumerate(zip(groups, genotypes, strict=True))
    ]
    found = retraining.Retraining(
        second_stage.rank(outcomes), 1, 2000, (360, 480), "records", "train", "val", "test", {}, "two cores", "python y"
    )
    config.save(run_dir / retraining.FOLDER / retraining.FILE, found)
    return found
