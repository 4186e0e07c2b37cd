"""Compares the `parity` example with torchvision's DenseNets, at full size.

    python scripts/reference/torchvision_parity.py [--models densenet121 densenet201]
        [--batch 4] [--steps 3] [--lr 0.01] [--float64] [--folder DIR]

needs torch, torchvision and safetensors, and cargo. For each model it draws weights, a batch and
labels from a seed, lets PyTorch and the example train on them, and prints the largest relative
difference (largest difference / largest value, in the worst tensor) of losses, logits, gradients,
weights and running statistics. The exit status is 1 if one is above --tolerance.

With --float64 PyTorch computes in float64, and the row `PyTorch float32` shows how far PyTorch's
own float32 is from it: no float32 implementation can be expected to be much nearer.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]


def start(name: str, batch: int, seed: int):
    """A model with BN parameters and statistics that are not trivially 0 or 1, and a batch."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    images = torch.randn(batch, 3, 224, 224)
    labels = torch.randint(0, 1000, (batch,))
    return model, images, labels


def train(model, images, labels, steps: int, lr: float):
    """What the example writes, by PyTorch."""
    out = {}
    model.eval()
    with torch.no_grad():
        out["logits_before"] = model(images)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    losses = []
    for step in range(steps):
        model.train()
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            for name, parameter in model.named_parameters():
                out[f"grad.{name}"] = parameter.grad.clone()
        optimiser.step()
    out["losses"] = torch.stack(losses)
    model.eval()
    with torch.no_grad():
        out["logits_after"] = model(images)
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            out[name] = tensor
    return {name: tensor.detach() for name, tensor in out.items()}


def group(name: str) -> str:
    if name in ("losses", "logits_before", "logits_after"):
        return name
    if name.startswith("grad."):
        return "gradients"
    return "statistics" if "running" in name else "weights"


def report(title: str, found, expected) -> float:
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    worst = {}
    for name in expected:
        a, b = found[name].double(), expected[name].double()
        assert a.shape == b.shape, name
        difference = ((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item()
        if not difference <= worst.get(group(name), (-1.0,))[0]:
            worst[group(name)] = (difference, name)
    print(title)
    for key in ("losses", "logits_before", "logits_after", "gradients", "weights", "statistics"):
        difference, name = worst[key]
        print(f"  {key:14} {difference:.1e}" + ("" if name == key else f"  {name}"))
    return max(difference for difference, _ in worst.values())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["densenet121", "densenet201"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="parity"))
    folder.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in options.models:
        model, images, labels = start(name, options.batch, options.seed)
        paths = [folder / f"{name}.{what}.safetensors" for what in ("weights", "batch", "out")]
        save_file(model.state_dict(), paths[0])
        save_file({"images": images, "labels": labels}, paths[1])
        command = ["cargo", "run", "--quiet", "--release", "-p", "densenet-models"]
        command += ["--example", "parity", "--", "--model", name, "--steps", str(options.steps)]
        command += ["--lr", repr(options.lr), "--weights", paths[0], "--batch", paths[1]]
        command += ["--out", paths[2]]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        ours = load_file(paths[2])
        arguments = (labels, options.steps, options.lr)
        single = train(model, images, *arguments)
        if options.float64:
            # Training has changed the model: begin again.
            model, images, _ = start(name, options.batch, options.seed)
            double = train(model.double(), images.double(), *arguments)
            report(f"{name}: PyTorch float32 against PyTorch float64", single, double)
            worst = report(f"{name}: ours against PyTorch float64", ours, double)
        else:
            worst = report(f"{name}: ours against PyTorch float32", ours, single)
        failed |= not worst <= options.tolerance
    sys.exit(failed)


if __name__ == "__main__":
    main()
