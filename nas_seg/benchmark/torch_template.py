"""A template network and its training step in PyTorch, to compare with: what the authors' code has, from the plan.

It is imported in an environment with torch and without TensorFlow (`network_process`). Modules have the names under
which the authors' code files its weights.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from nas_seg.template.genotype import NUM_ENCODER_MAPS, TemplateGenotype
from nas_seg.template.plan import ENCODER_BLOCKS, ENCODER_STEM, SEPARABLE, Application, Op, output_maps, plan

_IGNORE = 255


class TemplateNet(nn.Module):
    """Normalised images [B, 3, H, W] -> logits [B, num_classes, h, w] at the stride of the finest map.

    Args:
        genotype: of the decoder.
        num_classes: channels of the logits.
        agg_size, sep_repeats: see `nas_seg.template.network.build_network`.
    """

    def __init__(self, genotype: TemplateGenotype, num_classes: int, agg_size: int = 64, sep_repeats: int = 2):
        super().__init__()
        self.encoder = _Encoder()
        self.decoder = _Decoder(genotype, num_classes, agg_size, sep_repeats)

    def forward(self, images):
        return self.decoder(self.encoder(images))


def training_step(genotype: TemplateGenotype, num_classes: int, size, batch_size: int, memory_format):
    """A function that makes a step on fixed noise and returns its loss: that of the labels' size, SGD with momentum."""
    torch.manual_seed(0)
    network = TemplateNet(genotype, num_classes).train().to(memory_format=memory_format)
    images = torch.randn(batch_size, 3, *size).contiguous(memory_format=memory_format)
    labels = torch.randint(0, num_classes, (batch_size, *size))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(_resize(network(images), labels.shape[1:]), labels, ignore_index=_IGNORE)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class _Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        channels, stride = ENCODER_STEM
        stem = nn.Conv2d(3, channels, 3, stride, 1, bias=False)
        self.layer1 = nn.Sequential(stem, nn.BatchNorm2d(channels), nn.ReLU6(True))
        for number, (filters, first, expansion, repeats) in enumerate(ENCODER_BLOCKS, 2):
            units = [_InvertedResidual(channels, filters, first, expansion)]
            units += [_InvertedResidual(filters, filters, 1, expansion) for _ in range(repeats - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*units))
            channels = filters

    def forward(self, images) -> list:
        fine = self.layer3(self.layer2(self.layer1(images)))
        return [fine, self.layer4(fine)]


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int, expansion: int):
        super().__init__()
        wide, self.adds = channels * expansion, stride == 1 and channels == filters
        self.conv = nn.Sequential(
            *(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(True)),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(True)),
            *(nn.Conv2d(wide, filters, 1, bias=False), nn.BatchNorm2d(filters)),
        )

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class _Decoder(nn.Module):
    def __init__(self, genotype: TemplateGenotype, num_classes: int, agg_size: int, sep_repeats: int):
        super().__init__()
        layers = plan(genotype, sep_repeats)
        self.genotype = genotype
        self._ops = nn.ModuleList()
        for i, applications in enumerate(layers):
            modules = nn.ModuleList()
            for one in applications:
                modules += [*map(_make_op, one.ops), _AGGREGATIONS[one.aggregation](one, i >= len(layers) // 2)]
            self._ops.append(modules)
        self.pre_clf = _conv_norm_relu(sum(m.channels for m in output_maps(genotype, layers)), agg_size)
        self.conv_clf = nn.Conv2d(agg_size, num_classes, 3, padding=1)

    def forward(self, maps):
        pool = list(maps)
        for layer, modules in zip(self.genotype.layers, self._ops, strict=True):
            first, second = pool[layer.input1], pool[layer.input2]
            for k in range(0, len(modules), 3):
                op1, op2, aggregate = modules[k : k + 3]
                first, second = second, aggregate(op1(first), op2(second))
            pool.append(second)
        joined, *others = (pool[number] for number in self.genotype.outputs if number >= NUM_ENCODER_MAPS)
        for other in others:
            size = max(joined.shape[2:], other.shape[2:])
            joined = torch.cat([_resize(joined, size), _resize(other, size)], 1)
        return self.conv_clf(self.pre_clf(functional.relu(joined)))


def _make_op(op: Op) -> nn.Module:
    channels, filters = op.source.channels, op.output.channels
    if op.name in SEPARABLE:
        return _Separable(channels, filters, op.strides, *SEPARABLE[op.name])
    if op.name == "max_pool_3x3":
        return _MaxPool(channels, filters, op.strides[0])
    return _GlobalPool(channels, filters) if op.name == "global_average_pool" else _Skip(filters // channels)


class _Separable(nn.Module):
    def __init__(self, channels: int, filters: int, strides, kernel: int, rate: int):
        super().__init__()
        self.op = nn.Sequential()
        for k, stride in enumerate(strides):
            depthwise = nn.Conv2d(
                channels, channels, kernel, stride, kernel // 2 * rate, rate, groups=channels, bias=False
            )
            self.op.add_module(f"sep_{k}", nn.Sequential(depthwise, *_conv_norm_relu(channels, filters)))
            channels = filters

    def forward(self, x):
        return self.op(x)


class _MaxPool(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1x1, self.stride = _conv_norm_relu(channels, filters)[:2], stride

    def forward(self, x):
        return functional.max_pool2d(self.conv1x1(x), 3, self.stride, 1)


class _GlobalPool(nn.Module):
    def __init__(self, channels: int, filters: int):
        super().__init__()
        self.conv1x1 = _conv_norm_relu(channels, filters)

    def forward(self, x):
        return _resize(self.conv1x1(x.mean((2, 3), keepdim=True)), x.shape[2:])


class _Skip(nn.Module):
    def __init__(self, times: int):
        super().__init__()
        self.times = times

    def forward(self, x):
        return x.repeat(1, self.times, 1, 1) if self.times > 1 else x


class _Aggregation(nn.Module):
    """What both aggregations begin with: two maps of one size and as many channels as the larger number."""

    def __init__(self, application: Application, to_larger: bool):
        super().__init__()
        filters = application.output.channels
        self.pick = max if to_larger else min
        self.adapt = nn.ModuleDict(
            {
                f"conv{k}": _conv_norm_relu(op.output.channels, filters)
                for k, op in enumerate(application.ops)
                if op.output.channels != filters
            }
        )

    def alike(self, *maps) -> list:
        maps = [self.adapt[f"conv{k}"](x) if f"conv{k}" in self.adapt else x for k, x in enumerate(maps)]
        size = self.pick(maps[0].shape[2:], maps[1].shape[2:])
        return [_resize(x, size) for x in maps]


class _WeightedSum(_Aggregation):
    def __init__(self, application: Application, to_larger: bool):
        super().__init__(application, to_larger)
        self.a, self.b = (nn.Parameter(torch.ones(application.output.channels, 1, 1)) for _ in range(2))

    def forward(self, x, y):
        x, y = self.alike(x, y)
        return self.a * x + self.b * y


class _Concatenation(_Aggregation):
    def __init__(self, application: Application, to_larger: bool):
        super().__init__(application, to_larger)
        filters = application.output.channels
        conv = nn.Conv2d(2 * filters, filters, 1, bias=False)
        self.conv1x1 = nn.Sequential(nn.BatchNorm2d(2 * filters), nn.ReLU(True), conv)

    def forward(self, x, y):
        return self.conv1x1(torch.cat(self.alike(x, y), 1))


_AGGREGATIONS = {"psum": _WeightedSum, "cat": _Concatenation}


def _conv_norm_relu(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(True))


def _resize(x, size):
    return x if x.shape[2:] == size else functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
