"""Makes densenet-runtime/tests/scores.json: what scikit-learn computes of predictions.

    python scripts/golden_scores.py

needs scikit-learn and numpy; the tests need only the file. Logits are float32; probabilities are
computed from them in float64. Many logits are equal, some classes are all yes or all no, and `null`
among the targets stands for an unknown one.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics
from sklearn.calibration import calibration_curve

OUT = Path(__file__).resolve().parents[1] / "densenet-runtime" / "tests" / "scores.json"
BINS = 15


def two_kinds(labels):
    return 0 < labels.sum() < len(labels)


def mean(values):
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def calibration(confidence, right):
    """The expected calibration error of 15 bins, each without its lower end (Guo et al., 2017)."""
    error = 0.0
    for bin in range(BINS):
        inside = (confidence > bin / BINS) & (confidence <= (bin + 1) / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def curves(labels, scores, probabilities):
    if not two_kinds(labels):
        none = ["auroc", "average_precision", "youden", "sensitive", "roc", "precision_recall"]
        return dict.fromkeys(none)
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    points = lambda xs, ys: [[float(f"{x:.12g}"), float(f"{y:.12g}")] for x, y in zip(xs, ys)]
    roc, precision_recall = points(fpr, tpr), points(recall[::-1], precision[::-1])
    # The first threshold is infinite: no is said to all.
    fpr, tpr, thresholds = fpr[1:], tpr[1:], thresholds[1:]
    yes, no = int(labels.sum()), int((~labels).sum())
    at = lambda index: float(probabilities[scores == thresholds[index]][0])
    return {
        "auroc": float(metrics.roc_auc_score(labels, scores)),
        "average_precision": float(metrics.average_precision_score(labels, scores)),
        # In whole numbers, so that equal ones are equal.
        "youden": at(int(np.argmax(np.rint(tpr * yes) * no - np.rint(fpr * no) * yes))),
        "sensitive": at(int(np.argmax(tpr >= 0.8))),
        "roc": roc,
        "precision_recall": precision_recall,
    }


def independent(name, logits, targets):
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    each, confidence, right = [], [], []
    for k in range(logits.shape[1]):
        known = ~np.isnan(targets[:, k])
        labels = targets[known, k] >= 0.5
        own = curves(labels, logits[known, k], probabilities[known, k])
        yes = logits[known, k] >= 0
        own |= {"known": int(known.sum()), "positive": int(labels.sum())}
        own["accuracy"] = float(metrics.accuracy_score(labels, yes)) if known.any() else None
        each.append(own)
        confidence.append(np.where(yes, probabilities[known, k], 1 - probabilities[known, k]))
        right.append(yes == labels)
    return case(name, logits, targets, "independent", each, np.concatenate(confidence), np.concatenate(right))


def of_classes(name, logits, labels):
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    predicted = logits.argmax(1)
    each = []
    for k in range(logits.shape[1]):
        own = curves(labels == k, probabilities[:, k], probabilities[:, k])
        there = labels == k
        own |= {"known": len(labels), "positive": int(there.sum())}
        own["accuracy"] = float((predicted[there] == k).mean()) if there.any() else None
        each.append(own)
    result = case(name, logits, labels, "classes", each, probabilities.max(1), predicted == labels)
    result["confusion"] = metrics.confusion_matrix(labels, predicted, labels=range(logits.shape[1])).tolist()
    # Of equal logits scikit-learn takes the first, where we count an image as wrong.
    for k in [1, 2, 5] if name != "ties" else []:
        if k < logits.shape[1]:
            found = metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(logits.shape[1]))
            result.setdefault("top_k_error", {})[str(k)] = 1 - float(found)
    return result


def case(name, logits, targets, kind, each, confidence, right):
    share, mean_confidence = calibration_curve(right, confidence, n_bins=BINS)
    numbers = lambda values: [None if x != x else float(f"{x:.9g}") for x in np.asarray(values).flatten().tolist()]
    return {
        "name": name,
        "kind": kind,
        "images": len(logits),
        "logits": numbers(logits),
        "targets": numbers(targets),
        "classes": each,
        "means": {what: mean([own[what] for own in each]) for what in ["accuracy", "auroc", "average_precision"]}
        | {"calibration_error": calibration(confidence, right)},
        # Of the bins that are not empty.
        "calibration": [list(pair) for pair in zip(mean_confidence.tolist(), share.tolist())],
    }


def cases():
    draw = np.random.default_rng(1)
    coarse = lambda values: (np.round(values * 4) / 4).astype(np.float32)
    for images, classes in [(40, 3), (60, 5)]:
        targets = (draw.random((images, classes)) < 0.3).astype(np.float64)
        logits = 2 * (targets - 0.5) + draw.normal(size=(images, classes))
        yield independent(f"{images} x {classes}, no ties", logits.astype(np.float32), targets)
        yield independent(f"{images} x {classes}, ties", coarse(logits), targets)
        targets[draw.random((images, classes)) < 0.4] = np.nan
        targets[:, 0] = np.where(np.isnan(targets[:, 0]), np.nan, 0.0)
        if classes > 4:
            targets[:, 1] = 1.0
            targets[:, 2] = np.nan
        yield independent(f"{images} x {classes}, unknowns, and classes of one kind", coarse(logits), targets)
    targets = draw.choice([0.0, 0.3, 0.5, 0.9], size=(30, 2))
    yield independent("shares", coarse(targets + draw.normal(size=(30, 2))), targets)
    for images, classes in [(50, 3), (70, 7)]:
        # The last class has no image.
        labels = draw.integers(0, classes - 1, images)
        logits = 1.5 * np.eye(classes)[labels] + draw.normal(size=(images, classes))
        yield of_classes(f"{images} of {classes} classes", logits.astype(np.float32), labels)
    rows = np.array([[2, 0, 1], [2.5, 1, 0], [0, 2, 3], [1, 1, 1], [0.5, 1, 2], [3, 3, 0]], dtype=np.float32)
    logits = rows[draw.integers(0, len(rows), 40)]
    yield of_classes("ties", logits, draw.integers(0, 3, 40))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = ",\n".join(json.dumps(case) for case in cases())
    OUT.write_text(f'{{"made_with": "scikit-learn {sklearn.__version__}", "cases": [\n{lines}\n]}}\n')
    print(f"{OUT}: {OUT.stat().st_size} bytes")
