"""Checks what `densenet evaluate` says of a network, against scikit-learn, torchvision and PyTorch.

Run from the root of the repository with torch, torchvision, scikit-learn and Pillow installed:
    cargo build -p densenet-models --bin densenet && python scripts/scores_check.py
`--program FILE` takes another build of the command, `--keep DIR` a folder for what is made.

Pictures of coloured shapes are drawn, and two networks trained on them through the command line: one on a
table of five independent classes, where a quarter of the labels is unknown, one class is rare and one never
applies; and one on folders of four classes. Then `evaluate --json --predictions` judges both parts of
each division. From the probabilities written out and the labels, scikit-learn computes AUROC, average
precision, accuracy, thresholds and the confusion matrix, and numpy the loss and the calibration error: all
numbers of the JSON must be these, to 1e-6. And torchvision's Resize, CenterCrop and TenCrop before a network
of PyTorch with the weights that `convert` wrote must give the probabilities of `--crops 1` and `--crops 10`:
to 1e-4 for the half of the pictures that have the size from which crops are taken, and to 2e-3 for the others.
These are resized, and where Pillow rounds after the columns of a picture, we round after its rows: pixels
differ by 1 in 255. The exit status is 1 if anything is not so.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import sklearn
import torch
import torchvision
from PIL import Image, ImageDraw
from sklearn import metrics
from torchvision.transforms import v2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "reference"))
from densenet import DenseNet, Spec  # noqa: E402
from golden_scores import calibration, mean, two_kinds  # noqa: E402

SIDE, RESIZED = 32, 40
SHAPES = ["circle", "cross", "frame", "stripes"]
CLASSES = ["warm", 'large "or" dark', "circle", "rare", "never"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def network(classes: int) -> Spec:
    return Spec([2, 2], [8, 8], "0.5", 4, "cifar", 16, (3, SIDE, SIDE), classes)


def drawn(rng, shape: str, is_resized: bool):
    """A picture of a shape, whether it is warm, and whether it is large or dark."""
    # Every second picture needs no resizing.
    sides = (RESIZED, rng.integers(RESIZED, 80)) if is_resized else rng.integers(44, 80, 2)
    width, height = rng.permutation(sides)
    warm, dark = rng.random(2) < 0.5
    ground = rng.integers(20, 70, 3) if dark else rng.integers(150, 230, 3)
    noise = rng.normal(0, 25, (height, width, 3))
    picture = Image.fromarray(np.clip(ground + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    size = int(min(width, height) * rng.uniform(0.4, 0.9))
    left, top = rng.integers(0, width - size + 1), rng.integers(0, height - size + 1)
    box = [left, top, left + size - 1, top + size - 1]
    ink = (255, 120, 40) if warm else (40, 120, 255)
    match shape:
        case "circle":
            draw.ellipse(box, fill=ink)
        case "cross":
            draw.line(box, fill=ink, width=4)
            draw.line([box[0], box[3], box[2], box[1]], fill=ink, width=4)
        case "frame":
            draw.rectangle(box, outline=ink, width=4)
        case "stripes":
            for x in range(box[0], box[2], 6):
                draw.line([x, box[1], x, box[3]], fill=ink, width=2)
    return picture, warm, dark or size > 45


def draw(folder: Path, count: int, seed: int):
    """Pictures in folders of their shapes, and a table of independent labels, some of them wrong."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        picture, warm, second = drawn(rng, shape, number // len(SHAPES) % 2 == 0)
        labels = np.array([warm, second, shape == "circle", rng.random() < 0.06 + 0.2 * warm * second, False])
        wrong = rng.random(5) < [0.1, 0.15, 0.1, 0, 0]
        unknown = rng.random(5) < 0.25
        cells = [rng.choice(["", "nan", "-1"]) if u else str(int(v)) for v, u in zip(labels ^ wrong, unknown)]
        path = Path(shape) / f"{number:04}.{'png' if number % 3 else 'jpg'}"
        (folder / shape).mkdir(parents=True, exist_ok=True)
        picture.save(folder / path)
        rows.append([str(path), f"p{number // 2}", *cells])
    with open(folder.parent / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "patient", *CLASSES], *rows])
    numbers = lambda cell: np.nan if cell in ("", "nan", "-1") else float(cell)
    return {row[0]: np.array([numbers(cell) for cell in row[2:]]) for row in rows}


