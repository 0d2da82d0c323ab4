"""DeepLab's flags that say which network: names, defaults and spellings of its common.py, read as a ModelConfig."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from absl import flags

from nas_seg import list_flags
from nas_seg.utils.errors import InputError, unknown

# The flags belong to the tool that calls, whose --help shows them.
flags.disclaim_key_flags()

# Name, default, help; the default's type is the flag's, and None a whole number. A tuple is several whole numbers:
# given as 6,12,18 or one by one, as the original has it now here, now there.
_FLAGS: tuple[tuple[str, Any, str], ...] = (
    ("model_variant", "mobilenet_v2", "The backbone."),
    ("output_stride", 16, "Input pixels a feature pixel: 8, 16 or 32."),
    ("atrous_rates", (), "Rates of ASPP's 3x3 branches at this output stride (default: none)."),
    ("multi_grid", (), "Factors of the rates in the backbone's last block (default: 1,1,1)."),
    ("depth_multiplier", 1.0, "Of MobileNet's channels."),
    ("divisible_by", None, "MobileNet's channels are multiples of it (default: the original's rule)."),
    ("nas_stem_output_num_conv_filters", 20, "Channels of an operator at stride 4, of nas_hnasnet and nas_pnasnet."),
    ("nas_remove_os32_stride", False, "Features of stride 32 keep stride 16, of nas_hnasnet and nas_pnasnet."),
    ("use_bounded_activation", False, "ReLU6 and clipped sums."),
    ("dense_prediction_cell_json", "", "File of a dense prediction cell, in place of ASPP."),
    ("aspp_with_batch_norm", True, "Off: no head, or with --atrous_rates the sum of one convolution a rate."),
    ("aspp_with_separable_conv", True, "Separable 3x3 branches of ASPP, else dense ones."),
    ("aspp_with_concat_projection", True, "The projection after ASPP's branches."),
    ("aspp_with_squeeze_and_excitation", False, "The pooled image gates ASPP's result."),
    ("aspp_convs_filters", 256, "Channels of ASPP."),
    ("image_se_uses_qsigmoid", False, "The gate is a quantised sigmoid."),
    ("add_image_level_feature", True, "ASPP pools the image."),
    ("image_pooling_crop_size", (), "height,width in input pixels of image pooling's window (default: the image)."),
    ("image_pooling_stride", (1, 1), "Steps of this window on the map."),
    ("decoder_output_stride", (), "Strides of the decoder's low-level features, descending (default: no decoder)."),
    ("decoder_use_separable_conv", True, "Separable convolutions in the decoder, else dense ones."),
    ("decoder_use_sum_merge", False, "The decoder adds low-level features instead of concatenating them."),
    ("decoder_filters", 256, "Channels of the decoder."),
    ("decoder_output_is_logits", False, "The decoder's last convolution gives the logits."),
    ("logits_kernel_size", 1, "Of the convolutions a rate without --aspp_with_batch_norm."),
    ("merge_method", "max", "How the logits of --image_pyramid become one: max or avg."),
)
# Networks that a search found: model variant -> output stride -> the published genotype.
_FOUND = {
    "nas_hnasnet": {8: "auto_deeplab"},
    "nas_pnasnet": {stride: f"pnasnet_os{stride}" for stride in (8, 16, 32)},
}
_DEFINE: dict[type, Callable] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    type(None): flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


# Flag -> where a network's configuration has what it says. Where that is missing or None the default holds.
_FIELDS = {
    "model_variant": "backbone.name",
    "output_stride": "backbone.output_stride",
    "atrous_rates": "atrous_rates",
    "multi_grid": "backbone.multi_grid",
    "depth_multiplier": "backbone.depth_multiplier",
    "divisible_by": "backbone.divisible_by",
    "nas_stem_output_num_conv_filters": "backbone.filter_multiplier",
    "nas_remove_os32_stride": "backbone.remove_os32_stride",
    "use_bounded_activation": "backbone.use_bounded_activation",
    "aspp_with_separable_conv": "aspp_with_separable_conv",
    "aspp_with_concat_projection": "aspp_with_concat_projection",
    "aspp_convs_filters": "filters",
    "add_image_level_feature": "add_image_level_feature",
    "image_pooling_crop_size": "pooling_crop_size",
    "image_pooling_stride": "image_pooling_stride",
    "decoder_output_stride": "decoder.output_strides",
    "decoder_use_separable_conv": "decoder.use_separable_conv",
    "decoder_use_sum_merge": "decoder.use_sum_merge",
    "decoder_filters": "decoder.filters",
    "decoder_output_is_logits": "decoder.output_is_logits",
    "logits_kernel_size": "logits_kernel_size",
    "merge_method": "merge_method",
    "image_pyramid": "image_pyramid",
}

# The other way, where a configuration's own messages have another name.
_OTHER_NAMES = {
    "filters": "aspp_convs_filters",
    "decoder filters": "decoder_filters",
    "filter_multiplier": "nas_stem_output_num_conv_filters",
}
# What of ASPP a dense prediction cell has not; the original ignores them beside one.
_ASPP_ALONE = (
    "aspp_with_separable_conv",
    "aspp_with_concat_projection",
    "aspp_with_squeeze_and_excitation",
    "aspp_convs_filters",
    "image_se_uses_qsigmoid",
    "add_image_level_feature",
    "image_pooling_stride",
    "logits_kernel_size",
)


def define(**defaults: Any) -> None:
    """Defines DeepLab's flags of a network; some with other defaults, as its tools have them."""
    for name, default, text in _FLAGS:
        default = defaults.get(name, default)
        if isinstance(default, tuple):
            list_flags.define(name, default, text)
        else:
            _DEFINE[type(default)](name, default, text)
    list_flags.define("image_pyramid", (), "Scales of the image whose logits are merged (default: 1).")


