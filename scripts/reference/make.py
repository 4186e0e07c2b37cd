"""Makes tests/golden/*.safetensors: what PyTorch computes for small DenseNets of every kind.

    python scripts/reference/make.py

needs torch, torchvision, numpy and safetensors; the tests need only the files. Weights and
images are float32 from a seed; everything is computed in float64 and rounded once, at the end.

A file holds, under torchvision's names:
    images, labels          the batch: float32 NCHW, int64
    NAME                    the weights and running statistics at the start
    grad.NAME               the first step's gradients
    step1.NAME              the running statistics after the first training pass
    step3.NAME              weights and running statistics after three steps of SGD on the batch
    losses                  the loss before each of the three steps
    logits.train            of the first training pass
    logits.eval             with the weights and running statistics of the start
    logits.eval.step3       after three steps
and the notes `spec` (as `densenet!` reads it), `rate`, `seed` and `made_with`.

ReLU and max pooling have kinks, where float32 and float64 can part. Seeds are tried until no
value of any step is near one, and until PyTorch's own float32 run agrees with its float64 run.
"""

from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from densenet import DenseNet, Spec

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden"
STEPS = 3
# How far a value must be from a kink.
MARGIN = 5e-6
# How well PyTorch in float32 must agree with PyTorch in float64, in the measure of the tests.
AGREEMENT = 1e-5

NETWORKS = {
    # Neither bottleneck nor compression.
    "plain": Spec([2, 2, 2], [4, 4, 4], "1", None, "cifar", 6, (3, 12, 12), 10),
    # B alone; odd sides, two channels, another bottleneck width.
    "bottleneck": Spec([2, 3], [3, 3], "1", 2, "cifar", 7, (2, 15, 11), 5),
    # C alone; theta floors: 0.3 of 8 + 3 * 3 = 17 is 5.1; k = 5 in the second block.
    "compressed": Spec([3, 2], [3, 5], "0.3", None, "cifar", 8, (3, 9, 14), 6),
    # BC with the CIFAR stem.
    "bc": Spec([3, 2, 2], [4, 4, 4], "0.5", 4, "cifar", 8, (3, 13, 13), 10),
    # BC with the ImageNet stem: torchvision's own kind; sides that round at every stage.
    "imagenet_bc": Spec([2, 2, 2, 2], [4, 4, 4, 4], "0.5", 4, "imagenet", 8, (3, 33, 45), 7),
    # Plain layers after the ImageNet stem; 0.58 of 44 + 2 * 3 = 50 is 29, but 28 in floats.
    "imagenet_compressed": Spec([2, 1], [3, 5], "0.58", None, "imagenet", 44, (1, 30, 23), 3),
    # The smallest: one block and no transition.
    "one_block": Spec([2], [3], "1", 4, "cifar", 5, (1, 7, 5), 2),
}
BATCH = 5
# Where few values make a statistic, large steps make chaos.
RATE = {"imagenet_bc": 0.03, "imagenet_compressed": 0.05}


def random_state(model: nn.Module, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Weights and statistics that are never trivially 0 or 1."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = tuple(tensor.shape)
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 2.0, shape)
        elif name.endswith("running_mean"):
            values = rng.normal(0, 0.3, shape)
        elif "norm" in name and name.endswith("weight"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("bias"):
            values = rng.normal(0, 0.3, shape)
        else:
            values = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


class Kinks:
    """The smallest distance of any value from where ReLU or max pooling has a kink."""

    def __init__(self, model: nn.Module):
        self.margin = float("inf")
        for name, module in model.named_modules():
            # Each BN is followed by a ReLU.
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(self.relu)
            if isinstance(module, nn.MaxPool2d):
                module.register_forward_hook(self.pool)

    def relu(self, _module, _inputs, output):
        self.margin = min(self.margin, output.detach().abs().min().item())

    def pool(self, _module, inputs, output):
        x = F.pad(inputs[0].detach(), (1, 1, 1, 1))
        windows = x.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4)
        first, second = windows.topk(2).values.unbind(-1)
        # Where the maximum is 0 the ReLU below it passes nothing on.
        gaps = (first - second)[first > 0]
        self.margin = min(self.margin, gaps.min().item())


def run(spec: Spec, state, images, labels, rate: float, dtype):
    """Everything a golden file holds, and the distance from the nearest kink."""
    torch.manual_seed(0)
    model = DenseNet(spec)
    model.load_state_dict(state, strict=False)
    model.to(dtype)
    images = images.to(dtype)
    kinks = Kinks(model)
    out = {}

    def tensors():
        items = model.state_dict().items()
        return {n: t.clone() for n, t in items if not n.endswith("num_batches_tracked")}

    model.eval()
    out["logits.eval"] = model(images).detach()
    optimiser = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    losses = []
    for step in range(STEPS):
        model.train()
        optimiser.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            out["logits.train"] = logits.detach()
            for name, parameter in model.named_parameters():
                out[f"grad.{name}"] = parameter.grad.clone()
            for name, tensor in tensors().items():
                if "running" in name:
                    out[f"step1.{name}"] = tensor
        optimiser.step()
    out["losses"] = torch.stack(losses)
    out.update({f"step{STEPS}.{name}": tensor for name, tensor in tensors().items()})
    model.eval()
    out[f"logits.eval.step{STEPS}"] = model(images).detach()
    return out, kinks.margin


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The tests' measure: the largest difference, relative to the largest value."""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-3)).item()


def as_torchvision(spec: Spec, state, images, logits):
    """torchvision's own class gives the same, where it can make the network at all."""
    if spec.stem != "imagenet" or spec.bottleneck is None or spec.theta != "0.5":
        return
    theirs = torchvision.models.DenseNet(
        growth_rate=spec.k[0],
        block_config=tuple(spec.blocks),
        num_init_features=spec.init,
        bn_size=spec.bottleneck,
        num_classes=spec.classes,
    )
    missing = theirs.load_state_dict(state, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    theirs.double().eval()
    assert difference(theirs(images.double()).detach(), logits) < 1e-12


def make(name: str, spec: Spec):
    rate = RATE.get(name, 0.1)
    for seed in range(1000):
        rng = np.random.default_rng([seed, len(name)])
        state = random_state(DenseNet(spec), rng)
        images = torch.from_numpy(rng.normal(0, 1, (BATCH, *spec.input)).astype(np.float32))
        labels = torch.from_numpy(rng.integers(0, spec.classes, BATCH))
        out, margin = run(spec, state, images, labels, rate, torch.float64)
        if margin < MARGIN:
            continue
        single, _ = run(spec, state, images, labels, rate, torch.float32)
        worst = max((difference(single[key], out[key]), key) for key in out)
        if worst[0] < AGREEMENT:
            break
    else:
        raise SystemExit(f"{name}: no seed keeps away from the kinks")
    as_torchvision(spec, state, images, out["logits.eval"])
    tensors = {"images": images, "labels": labels, **state}
    tensors.update({key: value.float().contiguous() for key, value in out.items()})
    notes = {
        "spec": spec.macro(),
        "rate": str(rate),
        "seed": str(seed),
        "made_with": f"scripts/reference/make.py, torch {torch.__version__}",
    }
    path = OUT / f"{name}.safetensors"
    save_file(tensors, path, notes)
    losses = " ".join(f"{loss:.4f}" for loss in out["losses"].tolist())
    print(
        f"{name:20} seed {seed:3}  {path.stat().st_size / 1024:6.1f} KiB  losses {losses}  "
        f"margin {margin:.1e}  float32 differs by {worst[0]:.1e} ({worst[1]})"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, spec in NETWORKS.items():
        make(name, spec)
