#!/usr/bin/env python3
"""What PyTorch's bfloat16 autocast differs by from the golden files, for bfloat16_follows_f32.rs.

Usage: scripts/reference/autocast.py; needs torch, torchvision and safetensors.
"""
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from make import NETWORKS, OUT, DenseNet, difference

for name, spec in NETWORKS.items():
    golden = load_file(OUT / f"{name}.safetensors")
    model = DenseNet(spec)
    model.load_state_dict({key: golden[key] for key in model.state_dict() if key in golden}, strict=False)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(golden["images"]).float()
    F.cross_entropy(logits, golden["labels"]).backward()
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    expected = torch.cat([golden[f"grad.{key}"].flatten() for key, _ in model.named_parameters()])
    apart = (found - expected).norm() / expected.norm()
    print(f'"{name}" => [{difference(logits.detach(), golden["logits.train"]):.4f}, {apart.item():.4f}],')
