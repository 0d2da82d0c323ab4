"""DeepLab's flags that say nothing here: taken at the value that changes nothing, refused at any other."""

from __future__ import annotations

from typing import Any, NamedTuple

from absl import flags

from nas_seg.utils.errors import InputError


class _Row(NamedTuple):
    """A flag: the original's default, what else is harmless, and what is so today."""

    tools: str
    default: Any
    today: str
    harmless: tuple = ()


_TRAIN, _EVAL, _VIS, _EXPORT = "train", "eval", "vis", "export_model"
_ALL = f"{_TRAIN} {_EVAL} {_VIS} {_EXPORT}"
_WORKERS = "several machines are --strategy=multi_worker, told by TF_CONFIG"
_BY_STEPS = "a training writes every so many steps"
_ONCE = "the split is gone through once"
_TRAINING = "it concerns a training alone"

# Each flag's place in the original is its common.py or the tool's own file.
_FLAGS: dict[str, _Row] = {
    "keep_aspect_ratio": _Row(_ALL, True, "the original defines it and never reads it"),
    "prediction_with_upsampled_logits": _Row(_TRAIN, True, "it concerns eval, vis and export_model", (False,)),
    "nas_use_classification_head": _Row(_ALL, False, "networks that classify whole pictures are not here"),
    "quantize_delay_step": _Row(_ALL, -1, "there is no training with simulated quantisation"),
    "batch_norm_decay": _Row(f"{_EVAL} {_VIS} {_EXPORT}", 0.9997, _TRAINING),
    "label_weights": _Row(f"{_EVAL} {_VIS} {_EXPORT}", None, _TRAINING),
    "num_clones": _Row(_TRAIN, 1, "several GPUs are --strategy=mirrored; --train_batch_size is over all of them"),
    "clone_on_cpu": _Row(_TRAIN, False, "--strategy says the devices"),
    "num_replicas": _Row(_TRAIN, 1, _WORKERS),
    "startup_delay_steps": _Row(_TRAIN, 15, _WORKERS),
    "num_ps_tasks": _Row(_TRAIN, 0, _WORKERS),
    "task": _Row(_TRAIN, 0, _WORKERS),
    "master": _Row(f"{_TRAIN} {_EVAL} {_VIS}", "", _WORKERS),
    "save_interval_secs": _Row(_TRAIN, 1200, f"{_BY_STEPS}: --save_interval_steps"),
    "save_summaries_secs": _Row(_TRAIN, 600, f"{_BY_STEPS}: --log_steps, into metrics.jsonl"),
    "save_summaries_images": _Row(_TRAIN, False, "tools/vis.py draws pictures"),
    "profile_logdir": _Row(_TRAIN, None, "tools/benchmark.py times steps"),
    "eval_interval_secs": _Row(f"{_EVAL} {_VIS}", 300, _ONCE),
    "max_number_of_evaluations": _Row(_EVAL, 0, _ONCE, (1,)),
    "max_number_of_iterations": _Row(_VIS, 0, _ONCE, (1,)),
    "save_inference_graph": _Row(_EXPORT, False, "what is written is a SavedModel"),
}
_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    type(None): flags.DEFINE_string,
}


def define(tool: str) -> None:
    """Defines the flags that a tool of the original has and that of this name here has not; --help leaves them out."""
    for name, row in _of(tool).items():
        _DEFINE[type(row.default)](name, row.default, f"Without meaning here: {row.today}.")


def check(tool: str) -> None:
    """Tells of each of them that was typed.

    Raises:
        InputError: for one that asks for something else than is done.
    """
    for name, row in _of(tool).items():
        flag = flags.FLAGS[name]
        if flag.value != row.default and flag.value not in row.harmless:
            expected = row.default if row.default is not None else "none"
            raise InputError(f"--{name}: expected {expected!r}, received {flag.value!r}; {row.today}")
        if flag.present:
            print(f"note: --{name} is ignored: {row.today}")


def table() -> list[str]:
    """The flags as rows of a Markdown table: flag, tools, values that are taken, why (docs/migration.md)."""
    rows = []
    for name, row in _FLAGS.items():
        values = [value for value in (row.default, *row.harmless) if value not in (None, "")]
        shown = ", ".join(str(value).lower() for value in values) or "none"
        rows.append(f"| `--{name}` | {', '.join(row.tools.split())} | {shown} | {row.today} |")
    return rows


def check_dataset(name: str) -> None:
    """InputError where --dataset is typed, and the records, which tell it themselves, are of another data set."""
    received = flags.FLAGS.dataset
    if received and received != name:
        raise InputError(f"--dataset: the records are of {name!r}, received {received!r}")


def _of(tool: str) -> dict[str, _Row]:
    return {name: row for name, row in _FLAGS.items() if tool in row.tools.split()}