def typed() -> list[str]:
    """Those of the flags that the command has."""
    return [name for name in (*(name for name, _, _ in _FLAGS), "image_pyramid") if flags.FLAGS[name].present]


def check_agreement(network: Any, but: tuple[str, ...] = ()) -> None:
    """InputError for a flag that was typed and contradicts the configuration of a network, those of `but` apart."""
    for name in (name for name in typed() if name not in but):
        if name == "dense_prediction_cell_json":
            _check_cell(network)
            continue
        there, received = _field(network, name), _typed_value(name)
        if there != received:
            raise InputError(f"--{name}: expected the {there!r} of the run's network, received {received!r}")


def _check_cell(network: Any) -> None:
    from nas_seg.dpc.genotype import DPCGenotype

    path = _value("dense_prediction_cell_json")
    if (DPCGenotype.load(path) if path else None) != getattr(network, "genotype", None):
        raise InputError(f"--dense_prediction_cell_json: the run's network has not the cell of {path!r}")


def _field(network: Any, name: str) -> Any:
    """What a flag would say of a network."""
    head, gate = getattr(network, "head", "aspp"), getattr(network, "squeeze_and_excitation", None)
    values = {
        "aspp_with_batch_norm": head == "aspp",
        "aspp_with_squeeze_and_excitation": gate is not None,
        "image_se_uses_qsigmoid": gate == "quantized_sigmoid",
    }
    if name in values:
        return values[name]
    value = network
    for part in _FIELDS[name].split("."):
        value = getattr(value, part, None)
    default = next((default for own, default, _ in _FLAGS if own == name), ())
    return default if value is None else value


def _typed_value(name: str) -> Any:
    if name == "image_pyramid":
        return _pyramid()
    several = any(name == own and isinstance(default, tuple) for own, default, _ in _FLAGS)
    return list_flags.read(name, int) if several else _value(name)


def read():
    """The network that the parsed flags describe: a DeepLabConfig, or a DPCConfig with --dense_prediction_cell_json.

    With nas_hnasnet or nas_pnasnet it is an AutoDeepLabConfig or an AutoDeepLabDPCConfig.

    Raises:
        InputError: naming the flag that is wrong or contradicts another.
    """
    try:
        return _read()
    except InputError as error:
        raise InputError(_by_flag(str(error))) from None


def _by_flag(message: str) -> str:
    """A message about a field of a configuration as one about the flag that says it."""
    match = re.match(r"(?:unknown )?(decoder \w+|\w+)", message)
    name = match and _OTHER_NAMES.get(match[1], match[1])
    if not match or name not in (*(flag for flag, _, _ in _FLAGS), "image_pyramid"):
        return message
    return f"--{name}: {message if message.startswith('unknown') else message[match.end() :].lstrip(': ')}"


def _read():
    from nas_seg import model

    found = _value("model_variant") in _FOUND
    backbone = _found_backbone() if found else _backbone()
    common = {
        "backbone": backbone,
        "decoder": _decoder(),
        "pooling_crop_size": list_flags.read("image_pooling_crop_size", int, 2, least=1) or None,
        "image_pyramid": _pyramid(),
        "merge_method": _value("merge_method"),
    }
    if _value("dense_prediction_cell_json"):
        return _dpc(model.AutoDeepLabDPCConfig if found else model.DPCConfig, common)
    return _deeplab(model.AutoDeepLabConfig if found else model.DeepLabConfig, common)


