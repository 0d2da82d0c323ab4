"""Features of a data set: cached by what they depend on."""

import numpy as np
import pytest

import nas_seg
from nas_seg import features, template
from nas_seg import model as model_lib
from nas_seg.core.backbones import BackboneConfig
from nas_seg.datasets import build_data, synthetic
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.model import ModelConfig
from nas_seg.template.encoder import TemplateEncoder
from nas_seg.template.network import TemplateConfig
from nas_seg.utils import config as config_lib
from nas_seg.utils import runs
from nas_seg.utils.errors import InputError

_BACKBONE = BackboneConfig(depth_multiplier=0.35, divisible_by=8)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streets"
    build_data.build(synthetic.make_source((3, 2), (48, 65), 0), folder, num_shards=1)
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run folder whose network has the small backbone."""
    folder = tmp_path_factory.mktemp("run")
    config = ModelConfig(8, DeepLabConfig(_BACKBONE, head="none", atrous_rates=()))
    runs.open_run(folder, {"model": config_lib.to_json(config)})
    runs.save_weights(nas_seg.build(config), runs.weights_path(folder, runs.LAST))
    return folder


def test_cached_features_are_those_of_the_network(records, run_dir, tmp_path):
    backbone = features.load_backbone(_BACKBONE, str(run_dir))
    cache = features.cache_features(tmp_path / "train", records, "train", backbone, _BACKBONE, (49, 65), views=2)
    assert cache.features.shape == (6, 4, 5, 112) and cache.labels.shape == (6, 49, 65)
    model = model_lib.load(run_dir)
    # The network ends with a 1x1 convolution: its logits from the cached features must be its own.
    from nas_seg.datasets.data_generator import view_dataset

    image = next(iter(view_dataset(records, "train", size=(49, 65)).batch(1)))["image"]
    logits = model.get_layer("logits")
    expected = logits(model.get_layer("backbone")(image / 127.5 - 1.0))
    # Half precision keeps 11 bits.
    np.testing.assert_allclose(logits(cache.features[:1].astype(np.float32)), expected, rtol=5e-3, atol=5e-3)


def test_a_template_encoder_takes_weights_of_its_own_conventions_alone(tmp_path):
    encoders = {variant: TemplateEncoder(variant) for variant in ("peer", "keras")}
    for variant, encoder in encoders.items():
        config = ModelConfig(8, TemplateConfig(template.published("arch0"), encoder))
        runs.open_run(tmp_path / variant, {"model": config_lib.to_json(config)})
        runs.save_weights(nas_seg.build(config), runs.weights_path(tmp_path / variant, runs.LAST))
    trained = model_lib.load(tmp_path / "peer").get_layer("backbone")
    filled = features.load_backbone(encoders["peer"], str(tmp_path / "peer"), 1, (4,))
    for received, expected in zip(filled.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)
    for mine, other in (("peer", "keras"), ("keras", "peer")):
        with pytest.raises(InputError, match=f"{other}: expected a run whose encoder is '{mine}', found '{other}'"):
            features.load_backbone(encoders[mine], str(tmp_path / other))


def test_cache_of_other_weights_or_views_is_refused(records, run_dir, tmp_path):
    trained = features.load_backbone(_BACKBONE, str(run_dir))
    features.cache_features(tmp_path / "val", records, "val", trained, _BACKBONE, (49, 65))
    fresh = features.load_backbone(_BACKBONE, None)
    with pytest.raises(InputError, match="val: a feature cache of another weights"):
        features.cache_features(tmp_path / "val", records, "val", fresh, _BACKBONE, (49, 65))
    with pytest.raises(InputError, match="val: a feature cache of another"):
        features.cache_features(tmp_path / "val", records, "val", trained, _BACKBONE, (49, 65), views=2)


def test_backbone_of_a_run_folder_is_taken_over(run_dir):
    assert features.backbone_config(str(run_dir)) == _BACKBONE
    assert features.backbone_config(str(run_dir), output_stride=8).output_stride == 8
    assert features.backbone_config(None) == BackboneConfig()


def test_backbone_of_other_shapes_is_refused_naming_the_run(run_dir):
    with pytest.raises(InputError, match=f"{run_dir}: expected a run with this backbone"):
        features.load_backbone(BackboneConfig(), str(run_dir))


@pytest.mark.parametrize("size, stride, expected", [((360, 480), 16, (353, 481)), ((33, 1), 16, (33, 17))])
def test_cached_size_is_the_nearest_whose_corners_fall_on_the_map(size, stride, expected):
    assert features.grid_size(size, stride) == expected
