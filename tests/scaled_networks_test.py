import numpy as np
import pytest
from case import recipe_value

from nas_seg import model as model_lib
from nas_seg import presets, scaled_networks
from nas_seg.core.backbones import BackboneConfig
from nas_seg.deeplab.network import DeepLabConfig
from nas_seg.inference_config import InferenceConfig
from nas_seg.model import ModelConfig
from nas_seg.utils.errors import InputError

_SMALL = BackboneConfig(depth_multiplier=0.35, divisible_by=8)


def test_a_network_without_fixed_windows_is_the_same_at_every_scale():
    config = ModelConfig(3, DeepLabConfig(_SMALL, atrous_rates=(), filters=8))
    assert scaled_networks.variants(model_lib.build(config), config, InferenceConfig((0.5, 1.0))) == {}


def test_fixed_pooling_windows_are_scaled_with_the_picture():
    network = DeepLabConfig(_SMALL, atrous_rates=(), filters=8, pooling_crop_size=(65, 33))
    config = ModelConfig(3, network)
    model = model_lib.build(config)
    # Fresh weights would let features fade to nothing.
    for name, variable in model_lib.tf1_names(model, config).items():
        variable.assign(recipe_value(name, tuple(variable.shape), (("", 1.0, 2.0),)))
    found = scaled_networks.variants(model, config, InferenceConfig((0.5, 1.0)))
    assert set(found) == {0.5}
    smaller = DeepLabConfig(_SMALL, atrous_rates=(), filters=8, pooling_crop_size=(33, 17))
    expected = model_lib.build(ModelConfig(3, smaller))
    expected.set_weights(model.get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 65, 65, 3)).astype(np.float32)
    np.testing.assert_allclose(found[0.5](image), expected(image), rtol=1e-4, atol=1e-4)
    assert np.abs(found[0.5](image) - model(image)).max() > 0.1


@pytest.mark.parametrize("preset", ["auto_deeplab_s"])
def test_a_crop_that_a_found_network_cannot_take_at_a_scale_is_refused(preset):
    config = ModelConfig(19, presets.network(preset))
    scaled_networks.check_sizes(config, InferenceConfig((0.5, 1.0), crop_size=(129, 65)))
    scaled_networks.check_sizes(config, InferenceConfig((0.75, 1.0)))
    with pytest.raises(InputError, match=r"eval_scales: .*32 \+ 1.*scale 0.75 of the crop 129,65 is 97 x 49"):
        scaled_networks.check_sizes(config, InferenceConfig((0.75, 1.0), crop_size=(129, 65)))
    mobilenet = ModelConfig(19, presets.network("mobilenet_v2_035"))
    scaled_networks.check_sizes(mobilenet, InferenceConfig((0.75, 1.0), crop_size=(129, 65)))