def _backbone():
    from nas_seg.core.backbones import BACKBONES, BackboneConfig

    if _value("model_variant") not in BACKBONES:
        raise unknown("model_variant", _value("model_variant"), [*BACKBONES, *_FOUND])
    _expect_defaults("nas_stem_output_num_conv_filters", "nas_remove_os32_stride")
    return BackboneConfig(
        name=_value("model_variant"),
        output_stride=_value("output_stride"),
        depth_multiplier=_value("depth_multiplier"),
        divisible_by=_value("divisible_by"),
        multi_grid=list_flags.read("multi_grid", int) or None,
        use_bounded_activation=_value("use_bounded_activation"),
    )


def _found_backbone():
    from nas_seg.auto_deeplab.genotype import published
    from nas_seg.auto_deeplab.network import AutoDeepLabBackbone

    _expect_defaults("depth_multiplier", "divisible_by", "multi_grid")
    variant, stride = _value("model_variant"), _value("output_stride")
    # The original needs --output_stride=8 with nas_hnasnet, whose path says so; its default is another one.
    if not flags.FLAGS["output_stride"].present and variant == "nas_hnasnet":
        stride = 8
    if stride not in _FOUND[variant]:
        expected = " or ".join(map(str, _FOUND[variant]))
        raise InputError(f"--output_stride: expected {expected} with --model_variant={variant}, received {stride}")
    return AutoDeepLabBackbone(
        published(_FOUND[variant][stride]),
        filter_multiplier=_value("nas_stem_output_num_conv_filters"),
        remove_os32_stride=_value("nas_remove_os32_stride"),
        use_bounded_activation=_value("use_bounded_activation"),
    )


def _expect_defaults(*names: str) -> None:
    for name in names:
        flag = flags.FLAGS[name]
        if flag.value != flag.default:
            variant = _value("model_variant")
            raise InputError(f"--{name}: --model_variant={variant} has no such option, received {flag.value}")


def _dpc(family: type, common: dict[str, Any]):
    from nas_seg.dpc.genotype import DPCGenotype

    rates = list_flags.read("atrous_rates", int)
    if rates:
        received = ",".join(map(str, rates))
        raise InputError(f"--atrous_rates: expected none with --dense_prediction_cell_json, received {received}")
    if not _value("aspp_with_batch_norm"):
        raise InputError("--aspp_with_batch_norm: expected true with --dense_prediction_cell_json, received false")
    for name in _ASPP_ALONE:
        default = next(default for own, default, _ in _FLAGS if own == name)
        if _typed_value(name) != default:
            raise InputError(
                f"--{name}: expected {default} with --dense_prediction_cell_json, received {_typed_value(name)}"
            )
    path = _value("dense_prediction_cell_json")
    if not os.path.isfile(path):
        raise InputError(f"--dense_prediction_cell_json: the file {path} does not exist")
    return family(DPCGenotype.load(path), **common)


def _deeplab(family: type, common: dict[str, Any]):
    rates = list_flags.read("atrous_rates", int)
    head = "aspp" if _value("aspp_with_batch_norm") else "deeplab_v2" if rates else "none"
    gate = "quantized_sigmoid" if _value("image_se_uses_qsigmoid") else "sigmoid"
    return family(
        head=head,
        atrous_rates=rates,
        add_image_level_feature=_value("add_image_level_feature"),
        aspp_with_separable_conv=_value("aspp_with_separable_conv"),
        filters=_value("aspp_convs_filters"),
        image_pooling_stride=list_flags.read("image_pooling_stride", int, 2),
        aspp_with_concat_projection=_value("aspp_with_concat_projection"),
        squeeze_and_excitation=gate if _value("aspp_with_squeeze_and_excitation") else None,
        logits_kernel_size=_value("logits_kernel_size"),
        **common,
    )


def _decoder():
    from nas_seg.core.decoder import DecoderConfig

    strides = list_flags.read("decoder_output_stride", int)
    if not strides:
        return None
    return DecoderConfig(
        output_strides=strides,
        filters=_value("decoder_filters"),
        use_separable_conv=_value("decoder_use_separable_conv"),
        use_sum_merge=_value("decoder_use_sum_merge"),
        output_is_logits=_value("decoder_output_is_logits"),
    )


def _pyramid() -> tuple[float, ...]:
    scales = list_flags.read("image_pyramid", float)
    return () if scales == (1.0,) else scales


def _value(name: str) -> Any:
    return flags.FLAGS[name].value