def ranked(labels, scores, sensitivity):
    """Of a class: AUROC, average precision, and its two thresholds."""
    if not two_kinds(labels):
        return None, None, None, None
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
    yes, no = int(labels.sum()), int((~labels).sum())
    best = np.argmax(np.rint(tpr * yes)[1:] * no - np.rint(fpr * no)[1:] * yes)
    first = np.argmax(tpr[1:] >= sensitivity)
    auroc, precision = metrics.roc_auc_score(labels, scores), metrics.average_precision_score(labels, scores)
    return auroc, precision, thresholds[1:][best], thresholds[1:][first]


def expected(probabilities, labels):
    """What scikit-learn and numpy say: of independent labels with NaN, or of class numbers."""
    classes = probabilities.shape[1]
    each = []
    if labels.ndim == 2:
        known = ~np.isnan(labels)
        yes = np.where(known, labels, 0) >= 0.5
        own = np.where(yes, probabilities, 1 - probabilities)[known]
        loss, right = -np.log(own).mean(), ((probabilities >= 0.5) == yes)[known]
        confidence = np.maximum(probabilities, 1 - probabilities)[known]
        top1 = top5 = confusion = None
        sets = [(yes[known[:, k], k], probabilities[known[:, k], k]) for k in range(classes)]
        accuracy = [metrics.accuracy_score(yes, score >= 0.5) if len(yes) else None for yes, score in sets]
    else:
        said = probabilities.argmax(1)
        loss = metrics.log_loss(labels, probabilities, labels=range(classes))
        confidence, right = probabilities.max(1), said == labels
        top1, top5 = 1 - metrics.accuracy_score(labels, said), None
        if classes > 5:
            top5 = 1 - metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes))
        confusion = metrics.confusion_matrix(labels, said, labels=range(classes))
        sets = [(labels == k, probabilities[:, k]) for k in range(classes)]
        accuracy = metrics.recall_score(labels, said, labels=range(classes), average=None).tolist()
    each = [ranked(yes, score, 0.9) for yes, score in sets]
    auroc, precision, youden, sensitive = map(list, zip(*each))
    scores = {"auroc": auroc, "average_precision": precision, "accuracy": accuracy}
    return {
        "pictures": len(labels),
        "unread": 0,
        "loss": loss,
        "top1_error": top1,
        "top5_error": top5,
        "known": [len(yes) for yes, _ in sets],
        "positive": [int(yes.sum()) for yes, _ in sets],
        "confusion": None if confusion is None else confusion.tolist(),
        "calibration_error": calibration(confidence, right),
        **{key: {"mean": mean(values), "by_class": values} for key, values in scores.items()},
    }, {"youden": youden, "sensitivity=0.9": sensitive}


