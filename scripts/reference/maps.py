"""Makes tests/golden/maps_*.safetensors: what PyTorch computes on the way to the logits.

    python scripts/reference/maps.py

needs torch, torchvision, numpy and safetensors. The networks and their weights are those of the
golden files that make.py makes, in eval(); of the images, the first two. Everything is computed in
float64 and rounded once. A file holds, all channels first:
    features            the means of the last feature maps: images x features
    class_maps          of all classes: images x classes x height x width
    last_maps           after the last BN and ReLU
    block_maps.NUMBER   what leaves each block, from 1 on
"""

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from densenet import DenseNet
from make import AGREEMENT, NETWORKS, OUT, difference

IMAGES = 2


def collect(model, images) -> dict[str, torch.Tensor]:
    """All that a model in eval() gives of images."""
    out, hooks = {}, []
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            number = name.removeprefix("denseblock")
            keep = lambda _m, _i, y, number=number: out.update({f"block_maps.{number}": y})
            hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        last = F.relu(model.features(images))
        out["last_maps"] = last
        out["features"] = last.mean((2, 3))
        out["class_maps"] = torch.einsum("kc,ichw->ikhw", model.classifier.weight, last)
        out["logits"] = model(images)
    for hook in hooks:
        hook.remove()
    return out


def run(spec, state, images, dtype) -> dict[str, torch.Tensor]:
    model = DenseNet(spec)
    model.load_state_dict(state, strict=False)
    model.to(dtype).eval()
    out = collect(model, images.to(dtype))
    exact = out["class_maps"].mean((2, 3)) + model.classifier.bias
    assert difference(exact, out.pop("logits")) < 1e-5
    return out


def make(name: str) -> None:
    spec = NETWORKS[name]
    golden = load_file(OUT / f"{name}.safetensors")
    names = DenseNet(spec).state_dict()
    state = {key: tensor for key, tensor in golden.items() if key in names}
    images = golden["images"][:IMAGES]
    out = run(spec, state, images, torch.float64)
    single = run(spec, state, images, torch.float32)
    worst = max(difference(single[key], out[key]) for key in out)
    assert worst < AGREEMENT, worst
    tensors = {key: value.float().contiguous() for key, value in out.items()}
    notes = {"made_with": f"scripts/reference/maps.py, torch {torch.__version__}"}
    path = OUT / f"maps_{name}.safetensors"
    save_file(tensors, path, notes)
    print(f"{name:20} {path.stat().st_size / 1024:6.1f} KiB  {worst:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for network in NETWORKS:
        make(network)
