"""The parts of a report that tell of a training: curves, what is taken for what, the worst pictures, settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from nas_seg.plot import architecture, class_sections, page, settings
from nas_seg.plot.axes import time_unit
from nas_seg.plot.cell_diagram import MAP_SIZE
from nas_seg.plot.confusion import MOST_CLASSES, confusion_svg, largest
from nas_seg.plot.curves import MOST_POINTS, line_chart
from nas_seg.plot.markup import Markup, element
from nas_seg.plot.network_results import NetworkResult, jpeg_uri
from nas_seg.plot.split_scores import Picture, SplitScores
from nas_seg.plot.training_result import TrainingResult, own_scores
from nas_seg.utils import colormap

_CONFUSIONS = 8  # rows of the table of mistakes
_PICTURE_WIDTH = 480  # pixels of each view of a picture
_ALPHA = 0.6  # weight of the classes' colours over the picture
_MISTAKE = (220, 20, 60)
# Sections of config.json that have rows of their own.
_TOLD = ("command", "machine", "versions", "dataset_dir", "model")


def sections(training: TrainingResult, scores: SplitScores | None, reason: str) -> list[Markup | None]:
    """Everything, in the order of the page.

    Args:
        training: the run folder.
        scores: its network on a split; None: the parts that need pictures are left out.
        reason: why they are, in a sentence.
    """
    looked = [_confusions(scores), _pictures(scores)] if scores else [page.section("Pictures", page.note(reason))]
    return [
        _lead(training, scores),
        _curves(training),
        class_sections.classes(None, _networks(training, scores)),
        *looked,
        _network(training),
        _about(training),
    ]


def _lead(training: TrainingResult, scores: SplitScores | None) -> Markup:
    """The outcome in a few lines."""
    total = training.train.get("training_number_of_steps")
    last = max((points[-1][0] for points in (training.loss, training.miou) if points), default=None)
    parts = []
    if training.best is not None:
        words = f"Best mIoU on {training.val_split}: {class_sections.shown(training.best['val_miou'])} %"
        parts.append(element("p", element("strong", words), f", at step {training.best['step']}."))
    if last is None:
        parts.append(element("p", "No step is recorded in this folder."))
    else:
        loss = f", last loss {training.loss[-1][1]:.4f}" if training.loss else ""
        parts.append(element("p", f"Trained to step {last}{f' of {total}' if total else ''}{loss}."))
    if scores is not None:
        parts.append(page.note(f"Classes, confusions and pictures: the best weights on {_of(scores)}."))
    return element("div", *parts)


def _curves(training: TrainingResult) -> Markup | None:
    """Loss, validation score, learning rate and speed by step."""
    split = training.val_split or "val"
    wanted = (
        ("loss", {"loss of the training batches": training.loss}),
        ("mIoU (%)", {f"mIoU on {split}": [(step, 100 * value) for step, value in training.miou]}),
        ("learning rate", {"learning rate": training.learning_rate}),
        ("images per second", {"speed of training": training.images_per_second}),
    )
    drawn = [(label, lines) for label, lines in wanted if any(lines.values())]
    if not drawn:
        return None
    means = len(training.loss) > MOST_POINTS
    words = f"Each line is drawn through the means of {MOST_POINTS} groups of neighbouring rows." if means else None
    charts = [page.chart(line_chart(lines, "step", label)) for label, lines in drawn]
    return page.section("Training by step", page.columns(*charts), page.note(words) if words else None)


def _networks(training: TrainingResult, scores: SplitScores | None) -> list[NetworkResult]:
    """The scores of each split once: as they were measured for this page, by tools/eval.py, or in the training."""
    found = [_as_result(training, scores)] if scores else []
    for one in (*training.networks, own_scores(training)):
        if one is not None and one.split not in {known.split for known in found}:
            found.append(one)
    return found


def _as_result(training: TrainingResult, scores: SplitScores) -> NetworkResult:
    result = scores.confusion.result()
    ious = [None if math.isnan(iou) else iou for iou in result["class_iou"].tolist()]
    return NetworkResult(
        run_dir=training.run_dir,
        split=scores.split,
        miou=result["miou"],
        pixel_accuracy=result["pixel_accuracy"],
        num_images=scores.num_images,
        class_iou=dict(zip(scores.descriptor.class_names, ious, strict=True)),
        dataset_dir=str(scores.dataset_dir),
        image_miou={},
    )


def _confusions(scores: SplitScores) -> Markup:
    """The confusion matrix and its largest mistakes."""
    names, matrix = scores.descriptor.class_names, scores.confusion.matrix
    words = (
        f"All labelled pixels of {_of(scores)}. Each row adds up to 100 %; shares below half a percent have no number."
    )
    if len(names) > MOST_CLASSES:
        words += f" Drawn are the {MOST_CLASSES} of {len(names)} classes with the most mistaken pixels."
    rows = [
        (one.truth, one.prediction, f"{100 * one.of_truth:.1f}", f"{100 * one.of_mistakes:.1f}")
        for one in largest(matrix, names, _CONFUSIONS)
    ]
    columns = ["true class", "taken for", "% of the class", "% of all mistakes"]
    return page.section(
        "What is taken for what",
        page.note(words),
        page.diagram(confusion_svg(matrix, names)),
        element("h3", "The largest mistakes"),
        page.table(columns, rows, columns[2:]) if rows else page.note("None: every labelled pixel is right."),
    )


def _pictures(scores: SplitScores) -> Markup:
    """The worst pictures: as they are, their truth, the prediction, and where the two differ."""
    descriptor = scores.descriptor
    words = f"The {len(scores.worst)} with the lowest mIoU of {_of(scores)}, the worst first: "
    words += "picture, truth, prediction, mistakes in red."
    figures = [
        element(
            "figure",
            element("figcaption", _caption(picture, descriptor.class_names)),
            element("div", *_views(picture, descriptor.colors, descriptor.ignore_label), class_="views"),
        )
        for picture in scores.worst
    ]
    key = page.swatches(descriptor.class_names, descriptor.colors)
    return page.section(f"The worst pictures of {scores.split}", page.note(words), key, *figures)


def _caption(picture: Picture, names: Sequence[str]) -> str:
    score = "no labelled pixels" if math.isnan(picture.miou) else f"mIoU {class_sections.shown(picture.miou)} %"
    words = f"{picture.name} · {score}"
    for one in largest(picture.matrix, names, 1):
        share = 100 * one.pixels / picture.matrix.sum()
        words += f" · most of all {one.truth} taken for {one.prediction} ({share:.1f} % of the labelled pixels)"
    return words


def _views(picture: Picture, colors: Sequence[tuple[int, int, int]], ignore_label: int) -> list[Markup]:
    wrong = (picture.truth != picture.prediction) & (picture.truth != ignore_label)
    # Grey and pale, so that what is red stands out.
    grey = 0.5 * picture.image.mean(axis=-1, keepdims=True) + 96
    views = {
        "picture": picture.image,
        "truth": colormap.overlay(picture.image, picture.truth, colors, _ALPHA),
        "prediction": colormap.overlay(picture.image, picture.prediction, colors, _ALPHA),
        "mistakes": np.where(wrong[..., None], np.uint8(_MISTAKE), grey.astype(np.uint8)),
    }
    return [
        element("img", src=jpeg_uri(Image.fromarray(view), _PICTURE_WIDTH), alt=f"{picture.name}: {what}")
        for what, view in views.items()
    ]


def _network(training: TrainingResult) -> Markup | None:
    """The drawing of a network that a search has found."""
    genotype = architecture.of_network(_network_section(training), "config.json: model.network")
    if genotype is None:
        return None
    map_size, stride = _feature_map(training)
    drawing = architecture.draw(genotype, map_size, stride)
    return page.section("The network", element("p", element("code", genotype.summary())), page.diagram(drawing))


def _feature_map(training: TrainingResult) -> tuple[tuple[int, int], int]:
    """((height, width) of the feature map of a training crop, output stride), where config.json tells them."""
    backbone = _network_section(training).get("backbone")
    stride = backbone.get("output_stride") if isinstance(backbone, Mapping) else None
    crop = training.train.get("train_crop_size")
    if not stride or not crop:
        return MAP_SIZE, 16
    height, width = (-(-side // stride) for side in crop)
    return (height, width), stride


def _network_section(training: TrainingResult) -> Mapping[str, Any]:
    network = training.sections["model"].get("network")
    return network if isinstance(network, Mapping) else {}


def _about(training: TrainingResult) -> Markup:
    """The command, the machine, the versions, the settings."""
    sections, command = training.sections, training.sections.get("command")
    factor, unit = time_unit(training.seconds)
    network = {k: v for k, v in _network_section(training).items() if k not in ("genotype", "backbone")}
    backbone = _network_section(training).get("backbone")
    if isinstance(backbone, Mapping):
        backbone = {k: v for k, v in backbone.items() if k != "genotype"}
    others = {k: v for k, v in sections.items() if k not in _TOLD}
    known = [
        ("Command", element("code", command) if command else None),
        ("Machine", sections.get("machine")),
        ("Versions", settings.words(sections.get("versions", ""))),
        ("Time", f"{training.seconds / factor:.1f} {unit} of training steps" if training.seconds else None),
        ("Data set", str(training.dataset_dir) if training.dataset_dir else None),
        ("Network", settings.words(network)),
        ("Backbone", settings.words(backbone) if backbone else None),
        *((settings.title(k), settings.words(v)) for k, v in settings.flat(others)),
    ]
    return page.section("Command, machine and settings", page.facts(known))


def _of(scores: SplitScores) -> str:
    return f"the {scores.num_images} pictures of {scores.split}"
