"""TF1 checkpoints of DeepLab's networks become run folders with the recorded outputs, and go back bit for bit."""

import json

import numpy as np
import pytest
from case import REPOSITORY, fixtures, recipe_value, run_tool
from PIL import Image

import nas_seg
from nas_seg import convert, presets
from nas_seg import model as model_lib
from nas_seg.auto_deeplab import genotype
from nas_seg.auto_deeplab.network import AutoDeepLabBackbone
from nas_seg.core import tf1_checkpoint
from nas_seg.core.backbones import BackboneConfig
from nas_seg.core.decoder import DecoderConfig
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.dpc.genotype import published
from nas_seg.dpc.network import DPCConfig
from nas_seg.model import AutoDeepLabConfig, ModelConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

_SMALL = BackboneConfig(depth_multiplier=0.35, divisible_by=8)
_TINY = ModelConfig(5, DeepLabConfig(_SMALL, head="none", atrous_rates=()))


def _arrays(config, rules=(("", 1.0, 2.0),), seed=0):
    """The recipe's values for every variable of a network."""
    names = model_lib.tf1_names(model_lib.build(config), config)
    return {name: recipe_value(name, tuple(v.shape), rules, seed) for name, v in names.items()}


def _of_a_training(arrays):
    """What a training checkpoint holds beside the network."""
    kernel = next(name for name in arrays if name.endswith("weights"))
    slots = {f"{kernel}/{slot}": np.zeros_like(arrays[kernel]) for slot in ("Momentum", "ExponentialMovingAverage")}
    return arrays | slots | {"global_step": np.int64(30000)}


@pytest.fixture
def tiny(tmp_path):
    tf1_checkpoint.write(tmp_path / "model.ckpt", _of_a_training(_arrays(_TINY)))
    return tmp_path / "model.ckpt"


