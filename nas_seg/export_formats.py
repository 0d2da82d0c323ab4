"""A trained model in the formats of several run times, each run afterwards and compared with the model it is of.

EXPORT_PATH/                      the SavedModel itself, where it is among the formats
EXPORT_PATH/model.tflite          and model_float16.tflite, model_int8.tflite, model_int16x8.tflite, model.onnx
EXPORT_PATH/export.json           what was written, and how well it agrees

All have one input, ImageTensor, uint8 [1, H, W, 3], with preprocessing, padding, the resize and arg-max inside.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from nas_seg import common
from nas_seg.inference_config import InferenceConfig
from nas_seg.utils import config
from nas_seg.utils.errors import InputError, unknown
from nas_seg.utils.quiet import deaf_stderr

SAVED_MODEL, TFLITE, TFLITE_FLOAT16, TFLITE_INT8, TFLITE_INT16X8, ONNX = (
    "saved_model",
    "tflite",
    "tflite_float16",
    "tflite_int8",
    "tflite_int16x8",
    "onnx",
)
# A second signature, of files that are written to compare probabilities alone.
_COMPARED = "compared"
_SERVING = "serving_default"
_OPSET = 17
# TFLite's operations that stay in float32 beside int8 convolutions, for they cost nothing there and add most of the
# noise: the arithmetic of a picture's bytes, and the sums of residual blocks. A DPC network kept 97.3% of its labels
# for 95.5%, on XNNPACK in the same time; with resizes, concatenations and depthwise convolutions 97.4%. A ReLU by
# itself is slow in 8 bits: with it in float32 a template network took 31 ms for 49, for the same labels.
_FLOAT_OPERATIONS = ("ADD", "SUB", "MUL", "RELU")
# On how many pictures kernels are rounded; all are in memory at once, with every layer's features in turn.
_MOST_PICTURES, _MOST_PIXELS = 16, 1 << 21

# uint8 [H, W, 3] -> tensor name -> array [1, ...]
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class Format(NamedTuple):
    """A row of `FORMATS`.

    Attributes:
        file: its name within the export; "" is the folder itself.
        write: (folder of a SavedModel, signature, calibration pictures) -> the file's bytes; None: that folder it is.
        load: path, signature -> how it is run, and by what.
        needs_size: whether pictures are of one size, known when it is written.
        calibrated: whether real pictures are needed to write it.
        packages: what must be installed besides TensorFlow.
        extra: of this package, that installs them.
    """

    file: str
    write: Callable[[str, str, Sequence[np.ndarray]], bytes] | None
    load: Callable[[pathlib.Path, str], tuple[Run, str]]
    needs_size: bool = False
    calibrated: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""


def check(formats: Sequence[str], size: tuple[int, int] | None, packages: bool = True) -> None:
    """Raises an InputError, which begins with a flag's name, for formats that cannot be written.

    Args:
        formats: names in `FORMATS`.
        size: (height, width) of the pictures, or None.
        packages: whether those that a format needs must be installed.
    """
    if not formats:
        raise InputError(f"format: expected one or more of {', '.join(FORMATS)}, received none")
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format: {unknown('format', name, FORMATS)}")
        if FORMATS[name].needs_size and size is None:
            raise InputError(f"export_size: expected height,width, which --format={name} needs")
        missing = _missing(name)
        if packages and missing:
            raise InputError(
                f"format: {name} needs the package {missing[0]}: pip install 'nas_seg[{FORMATS[name].extra}]'"
            )
    if len(set(formats)) < len(formats):
        raise InputError(f"format: expected different formats, received {','.join(formats)}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"export_size: expected two sizes of 1 or more, received {','.join(map(str, size))}")


def installed() -> list[str]:
    """The formats that can be written and run here."""
    return [name for name in FORMATS if not _missing(name)]


def _missing(name: str) -> list[str]:
    return [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]


def export(
    model: Any,
    export_path: str | os.PathLike,
    formats: Sequence[str] = (SAVED_MODEL,),
    inference: InferenceConfig | None = None,
    variants: Mapping[float, Any] | None = None,
    *,
    semantic_probabilities: str | None = None,
    size: tuple[int, int] | None = None,
    calibration: Sequence[np.ndarray] = (),
    pictures: Sequence[np.ndarray] = (),
    about: Mapping[str, Any] | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Writes a model in several formats, runs each, and writes export.json beside them.

    The SavedModel takes pictures of any size, the others of one. (tf2onnx 1.17 converts a graph of unknown sizes to one
    that takes the height for the width.)

    Args:
        model: images [B, H, W, 3] in [0, 255] -> logits [B, H, W, num_classes].
        export_path: a folder; an export that is there is replaced as a whole, any other content is not.
        formats: names in `FORMATS`.
        inference: how the network looks at a picture, see `nas_seg.inference.scorer`.
        variants: as there.
        semantic_probabilities: as `nas_seg.export_model.export_saved_model` has it, for every format.
        size: (height, width) of the pictures of TFLite and ONNX.
        calibration: uint8 [H, W, 3] each, of `size`, for the formats with kernels of 8 bits: real pictures, a hundred
            or so. Kernels and biases of these formats are made for up to 16 of them (`nas_seg.core.rounded_kernels`).
        pictures: the same, to compare on; none: nothing is compared.
        about: what else export.json is to tell.
        advance: called after each format.

    Returns:
        What export.json holds: beside `about` for each format its file, bytes, and if compared "label_agreement" (the
        share of all pixels that have the model's label), "max_probability_error" and "mean_probability_error" (of
        plain probabilities).

    Raises:
        InputError: for formats that cannot be written, or where export_path holds something else.
    """
    from nas_seg import export_model

    check(formats, size)
    if not len(calibration) and any(FORMATS[name].calibrated for name in formats):
        needing = next(name for name in formats if FORMATS[name].calibrated)
        raise InputError(f"calibration: expected real pictures, which {needing} needs, received none")
    compared = len(pictures) and semantic_probabilities != export_model.PLAIN
    endpoints = {export_model.SERVE: export_model.Endpoint(semantic_probabilities)}
    endpoints |= {_COMPARED: export_model.Endpoint(export_model.PLAIN)} if compared else {}
    with export_model.replaced_folder(export_path) as folder, tempfile.TemporaryDirectory() as elsewhere:

        @functools.cache
        def graph(sides, rounded=""):
            path = os.path.join(elsewhere, rounded or ("fixed" if sides else "any"))
            networks = [model, *(variants or {}).values()] if rounded else []
            with _kernels_for_rounding(networks, calibration, rounded == TFLITE_INT8):
                export_model.write(model, path, inference, variants, endpoints, sides)
            return path

        reference = _reference(model, inference, variants, pictures)
        if SAVED_MODEL in formats:
            export_model.write(model, folder, inference, variants, export_model.served(semantic_probabilities))
        else:
            folder.mkdir()
        files = {}
        for name in formats:
            row = FORMATS[name]
            sides, rounded = size if row.needs_size else None, name if row.calibrated else ""
            path, twin = folder / row.file, pathlib.Path(elsewhere, row.file)
            if row.write:
                path.write_bytes(row.write(graph(sides, rounded), _SERVING, calibration))
            if row.write and compared:
                twin.write_bytes(row.write(graph(sides, rounded), _COMPARED, calibration))
            elif compared:
                twin = pathlib.Path(graph(sides))
            told = (twin, _COMPARED) if compared else (path, _SERVING)
            files[name] = _describe(path, row, sides) | _compare(row, path, told, pictures, reference)
            advance()
        report = {"format_version": config.FORMAT_VERSION} | dict(about or {}) | {"files": files}
        config.write_json(folder / export_model.REPORT, report)
    return report


