"""Makes densenet-runtime/tests/data/golden: what torchvision and Pillow make of some pictures.

Run from the root of the repository with torch, torchvision, numpy, scipy and Pillow installed:
    python scripts/golden_data.py
Made with torchvision 0.24.1, scipy 1.17.1 and Pillow 13.0.0.
"""

import csv
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.transforms import v2
from torchvision.transforms import RandomResizedCrop

GOLDEN = Path("densenet-runtime/tests/data/golden")


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smooth waves with some grain, so that resizing and JPEG have something to do."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x / 5.0 + y / 9.0) + np.sin(y / 4.0),
        np.sin(x / 7.0 - y / 6.0) + np.cos(x / 3.0),
        np.cos(x / 11.0) + np.sin((x + y) / 4.0),
    ]
    grain = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    pixels = 127 + 55 * np.stack(waves, axis=-1) + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def crops() -> None:
    """Sizes of random-resized-crops for given uniform numbers; one that does not fit ten times
    shows the fallback."""
    rng = np.random.default_rng(1)
    rows = []
    shapes = [(500, 375), (375, 500), (256, 256), (1000, 90), (60, 700), (33, 31), (2, 2)]
    for width, height in shapes:
        image = Image.new("RGB", (width, height))
        for area, aspect in [*rng.random((12, 2)), (0.9999, 0.9999), (0.9999, 0.0001)]:
            numbers = iter([area, aspect] * 10)

            class Uniform:
                def uniform_(self, low, high):
                    return torch.tensor(
                        [float(low) + (float(high) - float(low)) * next(numbers)],
                        dtype=torch.float64,
                    )

            with mock.patch("torch.empty", lambda _: Uniform()), mock.patch(
                "torch.randint", lambda low, high, size: torch.tensor([high - 1])
            ):
                top, left, h, w = RandomResizedCrop.get_params(
                    image, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)
                )
            is_fallback = len(list(numbers)) == 0
            rows.append([width, height, area, aspect, left, top, w, h, int(is_fallback)])
    with open(GOLDEN / "crops.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("width height area aspect left top w h fallback".split())
        writer.writerows(rows)


def views() -> None:
    """Evaluation and resizing at 32 pixels: the short side becomes 36, 32 / 0.875 rounded down; and with
    bicubic interpolation and timm's `crop_pct` of 0.95 at 33, where it becomes 34."""
    for name, size in [("wide", (90, 61)), ("tall", (40, 77)), ("small", (29, 23))]:
        image = picture(*size, seed=2)
        image.save(GOLDEN / f"{name}.png")
        resized = v2.Resize(36)(image)
        v2.CenterCrop(32)(resized).save(GOLDEN / f"{name}.centre.png")
        v2.Resize((32, 32))(image).save(GOLDEN / f"{name}.whole.png")
        image.convert("L").save(GOLDEN / f"{name}.grey.png")
        bicubic = v2.Resize(34, v2.InterpolationMode.BICUBIC)(image)
        v2.CenterCrop(33)(bicubic).save(GOLDEN / f"{name}.bicubic.png")
        ten = [np.asarray(view) for view in v2.TenCrop(32)(resized)]
        Image.fromarray(np.concatenate(ten)).save(GOLDEN / f"{name}.ten.png")


def formats() -> None:
    """Files of every pixel type, and what Pillow's convert("RGB") makes of them."""
    image = picture(24, 20, seed=3)
    alpha = Image.linear_gradient("L").resize(image.size)
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90 degrees, which nobody should do.
    transparent = image.copy()
    transparent.putalpha(alpha)
    files = {
        "rgba.png": (transparent, {}),
        "grey.png": (image.convert("L"), {}),
        "grey_alpha.png": (transparent.convert("LA"), {}),
        "palette.png": (image.quantize(16), {"transparency": 3}),
        "one_bit.png": (image.convert("1"), {}),
        "rgb.jpg": (image, {"quality": 95, "subsampling": 0}),
        "subsampled.jpg": (image, {"quality": 90, "subsampling": 2}),
        "progressive.jpg": (image, {"quality": 90, "progressive": True}),
        "grey.jpg": (image.convert("L"), {"quality": 90}),
        "cmyk.jpg": (image.convert("CMYK"), {"quality": 95}),
        "turned.jpg": (image, {"quality": 90, "exif": exif}),
    }
    folder = GOLDEN / "formats"
    folder.mkdir(exist_ok=True)
    for name, (source, options) in files.items():
        source.save(folder / name, **options)
        Image.open(folder / name).convert("RGB").save(folder / f"{name}.expected.png")
    # Sixteen bits: Pillow would clip them to eight, so the expectation is the grey picture.
    grey = np.asarray(image.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(grey).convert("RGB").save(folder / "grey16.png.expected.png")


def svhn() -> None:
    """Four images of SVHN's layout, with labels as bytes and as doubles, compressed and not, all
    of it in every other type of numbers, and one image by itself. A pixel is its row, its column or
    its image's number, by channel."""
    row, column, _, image = np.indices((32, 32, 1, 4), dtype=np.uint8)
    images = np.concatenate([row, column, 100 + image], axis=2)
    labels = np.array([[1], [10], [9], [5]])
    for name, kind, compressed in [("bytes", np.uint8, True), ("doubles", np.float64, False)]:
        variables = {"about": "not a number", "X": images, "y": labels.astype(kind)}
        file = GOLDEN / f"svhn_{name}.mat"
        savemat(file, variables, do_compression=compressed)
    for kind in "int8 int16 uint16 int32 uint32 int64 uint64 single".split():
        variables = {"X": images.astype(kind), "y": labels.astype(kind)}
        savemat(GOLDEN / f"svhn_{kind}.mat", variables, do_compression=True)
    one = {"X": images[..., 2], "y": labels[2:3]}
    savemat(GOLDEN / "svhn_one.mat", one, do_compression=True)


GOLDEN.mkdir(parents=True, exist_ok=True)
crops()
views()
formats()
svhn()
