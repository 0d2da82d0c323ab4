"""What docs/serving.md says of exported networks is what exported networks do."""

import importlib.util
import json
import re

import numpy as np
import pytest
import tensorflow as tf
import training
from case import REPOSITORY

from nas_seg import export_formats, sample_pictures

_TEXT = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
SIZE = (33, 47)


def _blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", _TEXT, re.S | re.M)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The folder that the page's `exports` is: found, and phone with what can be written here."""
    folder = tmp_path_factory.mktemp("work") / "exports"
    export_formats.export(training.tiny_model(), folder / "found")
    formats = [name for name in export_formats.installed() if name in ("tflite", "onnx")]
    export_formats.export(training.tiny_model(), folder / "phone", formats, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def loaded(exports):
    return tf.saved_model.load(str(exports / "found"))


def _shape(spec):
    """A shape in the page's letters; sizes of the picture are unknown to the signature."""
    assert spec.shape[0] == 1 and spec.shape[1:3].as_list() == [None, None], spec
    sides = "h, w" if spec.name.startswith("Raw") else "H, W"
    last = {None: "", 3: ", 3", training.NUM_CLASSES: ", C"}[spec.shape[3] if spec.shape.rank == 4 else None]
    return f"[1, {sides}{last}]"


def test_the_table_of_signatures_is_that_of_the_saved_model(loaded):
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (in|out) \| (\w+) \| (\[.*?\]) \|$", _TEXT, re.M)
    found = set()
    for signature in ("serving_default", "all_outputs"):
        function = loaded.signatures[signature]
        inputs, outputs = function.structured_input_signature[1], function.structured_outputs
        for way, tensors in (("in", inputs), ("out", outputs)):
            for name, tensor in tensors.items():
                spec = tf.TensorSpec(tensor.shape, tensor.dtype, name)
                found.add((signature, name, way, spec.dtype.name, _shape(spec)))
    assert set(rows) == found and len(rows) == len(found) == 7
    assert set(loaded.signatures) == {"serving_default", "serve", "all_outputs"}


def _answer(loaded, request):
    """What TensorFlow Serving's REST interface makes of a request and of the answer."""
    function = loaded.signatures[request["signature_name"]]
    specs = function.structured_input_signature[1]
    if "instances" in request:
        rows = request["instances"]
        # The name may be left out where there is one input.
        rows = [row if isinstance(row, dict) else dict.fromkeys(specs, row) for row in rows]
        inputs = {name: [row[name] for row in rows] for name in rows[0]}
    else:
        inputs = request["inputs"] if isinstance(request["inputs"], dict) else dict.fromkeys(specs, request["inputs"])
    assert inputs.keys() == specs.keys()
    outputs = function(**{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()})
    values = {name: value.numpy().tolist() for name, value in outputs.items()}
    if "inputs" in request:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": rows if len(values) > 1 else [next(iter(row.values())) for row in rows]}


def _form(value):
    """Names, lengths and kinds of numbers of a JSON value."""
    if isinstance(value, dict):
        return {name: _form(item) for name, item in value.items()}
    return [_form(item) for item in value] if isinstance(value, list) else type(value)


def test_the_signatures_answer_the_pages_json_requests_in_the_form_that_it_shows(loaded):
    requests, answers = ([json.loads(block) for block in _blocks(f"json {kind}")] for kind in ("request", "answer"))
    assert len(requests) == len(answers) == 3
    for request, answer in zip(requests, answers, strict=True):
        assert _form(_answer(loaded, request)) == _form(answer)
    # The same picture in both ways.
    assert _answer(loaded, requests[0])["predictions"] == _answer(loaded, requests[1])["outputs"]


def test_what_grpc_sends_is_the_picture_and_its_names_are_the_signatures(loaded):
    (code,) = _blocks("python grpc")
    compile(code, "serving.md", "exec")
    image = sample_pictures.drawn((5, 7), 1)[0][None]
    sent = tf.make_tensor_proto(image)
    np.testing.assert_array_equal(tf.make_ndarray(sent), image)
    signature = re.search(r'signature_name = "(\w+)"', code).group(1)
    function = loaded.signatures[signature]
    assert tf.dtypes.as_dtype(sent.dtype) == function.structured_input_signature[1]["ImageTensor"].dtype
    assert re.findall(r'inputs\["(\w+)"\]', code) == list(function.structured_input_signature[1])
    assert re.findall(r'outputs\["(\w+)"\]', code) == list(function.structured_outputs)


@pytest.mark.parametrize(
    ("kind", "package"), [("tensorflow", "tensorflow"), ("litert", "ai_edge_litert"), ("onnx", "onnxruntime")]
)
def test_the_pages_lines_of_python_give_the_networks_labels(exports, loaded, kind, package, monkeypatch):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if kind == "onnx" and not (exports / "phone" / "model.onnx").exists():
        pytest.skip("tf2onnx is not installed")
    monkeypatch.chdir(exports.parent)
    (code,) = _blocks(f"python {kind}")
    scope = {"image": sample_pictures.drawn(SIZE, 1)[0][None]}
    exec(code, scope)
    expected = loaded.signatures["serving_default"](ImageTensor=scope["image"])["SemanticPredictions"]
    np.testing.assert_array_equal(scope["labels"], expected)
    assert len(np.unique(expected)) > 1