@contextlib.contextmanager
def _kernels_for_rounding(networks: Sequence[Any], pictures: Sequence[np.ndarray], spare: bool) -> Iterator[None]:
    """Within it the networks are what is to be quantised."""
    from nas_seg.core.rounded_kernels import rounded_network

    with contextlib.ExitStack() as stack:
        if networks:
            most = max(1, min(_MOST_PICTURES, _MOST_PIXELS // math.prod(pictures[0].shape[:2])))
            chosen = pictures[:: math.ceil(len(pictures) / most)]
        for network in networks:
            stack.enter_context(rounded_network(network, np.stack(chosen).astype(np.float32), spare))
        yield


def _describe(path: pathlib.Path, row: Format, size: tuple[int, int] | None) -> dict[str, Any]:
    others = {other.file for other in FORMATS.values()}
    paths = [path] if row.file else [one for one in path.rglob("*") if one.is_file() and one.name not in others]
    return {
        "file": row.file or ".",
        "bytes": sum(one.stat().st_size for one in paths),
        "size": list(size or ()) or None,
    }


def _reference(model, inference, variants, pictures) -> list[tuple[np.ndarray, np.ndarray]]:
    """The model's own labels and probabilities of each picture."""
    from nas_seg import prediction

    look = prediction.looker(model, inference, variants, return_probabilities=True)
    return [look(picture) for picture in pictures]


def _compare(row: Format, path, told: tuple[pathlib.Path, str], pictures, reference) -> dict[str, Any]:
    """Runs a file on the pictures, and the file and signature `told`, which also tell probabilities."""
    if not len(pictures):
        return {}
    run, by = row.load(path, _SERVING)
    run_told = run if told == (path, _SERVING) else row.load(*told)[0]
    same, errors = [], []
    for picture, (labels, shares) in zip(pictures, reference, strict=True):
        same.append(np.ravel(run(picture)[common.SEMANTIC_PREDICTIONS][0] == labels))
        errors.append(np.abs(run_told(picture)["SemanticProbabilities"][0] - shares))
    return {
        "label_agreement": float(np.concatenate(same).mean()),
        "max_probability_error": float(max(error.max() for error in errors)),
        "mean_probability_error": float(np.concatenate([error.ravel() for error in errors]).mean()),
        "run_by": by,
    }


def _tflite(folder: str, signature: str, calibration: Sequence[np.ndarray], *, kind: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature])
    if kind != TFLITE:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == TFLITE_FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if FORMATS[kind].calibrated:
        converter.representative_dataset = lambda: ([picture[None]] for picture in calibration)
        sets = tf.lite.OpsSet
        quantised = {
            TFLITE_INT8: sets.TFLITE_BUILTINS_INT8,
            TFLITE_INT16X8: sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }
        # The softmax of probabilities: what has no such kernel stays in float32.
        converter.target_spec.supported_ops = [quantised[kind], sets.TFLITE_BUILTINS]
    with deaf_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the interpreter that the debugger makes.
        if kind != TFLITE_INT8:
            return converter.convert()
        # The converter takes no such choice; what is there to debug quantisation does.
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(_FLOAT_OPERATIONS))
        debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
        debugger.options.denylisted_nodes = _float_nodes(debugger.calibrated_model)
        return debugger.get_nondebug_quantized_model()


