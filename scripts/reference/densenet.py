"""DenseNets of every kind as PyTorch modules, under torchvision's names.

torchvision itself has DenseNet-BC with the ImageNet stem only. This has both stems, with and
without bottleneck and compression, any input, and one growth rate for each block. Nothing in it
is shared with the Rust code: it is written from the paper (arXiv 1608.06993), section 3.
"""

from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Spec:
    """What `densenet!` takes, with nothing left to defaults."""

    blocks: list[int]
    k: list[int]
    theta: str  # decimal digits, so that floor(theta * m) is exact
    bottleneck: int | None
    stem: str  # "cifar" or "imagenet"
    init: int
    input: tuple[int, int, int]
    classes: int

    def macro(self) -> str:
        """The spec as `densenet!` reads it."""
        keys = [
            f"blocks: {self.blocks}",
            f"k: {self.k}",
            f"theta: {self.theta}",
            *([f"bottleneck: {self.bottleneck}"] if self.bottleneck else []),
            f"stem: {self.stem}",
            f"init: {self.init}",
            f"input: {list(self.input)}",
            f"classes: {self.classes}",
        ]
        return ", ".join(keys)


class DenseLayer(nn.Module):
    def __init__(self, maps: int, k: int, bottleneck: int | None):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(maps)
        if bottleneck:
            self.conv1 = nn.Conv2d(maps, bottleneck * k, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(bottleneck * k)
            self.conv2 = nn.Conv2d(bottleneck * k, k, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(maps, k, 3, padding=1, bias=False)
            self.norm2 = self.conv2 = None

    def forward(self, x):
        new = self.conv1(F.relu(self.norm1(x)))
        if self.conv2 is not None:
            new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat([x, new], 1)


class Transition(nn.Module):
    def __init__(self, maps: int, kept: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(maps)
        self.conv = nn.Conv2d(maps, kept, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2, 2)


class DenseNet(nn.Module):
    def __init__(self, spec: Spec):
        super().__init__()
        features = OrderedDict()
        maps = spec.init
        if spec.stem == "imagenet":
            features["conv0"] = nn.Conv2d(spec.input[0], maps, 7, stride=2, padding=3, bias=False)
            features["norm0"] = nn.BatchNorm2d(maps)
            features["relu0"] = nn.ReLU()
            features["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            features["conv0"] = nn.Conv2d(spec.input[0], maps, 3, padding=1, bias=False)
        for number, (layers, k) in enumerate(zip(spec.blocks, spec.k, strict=True), 1):
            block = OrderedDict()
            for layer in range(layers):
                block[f"denselayer{layer + 1}"] = DenseLayer(maps, k, spec.bottleneck)
                maps += k
            features[f"denseblock{number}"] = nn.Sequential(block)
            if number < len(spec.blocks):
                kept = int(Fraction(spec.theta) * maps)
                features[f"transition{number}"] = Transition(maps, kept)
                maps = kept
        features["norm5"] = nn.BatchNorm2d(maps)
        self.features = nn.Sequential(features)
        self.classifier = nn.Linear(maps, spec.classes)

    def forward(self, x):
        x = F.relu(self.features(x))
        return self.classifier(x.mean((2, 3)))
