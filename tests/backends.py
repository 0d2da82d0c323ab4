"""One small network of each family on the Keras backend that the environment names; run as a program.

`python tests/backends.py FOLDER` writes FOLDER/NAME.npz for each of `NETWORKS`: its logits, the loss of one step of
`fit`, and its weights after it. Weights and pictures are drawn by NumPy, the same for every backend.
"""

import pathlib
import sys
import zlib

import keras
import numpy as np

from nas_seg import model as model_lib
from nas_seg.auto_deeplab.genotype import AutoDeepLabGenotype
from nas_seg.auto_deeplab.network import AutoDeepLabBackbone
from nas_seg.core.decoder import DecoderConfig
from nas_seg.dpc.genotype import published
from nas_seg.losses import MaskedCrossEntropy
from nas_seg.model import AutoDeepLabConfig, AutoDeepLabDPCConfig, ModelConfig, TemplateConfig
from nas_seg.optimizers import Momentum
from nas_seg.template.genotype import Layer, Template, TemplateGenotype

CLASSES, IGNORE, SIZE = 5, 255, (33, 49)
_CELL = (
    ((0, "sep_conv_3x3"), (1, "dil_conv_5x5")),
    ((1, "skip_connect"), (2, "max_pool_3x3")),
)
_FOUND = AutoDeepLabBackbone(AutoDeepLabGenotype(_CELL, (1, 2)), filter_multiplier=2)
_TEMPLATES = TemplateGenotype(
    (Template("sep_conv_3x3", "max_pool_3x3", "psum"), Template("sep_conv_5x5_dil6", "global_average_pool", "cat")),
    (Layer(0, 1, 0, 1, 2), Layer(2, 1, 1, 1, 1)),
)
# No dropout: its draws are each backend's own. The template's encoder is the beginning of MobileNet-v2, whose other
# layers are more of the same: compiling them all would take JAX a minute.
NETWORKS = {
    "aspp": AutoDeepLabConfig(
        _FOUND, atrous_rates=(2, 4), aspp_with_separable_conv=True, filters=8, dropout_rate=0.0, decoder=None
    ),
    "dpc": AutoDeepLabDPCConfig(published("cityscapes_top1"), _FOUND, filters=8, concat_filters=8, dropout_rate=0.0),
    "template": TemplateConfig(_TEMPLATES, agg_size=8, sep_repeats=1),
    "auto_deeplab": AutoDeepLabConfig(
        _FOUND, head="none", atrous_rates=(), decoder=DecoderConfig(filters=8, use_separable_conv=False)
    ),
}


def build(name: str) -> keras.Model:
    """A network whose weights are alike on every backend, with features that neither fade nor grow."""
    model = model_lib.build(ModelConfig(CLASSES, NETWORKS[name]))
    for place, variable in enumerate(model.weights):
        random, shape = np.random.default_rng([zlib.crc32(name.encode()), place]), tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, shape))
        elif len(shape) == 4:
            fan_in = np.prod(shape[:2]) * (1 if variable.path.count("depthwise") and shape[3] == 1 else shape[2])
            variable.assign(random.normal(0.0, np.sqrt(2.0 / fan_in), shape))
        else:
            variable.assign(random.normal(0.0, 0.1, shape))
    return model


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Two pictures and their labels, some of them ignored."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES + 1, (2, *SIZE))
    return random.uniform(0, 255, (2, *SIZE, 3)).astype(np.float32), np.where(labels == CLASSES, IGNORE, labels)


def main() -> None:
    images, labels = batch()
    for name in NETWORKS:
        model = build(name)
        logits = keras.ops.convert_to_numpy(model(images, training=False))
        model.compile(Momentum(0.01), loss=MaskedCrossEntropy(IGNORE))
        loss = model.fit(images, labels, batch_size=2, verbose=0).history["loss"][0]
        weights = {f"w{i:03d}": keras.ops.convert_to_numpy(value) for i, value in enumerate(model.trainable_weights)}
        np.savez(pathlib.Path(sys.argv[1], f"{name}.npz"), logits=logits, loss=loss, **weights)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