def _float_nodes(content: bytes) -> list[str]:
    """Names of the operations of a TFLite file that int8 leaves in float32.

    From the last convolutions on they cost next to nothing: logits, and labels of these. The others are the first
    convolutions, whose kernels stay exact as well.
    """
    from tensorflow.lite.python.interpreter import Interpreter

    from nas_seg.core.rounded_kernels import spared

    interpreter = Interpreter(model_content=content)
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    # There is no public way to an interpreter's operations; the debugger takes this one.
    operations = interpreter._get_ops_details()
    makers = {made: op for op in operations for made in op["outputs"]}
    convolutions = [op for op in operations if op["op_name"].endswith("CONV_2D")]
    places = spared([op["op_name"] == "DEPTHWISE_CONV_2D" for op in convolutions])
    found = {convolutions[place]["index"]: convolutions[place] for place in places}
    waiting = [tensor["index"] for tensor in interpreter.get_output_details()]
    while waiting:
        op = makers.get(waiting.pop())
        if op is None or op["index"] in found:
            continue
        found[op["index"]] = op
        if not op["op_name"].endswith("CONV_2D"):
            waiting.extend(op["inputs"])
    return [names[made] for op in found.values() for made in op["outputs"]]


def _onnx(folder: str, signature: str, _calibration: Sequence[np.ndarray]) -> bytes:
    import tensorflow as tf
    import tf2onnx

    loaded = tf.saved_model.load(folder)
    serve = loaded.signatures[signature]
    (spec,) = serve.structured_input_signature[1].values()
    with deaf_stderr():
        graph, _ = tf2onnx.convert.from_function(
            tf.function(lambda image: serve(**{common.IMAGE_TENSOR: image})),
            input_signature=[tf.TensorSpec(spec.shape, spec.dtype, common.IMAGE_TENSOR)],
            opset=_OPSET,
        )
    # The converter names the input by the function's argument.
    old = graph.graph.input[0].name
    graph.graph.input[0].name = common.IMAGE_TENSOR
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = common.IMAGE_TENSOR
    _widen_scales(graph.graph)
    return graph.SerializeToString()


