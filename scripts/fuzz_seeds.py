"""Makes tests/fuzz/seeds: small valid files for the fuzzers to start from.

Run from the root of the repository with numpy, scipy, Pillow, pydicom and tifffile installed:
    cargo build -p densenet-tests --example soaked && python scripts/fuzz_seeds.py
Golden files that are seeds, too, are linked.
Made with scipy 1.17.1 and Pillow 13.0.0.
"""

import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from golden_formats import dicoms
from scipy.io import savemat

SEEDS = Path("tests/fuzz/seeds")
GOLDEN = "densenet-runtime/tests/data/golden"
PROGRAM = Path(sys.argv[1] if len(sys.argv) > 1 else "target/debug/examples/soaked")


def write(parser: str, name: str, contents: bytes | str) -> None:
    path = SEEDS / parser / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents.encode() if isinstance(contents, str) else contents)


def link(parser: str, name: str, to: str) -> None:
    """Links a file or folder, given from the root on."""
    path = SEEDS / parser / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(to, path.parent))


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], notes=None) -> bytes:
    header, data = ({"__metadata__": notes} if notes else {}), b""
    for name, (kind, shape, values) in tensors.items():
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        data += values
    header = json.dumps(header, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def run() -> None:
    """A checkpoint and metrics of a run, and its weights as others write them."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PROGRAM, folder, "1", "2"], check=True, capture_output=True)
        checkpoint = (Path(folder) / "checkpoint.safetensors").read_bytes()
        metrics = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    write("checkpoint", "run.safetensors", checkpoint)
    link("safetensors", "run.safetensors", "tests/fuzz/seeds/checkpoint/run.safetensors")
    (length,) = struct.unpack("<Q", checkpoint[:8])
    header = json.loads(checkpoint[8 : 8 + length])
    data = checkpoint[8 + length :]
    note = json.loads(header.pop("__metadata__")["densenet"])
    weights = {
        name: (info["dtype"], info["shape"], data[slice(*info["data_offsets"])])
        for name, info in header.items()
        if not name.startswith("momentum.")
    }
    write("safetensors", "torchvision.safetensors", safetensors(weights, {"format": "pt"}))
    halves = {
        f"module.{name}": ("BF16", shape, values_in_bf16(values))
        for name, (_, shape, values) in weights.items()
    }
    counter = ("I64", [], struct.pack("<q", 7))
    write("safetensors", "averaged.safetensors", safetensors({"n_averaged": counter, **halves}))

    # As after `Trainer::resume_with_schedule`.
    schedule = note["config"]["schedule"]
    rescheduled = {
        "step": 12,
        "epochs": 3,
        "schedule": schedule,
        "epochs_before": 2,
        "schedule_before": schedule,
    }
    few = [*metrics[8:12], json.dumps(rescheduled), *metrics[12:16]]
    write("metrics", "run.jsonl", "".join(f"{line}\n" for line in few))
    write("metrics", "killed.jsonl", "\n".join([metrics[-1], metrics[0]])[:-9])
    diverged = json.loads(metrics[-1]) | {"val_loss": None}
    write("metrics", "diverged.jsonl", json.dumps(diverged) + "\n")
    link("curves", "metrics", "tests/fuzz/seeds/metrics")


def torch() -> None:
    link("torch", "golden", "densenet-runtime/tests/pytorch/containers")
    network = "densenet-runtime/tests/pytorch/networks/torchvision_2017.pth"
    link("torch", "network.pth", network)


def values_in_bf16(values: bytes) -> bytes:
    """The upper halves of f32."""
    return np.frombuffer(values, "<u2")[1::2].tobytes()


def sets() -> None:
    images = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 2, 3) + bytes(range(12))
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes([3, 9])
    write("idx", "images-idx3-ubyte", images)
    write("idx", "labels-idx1-ubyte", labels)
    write("idx", "images-idx3-ubyte.gz", gzip.compress(images, mtime=0))
    members = gzip.compress(labels[:5], mtime=0) + gzip.compress(labels[5:], mtime=0)
    write("idx", "labels-idx1-ubyte.gz", members)
    named = io.BytesIO()
    with gzip.GzipFile("labels", "wb", fileobj=named, mtime=1) as file:
        file.write(labels)
    write("idx", "named.gz", named.getvalue())

    pixels = np.arange(3072) % 251
    record = pixels.astype(np.uint8).tobytes()
    write("cifar", "data_batch.bin", bytes([1]) + record)
    write("cifar", "train.bin", bytes([0, 1]) + record)
    write("cifar", "batches.meta.txt", "airplane\nautomobile\n\n")

    images = np.resize(np.arange(7, dtype=np.uint8), (32, 32, 3, 2))
    for name, labels, compressed in [
        ("int64.mat", np.array([[1], [10]], np.int64), True),
        ("bytes.mat", np.array([[1], [10]], np.uint8), True),
        ("plain.mat", np.array([[1.0], [10.0]]), False),
    ]:
        file = io.BytesIO()
        other = {"note": "of no interest", "X": images, "y": labels}
        savemat(file, other, do_compression=compressed)
        # The time of day is in the text at its start.
        text = b"MATLAB 5.0 MAT-file".ljust(116)
        write("mat", name, text + file.getvalue()[116:])
    link("mat", "golden.mat", f"{GOLDEN}/svhn_bytes.mat")


def pictures() -> None:
    y, x = np.mgrid[0:20, 0:24]
    pixels = np.stack([x * 10, y * 12, (x + y) * 5], -1).astype(np.uint8)
    picture = Image.fromarray(pixels)
    options = {
        "restarts.jpg": {"subsampling": 2, "restart_marker_blocks": 1},
        "progressive.jpg": {"subsampling": 1, "progressive": True, "restart_marker_rows": 1},
    }
    for name, how in options.items():
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=60, **how)
        write("picture", name, file.getvalue())
    file = io.BytesIO()
    picture.quantize(4).save(file, "png", bits=2, transparency=1)
    write("picture", "two_bits.png", file.getvalue())
    few = picture.resize((6, 5)).quantize(4)
    others = {
        "few.gif": (few, {"interlace": 1}),
        "few.bmp": (few, {}),
        "few.tif": (few, {"compression": "tiff_lzw"}),
        "rgb.tif": (picture.resize((6, 5)), {"compression": "tiff_adobe_deflate"}),
        "rgb.bmp": (picture.resize((6, 5)), {}),
        "rgb.ppm": (picture.resize((6, 5)), {}),
        "bits.pbm": (picture.resize((9, 5)).convert("1"), {}),
        "lossy.webp": (picture, {"quality": 40}),
        "lossless.webp": (picture, {"lossless": True}),
    }
    for name, (image, how) in others.items():
        file = io.BytesIO()
        kinds = {"tif": "tiff", "pbm": "ppm"}
        kind = name.split(".")[1]
        image.save(file, kinds.get(kind, kind), **how)
        write("picture", name, file.getvalue())
    deep = (np.arange(12, dtype=np.uint16) * 5461).reshape(3, 4)
    for name, kind in {"deep.png": "png", "deep.tif": "tiff"}.items():
        file = io.BytesIO()
        Image.fromarray(deep).save(file, kind)
        write("picture", name, file.getvalue())
    floats = io.BytesIO()
    Image.fromarray(deep.astype(np.float32) / 65535).save(floats, "tiff")
    write("picture", "floats.tif", floats.getvalue())
    write("picture", "deep.pgm", b"P5 4 3 4095\n" + np.minimum(deep, 4095).astype(">u2").tobytes())
    write("picture", "text.ppm", b"P3\n# a comment\n1 2 7\n0 1 2 3 4 7")
    for name, file, _, _ in dicoms():
        if name in ("dicom plain", "dicom rescaled"):
            write("picture", name.split()[1] + ".dcm", file)
    link("picture", "golden", f"{GOLDEN}/formats")


def tables() -> None:
    columns = "\ufeffpath,cat,\"big dog\"\r\na/1.png,1,0\r\n\r\nb.png,,0.5\r\n\"c,d.png\",nan,-1\r\n"
    write("table", "columns", columns)
    write("table", "one_hot", "image,MEL,NV\nISIC_1,0.0,1.0\nISIC_2,1.0,0.0\n")
    write("table", "name", "filename,label,age\n1.png,cat,3\n2.png,dog,\n")
    write("table", "names", "Image Index,Finding Labels\n1.png,Mass|Edema\n2.png,Edema\n3.png,\n")
    write("table", "tabs", "Path\tbreed\na b.png\tpug\n")
    write("table", "split", "path,set\n0,train\n1,val\n2,train\n")
    write("table", "list", "cats/1.jpg cat\ndogs/2.jpg\tbig dog\n")


def specs() -> None:
    write("spec", "bare", "blocks: [6, 12, 48, 32], k: 32")
    write(
        "spec",
        "every_key",
        """/// The paper's DenseNet-201.
#[densenet(crate = my::runtime)]
pub DenseNet201 {
    blocks: [6, 12, 4], k: [32, 32, 48], theta: 0.5, bottleneck: 2, stem: imagenet, init: 64,
    input: [3, 224, 224], classes: 1000, dropout: 0.2, memory: 24 GiB at 64,
}
""",
    )
    write("spec", "named", 'Pets { blocks: [2, 2], k: 4, classes: ["cat", "dog"] }')
    write("spec", "mistakes", "pub struct A { blocks: [0], grow: 3, k: 2 theta: 1.5, k: 2, stem = x }")
    write("spec", "over_budget", "A { blocks: [2, 2], k: 4, bottleneck, memory: 1 KiB at 8 }")
    write("spec", "too_small", "blocks: [1, 1, 1, 1], k: 4, input: [3, 24, 24]")


shutil.rmtree(SEEDS, ignore_errors=True)
run()
torch()
sets()
pictures()
tables()
specs()