class Check:
    def __init__(self, program: Path, folder: Path):
        self.program, self.folder, self.agree = program, folder, True

    def densenet(self, *arguments) -> None:
        command = [self.program, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")

    def same(self, what: str, found, truth, names, worst=0.0) -> float:
        """Compares values of JSON, those by class under their names; returns the largest difference."""
        if isinstance(truth, dict):
            return max(self.same(f"{what}.{key}", found[key], truth[key], names, worst) for key in truth)
        if isinstance(found, dict):
            if sorted(found) != sorted(names):
                return self.wrong(what, list(found), names)
            found = [found[name] for name in names]
        if isinstance(truth, list):
            if not isinstance(found, list) or len(found) != len(truth):
                return self.wrong(what, found, truth)
            pairs = zip(found, truth)
            return max(self.same(f"{what}[{k}]", *pair, names, worst) for k, pair in enumerate(pairs))
        if found is None or truth is None:
            return worst if found is truth else self.wrong(what, found, truth)
        difference = abs(found - truth)
        return max(worst, difference) if difference <= 1e-6 else self.wrong(what, found, truth)

    def wrong(self, what: str, found, truth) -> float:
        print(f"  {what}: {found} IS NOT {truth}")
        self.agree = False
        return np.inf

    def judged(self, weights: Path, source: list, part: str, more=()):
        """The JSON and the probabilities by path of a part."""
        command = ["evaluate", "--weights", weights, *source, "--split", weights.parent / "split.csv"]
        command += ["--part", part, "--json", "scores.json", "--predictions", "judged.csv", *more]
        self.densenet(*command)
        with open(self.folder / "judged.csv", newline="") as file:
            header, *rows = csv.reader(file)
        found = json.loads((self.folder / "scores.json").read_text())
        return found, header[1:], {row[0]: np.array(row[1:], float) for row in rows}

    def network(self, name: str, source: list, labels: dict, names: list, options: list) -> None:
        run = self.folder / name
        spec = network(len(names))
        view = ["--crop-pct", SIDE / RESIZED]
        start = ["train", *source, "--spec", spec.macro(), *view, "--val", "0.4", "--batch-size", "16", "--out", run]
        self.densenet(*start, *options)
        weights = run / "best.safetensors"
        one, ten = {}, {}
        for part in ("val", "train"):
            found, header, rows = self.judged(weights, source, part)
            if header != names:
                self.wrong("the classes", header, names)
            probabilities = np.array(list(rows.values()))
            truth, thresholds = expected(probabilities, np.array([labels[path] for path in rows]))
            worst = self.same(part, found, truth, names)
            if source[0] == "--csv":
                for rule, own in thresholds.items():
                    found, *_ = self.judged(weights, source, part, ["--threshold", rule])
                    self.same(f"{part} {rule}", found["thresholds"], own, names)
            one |= rows
            ten |= self.judged(weights, source, part, ["--crops", "10"])[2]
            shown = [f"{truth[key]['mean']:.4f}" for key in ("auroc", "average_precision", "accuracy")]
            error = "" if truth["top1_error"] is None else f", top-1 error {truth['top1_error']:.4f}"
            print(
                f"{name}, {part}: {len(rows)} pictures, {sum(truth['known'])} labels, loss {truth['loss']:.4f}, "
                f"AUROC {shown[0]}, AP {shown[1]}, accuracy {shown[2]}{error}, calibration error "
                f"{truth['calibration_error']:.4f}; largest difference {worst:.1e}"
            )
        if one.keys() != labels.keys():
            self.wrong("the pictures of both parts", len(one), len(labels))
        self.in_pytorch(name, spec, weights, source[0] == "--csv", one, ten)

    def in_pytorch(self, name: str, spec: Spec, weights: Path, several: bool, one: dict, ten: dict) -> None:
        self.densenet("convert", weights, weights.with_suffix(".pth"))
        model = DenseNet(spec)
        model.load_state_dict(torch.load(weights.with_suffix(".pth"), weights_only=True))
        model.eval()
        numbers = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
        resize = v2.Resize(RESIZED, v2.InterpolationMode.BILINEAR)
        crops = {"one crop": (one, v2.CenterCrop(SIDE)), "ten crops": (ten, v2.TenCrop(SIDE))}
        for what, (found, crop) in crops.items():
            # Of pictures that are not resized, and of the others.
            worst = [0.0, 0.0]
            for path, row in found.items():
                picture = Image.open(self.folder / "pictures" / path).convert("RGB")
                shown = crop(resize(picture))
                views = shown if isinstance(shown, (tuple, list)) else [shown]
                with torch.no_grad():
                    logits = model(torch.stack([numbers(view) for view in views])).mean(0)
                truth = torch.sigmoid(logits) if several else torch.softmax(logits, 0)
                difference = np.abs(truth.numpy() - row).max()
                kind = int(min(picture.size) != RESIZED)
                worst[kind] = max(worst[kind], difference)
            print(
                f"{name}, {what}: probabilities are PyTorch's to {worst[0]:.1e}, of pictures that are resized "
                f"to {worst[1]:.1e}"
            )
            if worst[0] > 1e-4 or worst[1] > 2e-3:
                self.wrong(what, worst, "within 1e-4 and 2e-3")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/densenet")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    modules = (sklearn, torch, torchvision)
    print(", ".join(f"{module.__name__} {module.__version__}" for module in modules))
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        check = Check(options.program.resolve(), folder)
        labels = draw(folder / "pictures", 400, 5)
        table = ["--csv", "labels.csv", "--root", "pictures"]
        grouped = ["--group", "patient", "--epochs", "6", "--best-by", "auroc"]
        check.network("several classes", [*table, "--labels", ",".join(CLASSES)], labels, CLASSES, grouped)
        numbers = {path: SHAPES.index(Path(path).parent.name) for path in labels}
        check.network("one class", ["--data", "pictures"], numbers, SHAPES, ["--epochs", "4"])
    print("all agree" if check.agree else "NOT ALL AGREE")
    sys.exit(not check.agree)
