"""Makes densenet-runtime/src/train/tests/golden/schedules.json: PyTorch's learning rates, and the momenta of
its cycles, step by step.

Run from the root of the repository with torch installed:
    python scripts/golden_schedules.py
Made with torch 2.15.0.
"""

import json
import warnings
from pathlib import Path

import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

GOLDEN = Path("densenet-runtime/src/train/tests/golden/schedules.json")
warnings.filterwarnings("ignore")


def optimizer(rate: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate, momentum=0.9)


def rates(opt, scheduler, count: int) -> list[float]:
    """The learning rate of each of `count` steps."""
    found = []
    for _ in range(count):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        if scheduler is not None:
            scheduler.step()
    return found


def warmed_up(opt, warmup: int, after):
    """A straight line over the first steps, whose last has the full rate."""
    if warmup == 0:
        return after
    rise = LinearLR(opt, start_factor=1 / warmup, total_iters=warmup - 1)
    return SequentialLR(opt, [rise, after], milestones=[warmup])


def plain(name, decay, make, rate, epochs, steps, warmup=0):
    """A schedule that depends on progress alone; the warm-up is in epochs."""
    opt = optimizer(rate)
    count = epochs * steps
    scheduler = warmed_up(opt, round(warmup * steps), make(opt, count - round(warmup * steps)))
    schedule = {"rate": rate, "warmup": warmup, "decay": decay}
    found = rates(opt, scheduler, count)
    return dict(name=name, schedule=schedule, epochs=epochs, steps=steps, rates=found)


def momentum_of(group: dict) -> float:
    return group["betas"][0] if "betas" in group else group["momentum"]


def one_cycle(name, rate, epochs, steps, warmup, first=25.0, last=1e4, momentum=None, make=optimizer):
    """`momentum`: the lowest and the highest, if it is cycled."""
    opt = make(rate)
    cycled = {}
    if momentum:
        cycled = dict(zip(["base_momentum", "max_momentum"], momentum))
    scheduler = OneCycleLR(
        opt,
        rate,
        total_steps=epochs * steps,
        pct_start=warmup / epochs,
        div_factor=first,
        final_div_factor=last,
        cycle_momentum=momentum is not None,
        **cycled,
    )
    found, momenta = [], []
    for index in range(epochs * steps):
        found.append(opt.param_groups[0]["lr"])
        momenta.append(momentum_of(opt.param_groups[0]))
        opt.step()
        if index + 1 < epochs * steps:
            scheduler.step()
    schedule = {
        "rate": rate,
        "warmup": warmup,
        "decay": {"one_cycle": {"first": first, "last": last}},
    }
    case = dict(name=name, schedule=schedule, epochs=epochs, steps=steps, rates=found)
    if momentum:
        schedule["decay"]["one_cycle"]["momentum"] = momentum
        case["momenta"] = momenta
    return case


def plateau(name, rate, values, steps, warmup=0, by=10.0, patience=2, threshold=1e-4, cooldown=0, floor=0.0):
    opt = optimizer(rate)
    found = []
    if warmup:
        rise = LinearLR(opt, start_factor=1 / (warmup * steps), total_iters=warmup * steps - 1)
        found += rates(opt, rise, warmup * steps)
    scheduler = ReduceLROnPlateau(
        opt, factor=1 / by, patience=patience, threshold=threshold, cooldown=cooldown, min_lr=floor
    )
    for epoch, value in enumerate(values):
        if epoch >= warmup:
            found += [opt.param_groups[0]["lr"]] * steps
        # The evaluation at the end of the warm-up's last epoch is the first that counts.
        if epoch + 1 >= warmup:
            scheduler.step(value)
    decay = dict(by=by, patience=patience, threshold=threshold, cooldown=cooldown, floor=floor)
    schedule = {"rate": rate, "warmup": warmup, "decay": {"plateau": decay}}
    return dict(
        name=name, schedule=schedule, epochs=len(values), steps=steps, values=values, rates=found
    )


def main() -> None:
    constant = lambda opt, _: ConstantLR(opt, 1.0)
    steps_at = lambda epochs, steps: lambda opt, _: MultiStepLR(opt, [e * steps for e in epochs])
    divide = lambda epochs: {"divide": {"at": [{"epoch": e} for e in epochs], "by": 10.0}}
    cosine = lambda floor: lambda opt, count: CosineAnnealingLR(opt, count, eta_min=floor)
    adamw = lambda rate: torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=rate)
    falling = [0.9, 0.7, 0.7, 0.71, 0.6, 0.6, 0.6, 0.59999, 0.6, 0.5, 0.55, 0.55, 0.55, 0.55, 0.54, 0.53]
    golden = [
        plain("constant", "constant", constant, 0.1, 3, 5),
        plain("constant after a warm-up", "constant", constant, 0.1, 4, 5, 2),
        plain("steps", divide([1.0, 3.0]), steps_at([1, 3], 5), 0.1, 5, 5),
        # PyTorch counts the milestones of a scheduler in a sequence from its own start.
        plain("steps after a warm-up", divide([2.0, 4.0]), steps_at([1, 3], 5), 0.1, 5, 5, 1),
        plain("cosine", {"cosine": {"floor": 0.0}}, cosine(0.0), 0.2, 4, 7),
        plain("cosine with a warm-up and a floor", {"cosine": {"floor": 0.01}}, cosine(0.01), 0.2, 5, 6, 1),
        one_cycle("one cycle", 0.3, 5, 8, 1.5),
        one_cycle("one cycle that rises for a tenth", 0.05, 10, 4, 1.0, 10.0, 100.0),
        one_cycle("one cycle of momentum too", 0.3, 5, 8, 1.5, momentum=[0.85, 0.95]),
        one_cycle("one cycle of AdamW's first beta", 0.01, 4, 7, 1.0, momentum=[0.7, 0.9], make=adamw),
        plateau("plateau", 0.1, falling, 3),
        plateau("plateau with a cooldown", 0.1, falling, 2, patience=1, cooldown=2, by=2.0),
        plateau("plateau with a floor and a threshold", 0.1, falling, 2, patience=0, threshold=0.2, floor=0.004),
        plateau("plateau after a warm-up", 0.1, falling, 4, warmup=2, patience=0, by=4.0),
    ]
    GOLDEN.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in golden)
    GOLDEN.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
