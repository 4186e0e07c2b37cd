"""Makes tests/golden/losses.json: what PyTorch computes for every loss, and its gradients.

    python scripts/reference/losses.py

needs torch; the tests need only the file. Logits and targets are rounded to float32; everything is
computed in float64. `null` among the targets stands for an unknown one.
"""

import json
from pathlib import Path

import torch
from torch.nn import functional as F

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "losses.json"


def rounded(tensor):
    return tensor.float().double()


def case(name, logits, targets, kind, loss, smoothing=0.0, classes=None, positive=None):
    logits = logits.clone().requires_grad_(True)
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    numbers = lambda tensor: [None if x != x else float(f"{x:.10g}") for x in tensor.flatten().tolist()]
    return {
        "name": name,
        "images": logits.shape[0],
        "logits": numbers(logits.detach()),
        "kind": kind,
        "targets": numbers(targets),
        "smoothing": smoothing,
        "class_weights": [] if classes is None else numbers(classes),
        "positive_weights": [] if positive is None else numbers(positive),
        "loss": float(f"{value.item():.12g}"),
        "gradient": numbers(gradient),
    }


def cases():
    torch.manual_seed(1)
    for images, classes in [(1, 2), (4, 3), (5, 10), (2, 67)]:
        shape = f"{images} x {classes}"
        logits = rounded(3 * torch.randn(images, classes))
        labels = torch.randint(classes, (images,))
        rows = torch.softmax(torch.randn(images, classes, dtype=torch.float64), 1)
        # Rows add up to 1 in float32 as well as they can.
        rows = rounded(rows)
        weights = rounded(torch.rand(classes) * 2 + 0.25)
        weights[labels[0]] = 3.0
        for smoothing in [0.0, float(torch.tensor(0.1))]:
            for own in [None, weights]:
                what = f"{shape}, smoothing {smoothing:.1f}" + (", weights" if own is not None else "")
                entropy = lambda z, t: F.cross_entropy(z, t, weight=own, label_smoothing=smoothing)
                yield case(f"classes, {what}", logits, labels, "classes", lambda z: entropy(z, labels), smoothing, own)
                yield case(f"probabilities, {what}", logits, rows, "probabilities", lambda z: entropy(z, rows), smoothing,
                           own)
        yes = rounded((torch.rand(images, classes) < 0.4).double())
        soft = rounded(torch.rand(images, classes))
        unknown = yes.clone()
        unknown[torch.rand(images, classes) < 0.3] = float("nan")
        unknown[0, 0], unknown[0, 1] = float("nan"), 1.0
        for target, kind in [(yes, "yes and no"), (soft, "shares"), (unknown, "unknowns")]:
            for own in [None, weights]:
                what = f"independent, {shape}, {kind}" + (", weights" if own is not None else "")

                def binary(z):
                    known = target == target
                    every = F.binary_cross_entropy_with_logits(
                        z, torch.nan_to_num(target), pos_weight=own, reduction="none")
                    return every[known].mean()

                yield case(what, logits, target, "independent", binary, positive=own)
        far = torch.tensor([[90.0, -90.0], [-90.0, 90.0]], dtype=torch.float64)
        if (images, classes) == (1, 2):
            right = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
            yield case("independent, far logits", far, right, "independent",
                       lambda z: F.binary_cross_entropy_with_logits(z, right))
            yield case("classes, far logits", far, torch.tensor([0, 0]), "classes",
                       lambda z: F.cross_entropy(z, torch.tensor([0, 0])))


lines = ",\n".join(json.dumps(case) for case in cases())
OUT.write_text(f'{{"made_with": "torch {torch.__version__}", "cases": [\n{lines}\n]}}\n')
print(f"{OUT}: {OUT.stat().st_size} bytes")
