"""Makes densenet-runtime/tests/data/golden/splits.csv: how scikit-learn divides classes.

Run from the root of the repository with scikit-learn installed. Made with scikit-learn 1.9.1.
Columns: the share of validation, the images of each class, and how many of each validate.
"""

from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

rng = np.random.default_rng(0)
lines = ["share,counts,validate"]
for case in range(30):
    counts = rng.integers(2, [20, 200, 2000][case % 3], rng.integers(2, 12))
    share = [0.1, 0.2, 0.25, 0.5, 0.3][case % 5]
    images = int(counts.sum())
    validate = max(round(share * images), len(counts))
    labels = np.repeat(np.arange(len(counts)), counts)
    if images - validate < len(counts):
        continue
    # Their share is rounded up; ours to the nearest.
    if validate != round(share * images):
        continue
    split = StratifiedShuffleSplit(1, test_size=validate, random_state=case)
    _, val = next(split.split(labels, labels))
    found = np.bincount(labels[val], minlength=len(counts))
    lines.append(f"{share},{' '.join(map(str, counts))},{' '.join(map(str, found))}")
path = Path("densenet-runtime/tests/data/golden/splits.csv")
path.write_text("\n".join(lines) + "\n")
