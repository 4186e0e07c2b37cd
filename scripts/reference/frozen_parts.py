"""Makes tests/golden/frozen_parts_*.safetensors: PyTorch's steps of networks that are frozen in places.

    python scripts/reference/frozen_parts.py

needs torch, numpy and safetensors. The networks and their weights are those of the golden files that
make.py makes. Frozen modules are in eval() with requires_grad_(False), the others in train(). A file
holds, for each CASE below:
    images, labels                the batch: float32 NCHW, int64
    CASE.logits                   of the training pass
    CASE.grad.NAME                the gradients of what trains
    CASE.running.NAME             the running statistics after the pass, of what is not frozen
    CASE.sgd.NAME, .adamw.NAME    of some cases: weights and running statistics after three steps, of
                                  what is not frozen
"""

import torch
from torch import nn
from torch.nn import functional as F

from densenet import DenseNet
from frozen import write
from make import NETWORKS, RATE, Kinks

# The frozen modules of each case. "norms" are all BNs.
CASES = {
    "bc": {
        "layer": ["features.denseblock1.denselayer2"],
        "block": ["features.denseblock2"],
        "transition": ["features.transition1"],
        "norms": ["norms"],
        "mixed": [
            "features.conv0",
            "features.denseblock1.denselayer2",
            "features.denseblock2.denselayer1.norm2",
            "features.transition2",
            "features.denseblock3.denselayer2.conv2",
        ],
    },
    "imagenet_bc": {
        "stem_norm": ["features.norm0"],
        "mixed": [
            "features.conv0",
            "features.transition1",
            "features.denseblock3",
            "features.norm5",
        ],
    },
    "plain": {
        "layer": ["features.denseblock2.denselayer1"],
        "mixed": ["features.transition1.conv", "features.denseblock2", "classifier.weight"],
    },
    "one_block": {
        "first_layer": ["features.conv0", "features.denseblock1.denselayer1"],
        "norm": ["features.denseblock1.denselayer2.norm1"],
        "narrow_norm": ["features.denseblock1.denselayer1.norm2"],
        "narrow_conv": ["features.denseblock1.denselayer1.conv1"],
        "conv": ["features.denseblock1.denselayer1.conv2"],
        "last_norm": ["features.norm5"],
        "classifier": ["classifier"],
    },
}
STEPS = 3
# The optimisers of the cases that go on.
OPTIMISERS = {
    ("bc", "norms"): ["sgd"],
    ("bc", "mixed"): ["adamw"],
    ("imagenet_bc", "mixed"): ["sgd"],
    ("plain", "mixed"): ["sgd", "adamw"],
}


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def freeze(model, parts: list[str]) -> set[str]:
    """Freezes parts; returns the names of their modules and tensors."""
    frozen = set()
    for name, module in model.named_modules():
        is_norm = isinstance(module, nn.BatchNorm2d)
        if any(is_within(name, part) for part in parts) or ("norms" in parts and is_norm):
            module.eval().requires_grad_(False)
            frozen |= {f"{name}.{own}" for own in module.state_dict()}
    for name, parameter in model.named_parameters():
        if name in parts:
            parameter.requires_grad_(False)
            frozen.add(name)
    return frozen


def run(network, state, images, labels, case, dtype):
    spec = NETWORKS[network]
    parts = CASES[network][case]
    out, margin = {}, float("inf")
    for optimiser in OPTIMISERS.get((network, case), [None]):
        model = DenseNet(spec)
        model.load_state_dict(state, strict=False)
        model.to(dtype).train()
        frozen = freeze(model, parts)
        assert frozen
        kinks = Kinks(model)
        trained = [own for own in model.parameters() if own.requires_grad]
        rate = RATE.get(network, 0.1)
        if optimiser == "adamw":
            steps = torch.optim.AdamW(trained, lr=rate / 50, weight_decay=0.01)
        else:
            steps = torch.optim.SGD(
                trained, lr=rate, momentum=0.9, weight_decay=1e-4, nesterov=True
            )
        names = lambda: {
            name: tensor.clone()
            for name, tensor in model.state_dict().items()
            if name not in frozen and not name.endswith("num_batches_tracked")
        }
        for step in range(STEPS if optimiser else 1):
            steps.zero_grad()
            logits = model(images.to(dtype))
            F.cross_entropy(logits, labels).backward()
            if step == 0:
                out[f"{case}.logits"] = logits.detach()
                for name, parameter in model.named_parameters():
                    assert (parameter.grad is None) == (name in frozen), name
                    if parameter.grad is not None:
                        out[f"{case}.grad.{name}"] = parameter.grad.clone()
                for name, tensor in names().items():
                    if "running" in name:
                        out[f"{case}.running.{name}"] = tensor
            if optimiser:
                steps.step()
        if optimiser:
            out.update({f"{case}.{optimiser}.{name}": own for name, own in names().items()})
        for name, tensor in model.state_dict().items():
            if name in frozen and not name.endswith("num_batches_tracked"):
                assert torch.equal(tensor, state[name].to(dtype)), name
        margin = min(margin, kinks.margin)
    return out, margin


if __name__ == "__main__":
    torch.set_num_threads(1)
    for network, cases in CASES.items():
        write("frozen_parts", network, cases, 15, run, rate=str(RATE.get(network, 0.1)))