@pytest.mark.parametrize(
    ("case", "file", "config"),
    [
        ("c_mobilenetv2_coco_voc", "os16_65x97", ModelConfig(21, DeepLabConfig(atrous_rates=()))),
        (
            "d_mobilenetv2_dpc",
            "os8_65x97",
            ModelConfig(19, DPCConfig(published("cityscapes_top1"), BackboneConfig(output_stride=8))),
        ),
        ("e_hnasnet_f20_paper", "os8_65x97", ModelConfig(19, presets.network("auto_deeplab_s"))),
    ],
)
def test_a_converted_checkpoint_gives_the_recorded_probabilities(case, file, config, tmp_path):
    folder = fixtures("deeplab", case)
    info, recorded = json.loads((folder / "info.json").read_text()), np.load(folder / f"{file}.npz")
    shapes = [line.split("\t") for line in (folder / "variables.txt").read_text().splitlines() if line.strip()]
    arrays = {
        name: recipe_value(name, tuple(int(n) for n in shape.split(",") if n), info["gain_rules"], info["seed"])
        for name, shape in shapes
    }
    tf1_checkpoint.write(tmp_path / "model.ckpt", _of_a_training(arrays))
    done = convert.from_tf1(tmp_path / "model.ckpt", config, tmp_path / "run")
    assert (done.filled, done.fresh, done.ignored, done.unused) == (len(shapes), (), 3, ())
    logits = nas_seg.load(tmp_path / "run")(recorded["image"].astype(np.float32))
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    # float32 through some sixty layers.
    np.testing.assert_allclose(exponentials / exponentials.sum(-1, keepdims=True), recorded["prob"], atol=1e-4)
    convert.to_tf1(tmp_path / "run", tmp_path / "back")
    back = tf1_checkpoint.read(tmp_path / "back")
    assert back.keys() == arrays.keys()
    assert all(back[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_tool_converts_by_deeplabs_flags_and_lists_what_it_did_not_use(tiny, tmp_path):
    more = tf1_checkpoint.read(tiny) | {"aspp0/weights": np.zeros((1, 1, 112, 256), np.float32)}
    tf1_checkpoint.write(tmp_path / "more.ckpt", more)
    network = ("--depth_multiplier=0.35", "--divisible_by=8", "--aspp_with_batch_norm=false", "--num_classes=5")
    flags = (f"--tf_checkpoint={tmp_path / 'more.ckpt'}", f"--output_dir={tmp_path / 'run'}", *network)
    done = run_tool("convert_checkpoint", *flags, "--crop_size=65,97")
    assert done.returncode == 0, done.stderr
    assert "not used: aspp0/weights" in done.stdout and "3 of the training ignored" in done.stdout
    assert "multiply-adds at 65 x 97" in done.stdout
    assert model_lib.read_config(tmp_path / "run") == _TINY
    again = run_tool("convert_checkpoint", f"--tf_checkpoint={tiny}", f"--output_dir={tmp_path / 'run'}", *network)
    assert again.returncode == 2 and "holds a run already" in again.stderr
    done = run_tool("convert_checkpoint", f"--run_dir={tmp_path / 'run'}", f"--to_tf1={tmp_path / 'back'}")
    assert done.returncode == 0, done.stderr
    back, arrays = tf1_checkpoint.read(tmp_path / "back"), _arrays(_TINY)
    assert all(back[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_tool_converts_searched_networks_by_deeplabs_flags_and_back(tmp_path):
    backbone = AutoDeepLabBackbone(genotype.published("pnasnet_os32"), filter_multiplier=2, remove_os32_stride=True)
    surroundings = {"head": "none", "atrous_rates": (), "aspp_with_separable_conv": True}
    config = ModelConfig(5, AutoDeepLabConfig(backbone, decoder=DecoderConfig((8, 4)), **surroundings))
    arrays = _arrays(config)
    tf1_checkpoint.write(tmp_path / "model.ckpt", _of_a_training(arrays))
    done = run_tool("convert_checkpoint",
        f"--tf_checkpoint={tmp_path / 'model.ckpt'}", f"--output_dir={tmp_path / 'run'}", "--num_classes=5",
        "--model_variant=nas_pnasnet", "--output_stride=32", "--nas_stem_output_num_conv_filters=2",
        "--nas_remove_os32_stride", "--aspp_with_batch_norm=false", "--decoder_output_stride=8,4", "--crop_size=65,97",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert model_lib.read_config(tmp_path / "run") == config
    assert all(name.startswith(("pnasnet/", "decoder/", "logits/")) for name in arrays)
    convert.to_tf1(tmp_path / "run", tmp_path / "back")
    back = tf1_checkpoint.read(tmp_path / "back")
    assert back.keys() == arrays.keys()
    assert all(back[name].tobytes() == array.tobytes() for name, array in arrays.items())


@pytest.mark.parametrize("source", ["checkpoint", "run folder"])
def test_a_network_is_taken_over_for_other_classes_but_for_its_last_layer(source, tiny, tmp_path):
    other = ModelConfig(3, _TINY.network)
    if source == "checkpoint":
        done = convert.from_tf1(tiny, other, tmp_path / "run", initialize_last_layer=False)
    else:
        convert.from_tf1(tiny, _TINY, tmp_path / "first")
        done = convert.from_run(tmp_path / "first", 3, tmp_path / "run", initialize_last_layer=False)
    assert done.fresh == ("logits/semantic/biases", "logits/semantic/weights")
    model = nas_seg.load(tmp_path / "run")
    assert model.output_shape[-1] == 3
    arrays = _arrays(_TINY)
    for name, variable in model_lib.tf1_names(model, other).items():
        if name not in done.fresh:
            np.testing.assert_array_equal(variable.value, arrays[name])


def _refused(match, checkpoint, config, run_dir, **options):
    with pytest.raises(InputError, match=match):
        convert.from_tf1(checkpoint, config, run_dir, **options)
    assert not run_dir.exists(), "nothing is written"
    assert not [path for path in run_dir.parent.iterdir() if path.name.startswith(".run")]


def test_another_networks_checkpoint_is_refused_with_the_variable(tiny, tmp_path):
    wider = ModelConfig(5, DeepLabConfig(BackboneConfig(), head="none", atrous_rates=()))
    _refused(r"MobilenetV2/Conv/weights: expected shape \(3, 3, 3, 32\), found \(3, 3, 3, 16\)", tiny, wider,
             tmp_path / "run")  # fmt: skip
    with_aspp = ModelConfig(5, DeepLabConfig(_SMALL, atrous_rates=()))
    _refused("image_pooling/weights: expected in the checkpoint, found none", tiny, with_aspp, tmp_path / "run")


def test_other_classes_are_refused_with_the_flag_that_helps(tiny, tmp_path):
    other = ModelConfig(19, _TINY.network)
    _refused("is of 5 classes, received --num_classes=19; --initialize_last_layer", tiny, other, tmp_path / "run")


def test_a_truncated_checkpoint_leaves_nothing_behind(tiny, tmp_path):
    data = tiny.with_name(f"{tiny.name}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    _refused("damaged checkpoint", tiny, _TINY, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tf_checkpoint=CKPT.meta", "--output_dir=RUN"], "expected the prefix of a checkpoint"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--output_stride=32", "--dense_prediction_cell_json=CELL"],
         "expects 8 or 16, received 32"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--atrous_rates=6", "--dense_prediction_cell_json=CELL"],
         "--atrous_rates: expected none with --dense_prediction_cell_json"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--model_variant=xception_66"], "xception_65"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--model_variant=nas_hnasnett"],
         "Did you mean 'nas_hnasnet'"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--model_variant=nas_hnasnet", "--output_stride=16"],
         "--output_stride: expected 8 with --model_variant=nas_hnasnet, received 16"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--nas_stem_output_num_conv_filters=32"],
         "--nas_stem_output_num_conv_filters: --model_variant=mobilenet_v2 has no such option, received 32"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--crop_size=0,513"], "--crop_size: expected whole numbers of 1"),
        (["--run_dir=OLD", "--output_dir=RUN", "--num_classes=5", "--model_variant=xception_65"],
         "--model_variant: expected the 'mobilenet_v2' of the run's network, received 'xception_65'"),
        (["--run_dir=OLD", "--to_tf1=RUN/x", "--num_classes=5"], "--num_classes: expected none beside --to_tf1"),
        (["--run_dir=OLD", "--to_tf1=RUN/x", "--output_stride=8"], "--output_stride: expected none beside --to_tf1"),
        (["--tf_checkpoint=CKPT", "--output_dir=RUN", "--crop_size=513"], "--crop_size: expected 2 numbers"),
        (["--tf_checkpoint=CKPT"], "--output_dir"),
    ],
)  # fmt: skip
def test_tool_names_the_flag_that_is_wrong(arguments, message, tiny, tmp_path):
    cell = REPOSITORY / "nas_seg/dpc/published/cityscapes_top1.json"
    words = {"CKPT": str(tiny), "RUN": str(tmp_path / "run"), "CELL": str(cell), "OLD": str(tmp_path / "old")}
    runs.open_run(tmp_path / "old", {"model": config_lib.to_json(_TINY)})
    for word, value in words.items():
        arguments = [argument.replace(word, value) for argument in arguments]
    done = run_tool("convert_checkpoint", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "run").exists()


def test_weights_of_a_converted_run_are_found(tiny, tmp_path):
    convert.from_tf1(tiny, _TINY, tmp_path / "run")
    assert runs.find_weights(tmp_path / "run").name == "last.weights.h5"
    assert runs.read_section(tmp_path / "run", "converted_from", dict[str, str])["tf_checkpoint"] == str(tiny)
    with pytest.raises(InputError, match="--dataset_dir: expected the folder of the records, .*run was converted"):
        runs.read_dataset_dir(tmp_path / "run")


@pytest.mark.parametrize("photograph", ["astronaut", "cat", "parrot", "pets"])
def test_the_official_network_labels_photographs_as_it_did(photograph, official):
    """MobileNet-v2 0.5 of DeepLab's zoo, at output stride 8."""
    model, folder = official
    image = np.asarray(Image.open(folder / "reference" / f"{photograph}.png").convert("RGB"), np.float32)[None]
    expected = np.asarray(Image.open(folder / "reference" / f"{photograph}_labels.png"))
    labels = np.argmax(model(image, training=False), axis=-1)[0]
    assert np.mean(labels == expected) >= 0.9999


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """(the network, its folder)."""
    folder = fixtures("..", "data", "deeplab_mnv2_dm05_pascal")
    run_dir = tmp_path_factory.mktemp("official") / "run"
    network = presets.network("mobilenetv2_dm05_coco_voc_trainval")
    convert.from_tf1(folder / "model.ckpt", ModelConfig(21, network), run_dir)
    return nas_seg.load(run_dir), folder
