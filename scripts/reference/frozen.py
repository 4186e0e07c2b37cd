"""Makes tests/golden/frozen_*.safetensors: PyTorch's gradients of networks whose first stages are frozen.

    python scripts/reference/frozen.py

needs torch, numpy and safetensors. The networks and their weights are those of the golden files that
make.py makes. Frozen modules are in eval(), the others in train(). A file holds, for each number of
frozen stages COUNT (the stem, each block and the transition after it, the last BN, the classifier):
    images, labels              the batch: float32 NCHW, int64
    COUNT.logits                of the training pass
    COUNT.grad.NAME             the gradients of what trains
    COUNT.running.NAME          the running statistics after the pass, of what trains
"""

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from densenet import DenseNet
from make import AGREEMENT, BATCH, MARGIN, NETWORKS, OUT, Kinks, difference


def stages(model) -> list[list[str]]:
    """The names of the modules of each stage."""
    names = [name for name, _ in model.features.named_children()]
    stem = [f"features.{name}" for name in names if name in ("conv0", "norm0")]
    rest = [[f"features.{name}"] for name in names if "block" in name or "transition" in name]
    return [stem, *rest, ["features.norm5"], ["classifier"]]


def run(network, state, images, labels, count, dtype):
    model = DenseNet(NETWORKS[network])
    model.load_state_dict(state, strict=False)
    model.to(dtype).train()
    modules = dict(model.named_modules())
    for names in stages(model)[:count]:
        for name in names:
            modules[name].eval().requires_grad_(False)
    kinks = Kinks(model)
    logits = model(images.to(dtype))
    F.cross_entropy(logits, labels).backward()
    frozen = [name + "." for names in stages(model)[:count] for name in names]
    trains = lambda name: not name.startswith(tuple(frozen)) if frozen else True
    out = {f"{count}.logits": logits.detach()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (not trains(name)), name
        if trains(name):
            out[f"{count}.grad.{name}"] = parameter.grad.clone()
    for name, tensor in model.state_dict().items():
        if "running" in name and trains(name):
            out[f"{count}.running.{name}"] = tensor.clone()
        elif "running" in name:
            assert torch.equal(tensor, state[name].to(dtype)), name
    return out, kinks.margin


def write(kind: str, network: str, cases, stream: int, run, **notes) -> None:
    """Writes `run` of each case of a network, for the first batch of a stream of random ones on which
    PyTorch's f32 agrees with its f64."""
    spec = NETWORKS[network]
    golden = load_file(OUT / f"{network}.safetensors")
    names = DenseNet(spec).state_dict()
    state = {name: tensor for name, tensor in golden.items() if name in names}
    for seed in range(2000):
        rng = np.random.default_rng([seed, stream])
        images = torch.from_numpy(rng.normal(0, 1, (BATCH, *spec.input)).astype(np.float32))
        labels = torch.from_numpy(rng.integers(0, spec.classes, BATCH))
        tensors, worst = {}, 0.0
        for case in cases:
            out, margin = run(network, state, images, labels, case, torch.float64)
            if margin < MARGIN:
                break
            single, _ = run(network, state, images, labels, case, torch.float32)
            worst = max([worst, *(difference(single[key], out[key]) for key in out)])
            if worst > AGREEMENT:
                break
            tensors.update(out)
        else:
            break
    else:
        raise SystemExit(f"{network}: no seed keeps away from the kinks")
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    made_with = f"scripts/reference/{kind}.py, torch {torch.__version__}"
    notes = {**notes, "seed": str(seed), "made_with": made_with}
    path = OUT / f"{kind}_{network}.safetensors"
    save_file({"images": images, "labels": labels, **tensors}, path, notes)
    print(f"{network:20} seed {seed:3}  {path.stat().st_size / 1024:6.1f} KiB  {worst:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for network, counts in [
        ("bc", [1, 2, 3, 4, 6, 7]),
        ("imagenet_bc", [1, 2, 5, 8, 9]),
        ("plain", [2, 5]),
    ]:
        write("frozen", network, counts, 14, run)
