#!/usr/bin/env python3
"""What PyTorch's bfloat16 autocast differs by from its f64, for tests of bfloat16.

    scripts/reference/autocast.py

needs torch, torchvision, numpy and safetensors. The networks and images are those of the golden files. It prints:
 - for bfloat16_follows_f32.rs, of a training pass: the difference of the logits, and how far the
   gradients are, as a share of their size
 - for frozen_agrees_with_pytorch.rs and frozen_on_cuda.rs, of inference: the largest difference of logits,
   features and all maps, relative to the largest value of each; with the weights of the golden file, and
   the most over RANDOM others. Then the same where the weights alone are rounded to bfloat16 and all else
   is f64: that much no product of bfloat16 can do without.
"""

from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from make import NETWORKS, OUT, DenseNet, difference, random_state
from maps import collect

# States of each network beside that of its golden file.
RANDOM = 50


def training(model, golden) -> list[float]:
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(golden["images"]).float()
    F.cross_entropy(logits, golden["labels"]).backward()
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    expected = torch.cat([golden[f"grad.{key}"].flatten() for key, _ in model.named_parameters()])
    apart = (found - expected).norm() / expected.norm()
    return [difference(logits.detach(), golden["logits.train"]), apart.item()]


def inference(model, images) -> list[float]:
    """Of autocast, and of rounded weights."""
    model.eval()
    exact = collect(deepcopy(model).double(), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        autocast = collect(model, images)
    rounded = deepcopy(model).double()
    for module in rounded.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.bfloat16().double()
    rounded = collect(rounded, images.double())
    return [max(difference(out[key].double(), exact[key]) for key in exact) for out in (autocast, rounded)]


for name, spec in NETWORKS.items():
    golden = load_file(OUT / f"{name}.safetensors")
    model = DenseNet(spec)
    model.load_state_dict({key: golden[key] for key in model.state_dict() if key in golden}, strict=False)
    own = inference(model, golden["images"])
    off = training(model, golden)
    print(f'"{name}" => [{", ".join(f"{one:.4f}" for one in off)}],')
    states = []
    for seed in range(RANDOM):
        state = random_state(model, np.random.default_rng([seed, 15]))
        model.load_state_dict(state, strict=False)
        states.append(inference(model, golden["images"]))
    most = np.max(states, axis=0)
    over = sum(autocast > 2e-2 for autocast, _ in states)
    print(
        f"    inference: autocast {own[0]:.1e}, weights alone {own[1]:.1e}; of {RANDOM} random states at most "
        f"{most[0]:.1e} and {most[1]:.1e}; autocast is beyond 2e-2 in {over}"
    )
