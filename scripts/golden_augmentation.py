"""Makes densenet-runtime/tests/data/golden/augmented.bin: what torchvision.transforms.v2.functional makes of
three pictures, and augmentations.csv: the strengths of TrivialAugmentWide's and RandAugment's operations,
mixed.json: what MixUp and CutMix make of batches, and erased.json: the rectangles that RandomErasing draws.

Run from the root of the repository with torch, torchvision, numpy and Pillow installed:
    python scripts/golden_augmentation.py
Made with torchvision 0.29.2.
"""

import json
import math
import struct
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

GOLDEN = Path("densenet-runtime/tests/data/golden")


def operations(fill):
    for factor in (0.0, 0.3, 1.0, 1.7):
        for name, adjust in {
            "brightness": F.adjust_brightness,
            "contrast": F.adjust_contrast,
            "saturation": F.adjust_saturation,
            "sharpness": F.adjust_sharpness,
        }.items():
            yield f"{name} {factor}", lambda image, adjust=adjust, factor=factor: adjust(image, factor)
    for by in (-0.5, -0.1, 0.04, 0.3):
        yield f"hue {by}", lambda image, by=by: F.adjust_hue(image, by)
    for bits in (1, 4, 8):
        yield f"posterize {bits}", lambda image, bits=bits: F.posterize(image, bits)
    for share in (0.0, 0.3, 1.0):
        yield f"solarize {share}", lambda image, share=share: F.solarize(
            image, share * (1.0 if image.is_floating_point() else 255)
        )
    yield "autocontrast", F.autocontrast
    yield "equalize", F.equalize
    for mode in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR):
        for angle in (-100.0, 13.0, 90.0):
            yield f"rotate {mode.value} {angle}", lambda image, mode=mode, angle=angle: F.rotate(
                image, angle, mode, fill=fill(image)
            )
        for angle, right, down, scale, shear_x, shear_y in (
            (0.0, 3, -2, 1.0, 0.0, 0.0),
            (20.0, 2, 1, 0.8, 0.0, 0.0),
            (-35.0, 0, 4, 1.3, 12.0, 0.0),
            (5.0, -1, 0, 1.1, -20.0, 9.0),
        ):
            yield (
                f"affine {mode.value} {angle} {right} {down} {scale} {shear_x} {shear_y}",
                lambda image, mode=mode, of=(angle, [right, down], scale, [shear_x, shear_y]): F.affine(
                    image, *of, interpolation=mode, fill=fill(image)
                ),
            )
        for tangent in (-0.4, 0.9):
            yield f"shear {mode.value} {tangent}", lambda image, mode=mode, tangent=tangent: F.affine(
                image,
                0.0,
                [0, 0],
                1.0,
                [math.degrees(math.atan(tangent)), 0.0],
                interpolation=mode,
                fill=fill(image),
                center=[0, 0],
            )


def part(contents: bytes) -> bytes:
    return struct.pack("<I", len(contents)) + contents


def augmented() -> None:
    """A record is an operation after its length; width, height, channels; and the samples before and
    after it, each after their length. Samples are bytes, or floats whose operation ends in "floats".
    What comes in from outside is 0.25 of white, rounded for bytes."""
    picture = Image.open(GOLDEN / "small.png")
    records = b""
    for image in (picture, picture.convert("L"), picture.crop((3, 4, 20, 15))):
        samples = np.atleast_3d(np.asarray(image))
        tensor = torch.from_numpy(samples.copy()).permute(2, 0, 1)
        height, width, channels = samples.shape
        for is_float in (False, True):
            of = tensor.float() / 255 if is_float else tensor
            fill = lambda image: [0.25 if image.is_floating_point() else 64.0] * channels
            for name, operation in operations(fill):
                made = operation(of.clone()).permute(1, 2, 0).contiguous().numpy()
                before = of.permute(1, 2, 0).contiguous().numpy()
                if is_float:
                    name, made, before = name + " floats", made.astype("<f4"), before.astype("<f4")
                records += part(name.encode()) + struct.pack("<III", width, height, channels)
                records += part(before.tobytes()) + part(made.tobytes())
    (GOLDEN / "augmented.bin").write_bytes(zlib.compress(records, 9))


def strengths() -> None:
    """Which policy, operation, strength of 31, and its magnitude at 224 x 160, and whether it is
    signed."""
    names = {"Color": "Colour"}
    with open(GOLDEN / "augmentations.csv", "w") as file:
        for policy in (v2.TrivialAugmentWide(), v2.RandAugment()):
            for name, (magnitudes, signed) in policy._AUGMENTATION_SPACE.items():
                values = magnitudes(31, 160, 224)
                for strength in (0, 1, 9, 15, 22, 30):
                    value = 0.0 if values is None else float(values[strength])
                    kind = type(policy).__name__
                    print(kind, names.get(name, name), strength, value, int(signed), sep=",", file=file)


def mixed() -> None:
    """Batches of 3 images of 2 x 5 x 6 in [0, 1], of 4 classes: what mixup (without `at`) and cutmix (with the
    rectangle's centre) make of them for given shares."""
    cases = []
    rng = np.random.default_rng(1)
    for share, at in [
        *((share, None) for share in (0.0, 0.3, 1.0)),
        *((share, at) for share in (0.0, 0.4, 0.75, 1.0) for at in ((0, 0), (3, 2), (5, 4))),
    ]:
        images = torch.from_numpy(rng.random((3, 2, 5, 6), np.float32))
        labels = torch.from_numpy(rng.integers(0, 4, 3))
        mix = (v2.MixUp if at is None else v2.CutMix)(num_classes=4)
        mix._dist = mock.Mock(sample=lambda size, share=share: torch.tensor([share]))
        points = iter(at or ())
        with mock.patch("torch.randint", lambda most, size: torch.tensor([next(points)])):
            made, targets = mix(images, labels)

        def flat(images):
            return images.permute(0, 2, 3, 1).flatten().tolist()

        case = {"share": share, "at": at, "images": flat(images), "labels": labels.tolist()}
        cases.append(case | {"mixed": flat(made), "targets": targets.flatten().tolist()})
    (GOLDEN / "mixed.json").write_text(json.dumps(cases))


def erased() -> None:
    """For images of some sizes, how often RandomErasing finds no rectangle, and of 20,000 that it finds the
    quantiles 0.05, 0.15, .. of width, height, and of where each lies among its places, from 0 to 1."""
    torch.manual_seed(1)
    cases = []
    for height, width in ((160, 224), (96, 64)):
        transform, image = v2.RandomErasing(p=1.0), torch.zeros(3, height, width)
        found, draws = [], 0
        while len(found) < 20_000:
            drawn = transform.make_params([image])
            draws += 1
            if drawn["v"] is not None:
                top, left, high, wide = (drawn[key] for key in "ijhw")
                found.append((wide, high, left / max(width - wide, 1), top / max(height - high, 1)))
        quantiles = np.quantile(np.array(found), np.arange(0.05, 1, 0.1), axis=0).T
        case = {"width": width, "height": height, "none": 1 - len(found) / draws}
        cases.append(case | {"quantiles": [[round(value, 3) for value in row] for row in quantiles.tolist()]})
    (GOLDEN / "erased.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    erased()
    mixed()
    augmented()
    strengths()