def _widen_scales(graph: Any) -> None:
    """Makes the scales of an ONNX graph's resizes lead to the sizes that they are quotients of.

    tf2onnx 1.17 writes 13 / 49 rounded to float32, which may be too small: 49 rows times that are 12.9999996, and a run
    time cuts this to 12. The next larger number is off by as little, and never short.
    """
    from onnx import numpy_helper

    scales = {node.input[2] for node in graph.node if node.op_type == "Resize" and len(node.input) == 3}
    for tensor in graph.initializer:
        if tensor.name in scales:
            value = numpy_helper.to_array(tensor)
            wider = np.where(value == np.round(value), value, np.nextafter(value, np.float32(np.inf)))
            tensor.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), tensor.name))


def _load_saved_model(path: pathlib.Path, signature: str) -> tuple[Run, str]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def run(image):
        outputs = loaded.signatures[signature](**{common.IMAGE_TENSOR: tf.constant(image[None])})
        return {name: value.numpy() for name, value in outputs.items()}

    return run, f"tensorflow {tf.__version__}"


def _load_tflite(path: pathlib.Path, _signature: str) -> tuple[Run, str]:
    """LiteRT where it is installed; TensorFlow's own interpreter is its predecessor."""
    with deaf_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("ai_edge_litert"):
            from ai_edge_litert.interpreter import Interpreter

            by = f"ai-edge-litert {metadata.version('ai-edge-litert')}"
        else:
            from tensorflow import __version__
            from tensorflow.lite.python.interpreter import Interpreter

            by = f"tensorflow {__version__}"
        interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        runner = interpreter.get_signature_runner()

    def run(image):
        return {name: np.array(value) for name, value in runner(**{common.IMAGE_TENSOR: image[None]}).items()}

    return run, by


def _load_onnx(path: pathlib.Path, _signature: str) -> tuple[Run, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image):
        return dict(zip(names, session.run(names, {common.IMAGE_TENSOR: image[None]}), strict=True))

    return run, f"onnxruntime {onnxruntime.__version__}"


def _tflite_row(file: str, kind: str, **values: Any) -> Format:
    return Format(file, functools.partial(_tflite, kind=kind), _load_tflite, needs_size=True, **values)


FORMATS: dict[str, Format] = {
    SAVED_MODEL: Format("", None, _load_saved_model),
    TFLITE: _tflite_row("model.tflite", TFLITE),
    TFLITE_FLOAT16: _tflite_row("model_float16.tflite", TFLITE_FLOAT16),
    TFLITE_INT8: _tflite_row("model_int8.tflite", TFLITE_INT8, calibrated=True),
    TFLITE_INT16X8: _tflite_row("model_int16x8.tflite", TFLITE_INT16X8, calibrated=True),
    ONNX: Format("model.onnx", _onnx, _load_onnx, needs_size=True, packages=("tf2onnx", "onnxruntime"), extra="onnx"),
}
