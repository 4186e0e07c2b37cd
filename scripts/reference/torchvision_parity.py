"""Compares the `parity` example with torchvision's DenseNets, at full size.

    python scripts/reference/torchvision_parity.py [--models densenet121 densenet201]
        [--batch 4] [--steps 3] [--lr 0.001] [--folder DIR]

needs torch, torchvision and safetensors, and cargo. For each model it draws weights, a batch and
labels from a seed, and lets the example and PyTorch train on them; PyTorch in float64, which is
taken for the truth, and in float32. It prints how far each float32 run is from the truth: in the
worst tensor the largest difference relative to the largest value, and relative in norm over all
tensors together. Ours must be within 1e-4, or --factor times PyTorch's distance, or the exit
status is 1.

A network of this size has millions of values in front of a ReLU, and the rounding of float32
puts some on the other side of 0, where the gradient jumps: with usual weights no two float32
implementations agree in it to better than 1e-2 or so. So each model trains twice:
- `away from kinks`: the shifts of all BNs are 6 or -6, so that each ReLU passes all of a map or
  nothing and the gradients are a matter of arithmetic alone;
- `usual`: small random shifts, as in a network at work.
A gradient whose true value is close to 0 for all its elements, as that of the first norm's scale
where the norms after it undo it, has a large relative distance in both implementations.
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


def start(name: str, away_from_kinks: bool, batch: int, seed: int):
    """A model with BN parameters and statistics that are not trivially 0 or 1, and a batch."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
                if away_from_kinks:
                    module.bias.copy_(6 * module.bias.sign())
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
        if away_from_kinks:
            # The features are large, too.
            model.classifier.weight /= 6
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


GROUPS = ("losses", "logits_before", "logits_after", "gradients", "weights", "statistics")


def distances(found, truth):
    """For each group: the distance of the worst tensor, its name, and the distance in norm."""
    assert found.keys() == truth.keys(), found.keys() ^ truth.keys()
    worst = {key: (0.0, "") for key in GROUPS}
    squares = {key: [0.0, 0.0] for key in GROUPS}
    for name in truth:
        a, b = found[name].double(), truth[name].double()
        assert a.shape == b.shape, name
        assert torch.isfinite(a).all(), name
        key = group(name)
        difference = ((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item()
        worst[key] = max(worst[key], (difference, name))
        squares[key][0] += (a - b).square().sum().item()
        squares[key][1] += b.square().sum().item()
    return {key: (*worst[key], (squares[key][0] / squares[key][1]) ** 0.5) for key in GROUPS}


def report(title: str, ours, theirs, factor: float) -> bool:
    """Prints both distances, and returns whether ours is as near as theirs."""
    print(title)
    print(f"  {'':14}|  PyTorch float32  |  ours             |")
    print(f"  {'':14}|  worst    in norm |  worst    in norm |  our worst tensor")
    agree = True
    for key in GROUPS:
        (a, name, a_norm), (b, _, b_norm) = ours[key], theirs[key]
        agree &= a <= max(1e-4, factor * b) and a_norm <= max(1e-4, factor * b_norm)
        print(f"  {key:14}|  {b:.1e}  {b_norm:.1e} |  {a:.1e}  {a_norm:.1e} |  {name}")
    print("  agrees" if agree else "  DOES NOT AGREE")
    return agree


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["densenet121", "densenet201"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--factor", type=float, default=5)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parity") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        agree = [
            compare(name, away_from_kinks, folder, options)
            for name in options.models
            for away_from_kinks in (True, False)
        ]
    sys.exit(not all(agree))


def compare(name: str, away_from_kinks: bool, folder: Path, options) -> bool:
    begin = (name, away_from_kinks, options.batch, options.seed)
    model, images, labels = start(*begin)
    weights, batch, out = (
        folder / f"{name}.{what}.safetensors" for what in ("weights", "batch", "out")
    )
    save_file(model.state_dict(), weights)
    save_file({"images": images, "labels": labels}, batch)
    command = ["cargo", "run", "--quiet", "--release", "-p", "densenet-models"]
    command += ["--example", "parity", "--", "--model", name, "--weights", weights]
    command += ["--batch", batch, "--steps", str(options.steps), "--lr", repr(options.lr)]
    subprocess.run([*command, "--out", out], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    ours = load_file(out)
    single = train(model, images, labels, options.steps, options.lr)
    # Training has changed the model: begin again.
    model, _, _ = start(*begin)
    truth = train(model.double(), images.double(), labels, options.steps, options.lr)
    regime = "away from kinks" if away_from_kinks else "usual"
    title = f"{name}, {regime}, batch {options.batch}, {options.steps} steps:"
    title += " distance from PyTorch float64"
    return report(title, distances(ours, truth), distances(single, truth), options.factor)


if __name__ == "__main__":
    main()
