"""Makes tests/golden/optimizers.json: how PyTorch's optimisers, clipping and averages move some numbers.

Run from the root of the repository with torch and numpy installed:
    python scripts/golden_optimizers.py
Made with torch 2.15.0.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

GOLDEN = Path("tests/golden/optimizers.json")
COUNT, STEPS, SPLITS = 23, 6, (9, 14)


class Numbers(nn.Module):
    """Parameters of two groups, and running statistics."""

    def __init__(self, start, running):
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(part.clone()) for part in start.split(SPLITS))
        self.register_buffer("running", running.clone())


def case(name, kind, seed, groups=((1.0, 1.0), (1.0, 1.0)), clip=None, ema=None, **settings):
    rng = np.random.default_rng(seed)
    start = torch.from_numpy(rng.normal(0, 1, COUNT).astype(np.float32)).double()
    running = torch.from_numpy(rng.normal(0, 1, (STEPS + 1, 5)).astype(np.float32)).double()
    # Of very different sizes, and some of them zero.
    sizes = 10.0 ** rng.uniform(-6, 1, COUNT)
    gradients = rng.normal(0, 1, (STEPS, COUNT)) * sizes * (rng.random(COUNT) > 0.1)
    gradients = torch.from_numpy(gradients.astype(np.float32)).double()
    rates = np.linspace(0.05, 0.01, STEPS).astype(np.float32).tolist()
    model = Numbers(start, running[0])
    decay = settings.pop("weight_decay")
    grouped = [
        {"params": [part], "lr": rates[0] * rate, "weight_decay": decay * share}
        for part, (rate, share) in zip(model.parts, groups)
    ]
    make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[kind]
    optimizer = make(grouped, **settings)
    averaged = None
    if ema is not None:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
        averaged.update_parameters(model)  # it starts as the model
    after, averages, average_running = [], [], []
    for step, rate in enumerate(rates):
        for group, (share, _) in zip(optimizer.param_groups, groups):
            group["lr"] = rate * share
        for part, gradient in zip(model.parts, gradients[step].split(SPLITS)):
            part.grad = gradient.clone()
        model.running.copy_(running[step + 1])
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        after.append(torch.cat([part.detach() for part in model.parts]).tolist())
        if averaged is not None:
            averaged.update_parameters(model)
            parts = averaged.module.parts
            averages.append(torch.cat([part.detach() for part in parts]).tolist())
            average_running.append(averaged.module.running.tolist())
    return dict(
        name=name,
        adamw=dict(betas=settings["betas"], epsilon=settings["eps"]) if kind == "adamw" else None,
        momentum=settings.get("momentum", 0.0),
        nesterov=settings.get("nesterov", False),
        weight_decay=decay,
        clip=clip,
        ema=ema,
        groups=[list(group) for group in groups],
        split=SPLITS[0],
        rates=rates,
        start=start.tolist(),
        running=running.tolist(),
        gradients=gradients.tolist(),
        parameters=after,
        averages=averages,
        average_running=average_running,
    )


def main() -> None:
    adamw = dict(kind="adamw", betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01)
    sgd = dict(kind="sgd", momentum=0.9, weight_decay=1e-2)
    golden = [
        case("sgd", seed=1, nesterov=True, **sgd),
        case("sgd, clipped", seed=2, clip=0.5, **sgd),
        case("sgd, norms that are small enough", seed=3, clip=1e3, nesterov=True, **sgd),
        case("sgd in groups", seed=4, groups=((0.1, 1.0), (1.0, 0.0)), **sgd),
        case("adamw", seed=5, **adamw),
        case("adamw with other settings", seed=6, **{**adamw, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.3}),
        case("adamw in groups, clipped", seed=7, groups=((1.0, 0.0), (0.25, 1.0)), clip=0.1, **adamw),
        case("sgd with an average", seed=8, ema=0.9, **sgd),
        case("adamw with an average of everything, clipped", seed=9, clip=1.0, ema=0.995, **adamw),
    ]
    lines = ",\n".join(json.dumps(each) for each in golden)
    GOLDEN.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
