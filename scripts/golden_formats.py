"""Makes densenet-runtime/tests/data/golden/formats.bin, deep.bin and dicom.bin: WebP, TIFF, BMP, PNM and GIF files and
what Pillow makes of them, and files of more than 8 bits a sample with the samples that they were made of.

Run from the root of the repository with numpy, Pillow, pydicom and tifffile installed:
    python scripts/golden_formats.py
Made with Pillow 13.0.0, pydicom 3.0.2 and tifffile 2026.3.3.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pydicom import Dataset, Sequence, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

GOLDEN = Path("densenet-runtime/tests/data/golden")


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smooth waves with some grain."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 5 + y / 9), np.sin(x / 3 - y / 6), np.cos((x + y) / 4)]
    grain = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    pixels = 127 + 110 * np.stack(waves, -1) + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned_over(rows: np.ndarray) -> bytes:
    """Rows from the last to the first, each filled up to 4 bytes."""
    return b"".join(row.tobytes() + bytes(-row.size % 4) for row in rows[::-1])


def bmp(width, height, bits, compression, data, colours=b"", masks=b"", size=40) -> bytes:
    if size == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        count = len(colours) // 4
        info = struct.pack(
            "<IiiHHIIiiII", size, width, height, 1, bits, compression, len(data), 0, 0, count, 0
        )
        info += masks.ljust(size - 40, b"\0") if size > 40 else b""
    rest = info + (masks if size == 40 else b"") + colours
    return b"BM" + struct.pack("<IHHI", 14 + len(rest) + len(data), 0, 0, 14 + len(rest)) + rest + data


def bmps():
    rng = np.random.default_rng(1)
    for width, height in ((13, 9), (8, 3), (1, 1)):
        image = picture(width, height, 2)
        size = f"{width}x{height}"
        for mode, of in {
            "RGB": image,
            "L": image.convert("L"),
            "1": image.convert("1"),
            "P": image.quantize(16),
            "RGBA": image.convert("RGBA"),
        }.items():
            yield f"bmp {mode} {size}", saved(of, "bmp"), 0
        wide = rng.integers(0, 1 << 15, (height, width)).astype("<u2")
        rows = wide.view(np.uint8).reshape(height, -1)
        yield f"bmp of 16 bits {size}", bmp(width, height, 16, 0, turned_over(rows)), 0
        masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
        yield f"bmp 565 {size}", bmp(width, height, 16, 3, turned_over(rows), masks=masks), 0
        long = rng.integers(0, 256, (height, 4 * width)).astype(np.uint8)
        masks = struct.pack("<IIII", 0xFF000000, 0xFF0000, 0xFF00, 0xFF)
        yield f"bmp of fields {size}", bmp(
            width, height, 32, 3, turned_over(long), masks=masks, size=56
        ), 0
        top = b"".join(row.tobytes() + bytes(-row.size % 4) for row in np.asarray(image)[..., ::-1].reshape(height, -1))
        yield f"bmp top down {size}", bmp(width, -height, 24, 0, top), 0
    few = rng.integers(0, 256, (4, 4)).astype(np.uint8)
    few[:, 3] = 0
    old = few[:, :3].tobytes()
    yield "bmp of OS/2", bmp(5, 3, 4, 0, bytes([0x01, 0x23, 0, 0] * 3), colours=old * 4, size=12), 0
    yield "bmp of 4 bits", bmp(5, 3, 4, 0, bytes([0x01, 0x23, 0x30, 0] * 3), colours=few.tobytes()), 0
    runs = [3, 1, 2, 0, 0, 0, 0, 5, 0, 1, 2, 3, 0, 0, 0, 0, 1, 1, 0, 2, 2, 0, 2, 3, 0, 0, 5, 2, 0, 1]
    yield "bmp of run lengths", bmp(5, 4, 8, 1, bytes(runs), colours=few.tobytes()), 0
    halves = bytes([5, 0x12, 0, 0, 0, 5, 0x01, 0x23, 0x10, 0, 0, 0, 5, 0x31, 0, 0, 0, 1])
    yield "bmp of run lengths of 4 bits", bmp(5, 3, 4, 2, halves, colours=few.tobytes()), 0


def pnms():
    rng = np.random.default_rng(2)
    for width, height in ((13, 9), (1, 1), (8, 2)):
        size = f"{width}x{height}"
        image = picture(width, height, 3)
        for mode, of in {"RGB": image, "L": image.convert("L"), "1": image.convert("1")}.items():
            yield f"pnm {mode} {size}", saved(of, "ppm"), 0
        for most in (1, 3, 100, 255):
            grey = rng.integers(0, most + 1, (height, width))
            colour = rng.integers(0, most + 1, (height, width, 3))
            head = f"{width} {height}\n# of {most}\n{most}\n".encode()
            yield f"P5 of {most} {size}", b"P5\n" + head + grey.astype(np.uint8).tobytes(), 0
            yield f"P6 of {most} {size}", b"P6 " + head + colour.astype(np.uint8).tobytes(), 0
            text = "\n".join(" ".join(map(str, row)) for row in grey)
            yield f"P2 of {most} {size}", b"P2\n#a\n#b\n" + head + text.encode(), 0
            text = " ".join(map(str, colour.ravel()))
            yield f"P3 of {most} {size}", b"P3\n" + head + text.encode(), 0
        bits = rng.integers(0, 2, (height, width))
        for between in ("", " "):
            text = "\n".join(between.join(map(str, row)) for row in bits)
            yield f"P1 with {between!r} {size}", f"P1\n{width} {height}\n{text}\n".encode(), 0


def gifs():
    image = picture(23, 17, 4)
    for colours in (2, 5, 16, 256):
        yield f"gif of {colours}", saved(image.quantize(colours), "gif"), 0
    yield "gif interlaced", saved(image.quantize(9), "gif", interlace=1), 0
    yield "gif in grey", saved(image.convert("L"), "gif"), 0
    yield "gif transparent", saved(image.quantize(9), "gif", transparency=3), 0
    frames = [picture(23, 17, seed).quantize(8) for seed in (5, 6)]
    yield "gif of two frames", saved(frames[0], "gif", save_all=True, append_images=frames[1:]), 0
    # A frame that does not cover the screen, one that leaves it, and no palette of its own.
    whole = saved(image.quantize(4), "gif", interlace=0)
    at = whole.index(b"\x2c", 13 + 12)
    for name, screen, place in (
        ("smaller than its screen", (40, 30), (5, 7)),
        ("beyond its screen", (10, 10), (3, 2)),
    ):
        file = bytearray(whole)
        file[6:10] = struct.pack("<HH", *screen)
        file[at + 1 : at + 5] = struct.pack("<HH", *place)
        yield f"gif {name}", bytes(file), 0


def webps():
    for width, height in ((40, 30), (17, 33), (1, 1), (2, 3)):
        image = picture(width, height, 7)
        size = f"{width}x{height}"
        transparent = image.copy()
        transparent.putalpha(Image.linear_gradient("L").resize(image.size))
        yield f"webp lossless {size}", saved(image, "webp", lossless=True), 0
        yield f"webp lossless with alpha {size}", saved(transparent, "webp", lossless=True), 0
        for quality in (30, 90):
            yield f"webp {quality} {size}", saved(image, "webp", quality=quality), 1
            yield f"webp {quality} with alpha {size}", saved(transparent, "webp", quality=quality), 1
    few = picture(40, 30, 7).quantize(4).convert("RGB")
    yield "webp of few colours", saved(few, "webp", lossless=True), 0
    frames = [picture(30, 20, seed) for seed in (8, 9)]
    yield "webp of two frames", saved(
        frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True
    ), 0


def tiffs():
    image = picture(23, 17, 10)
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    modes = {
        "RGB": image,
        "L": image.convert("L"),
        "1": image.convert("1"),
        "P": image.quantize(16),
        "RGBA": alpha,
        "LA": alpha.convert("LA"),
        "CMYK": image.convert("CMYK"),
    }
    for mode, of in modes.items():
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            yield f"tiff {mode} {compression}", saved(of, "tiff", compression=compression), 0
    pixels = np.asarray(image)
    for order in "<>":
        for name, options in {
            "plain": {},
            "tiled": {"tile": (16, 16)},
            "in planes": {"planarconfig": "separate"},
            "predicted": {"predictor": True, "compression": "zlib"},
            "in strips": {"rowsperstrip": 5},
            "big": {"bigtiff": True},
        }.items():
            if order == ">" and name == "big":
                continue  # Pillow does not know it.
            of = pixels.transpose(2, 0, 1) if name == "in planes" else pixels
            file = io.BytesIO()
            tifffile.imwrite(file, of, photometric="rgb", byteorder=order, metadata=None, **options)
            yield f"tiff {order} {name}", file.getvalue(), 0
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(image.convert("L")), photometric="miniswhite", metadata=None)
    yield "tiff white is zero", file.getvalue(), 0


def deep_tiff(samples, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


def deep():
    """Files, the samples in them, and their range."""
    rng = np.random.default_rng(11)
    grey = rng.integers(0, 1 << 16, (9, 13)).astype(np.uint16)
    colour = rng.integers(0, 1 << 16, (9, 13, 3)).astype(np.uint16)
    yield "png 16 grey", saved(Image.fromarray(grey), "png"), grey, 65535
    for kind, samples in ((0, grey[..., None]), (2, colour)):
        for interlaced in (0, 1):
            yield f"png of kind {kind}, interlaced {interlaced}", png(samples, kind, interlaced), samples, 65535
    alpha = np.concatenate([colour, grey[..., None]], -1)
    yield "png 16 with alpha", png(alpha, 6, 0), colour, 65535
    yield "png 16 grey with alpha", png(alpha[..., :2], 4, 0), alpha[..., :1], 65535
    for order in "<>":
        for name, options in {
            "plain": {},
            "tiled": {"tile": (16, 16)},
            "predicted": {"predictor": 2, "compression": "zlib"},
        }.items():
            yield f"tiff 16 grey {order} {name}", deep_tiff(grey, byteorder=order, **options), grey, 65535
            yield f"tiff 16 {order} {name}", deep_tiff(
                colour, photometric="rgb", byteorder=order, **options
            ), colour, 65535
            floats = rng.random((9, 13), np.float32)
            if name != "predicted":
                yield f"tiff of floats {order} {name}", deep_tiff(
                    floats, byteorder=order, **options
                ), floats, 1
    planes = colour.transpose(2, 0, 1)
    yield "tiff 16 in planes", deep_tiff(planes, photometric="rgb", planarconfig="separate"), colour, 65535
    for most in (1000, 4095, 65535):
        values = np.minimum(grey, most)
        head = f"13 9 {most}\n".encode()
        yield f"P5 of {most}", b"P5 " + head + values.astype(">u2").tobytes(), values, most
        text = " ".join(map(str, np.minimum(colour, most).ravel())).encode()
        yield f"P3 of {most}", b"P3 " + head + text, np.minimum(colour, most), most
        values = np.minimum(colour, most)
        yield f"P6 of {most}", b"P6 " + head + values.astype(">u2").tobytes(), values, most


def png(samples: np.ndarray, kind: int, interlaced: int) -> bytes:
    from golden_pictures import adam7, chunk, header, packed

    height, width = samples.shape[:2]
    rows = (adam7 if interlaced else packed)(samples, 16)
    file = header(width, height, 16, kind, interlaced)
    return file + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def dicoms():
    """DICOM files of 13 x 9, and the shares of white that pydicom shows their pixels as."""
    rng = np.random.default_rng(12)
    for name, syntax, allocated, stored, signed, photometric, more in (
        ("plain", ExplicitVRLittleEndian, 16, 12, 0, "MONOCHROME2", {}),
        ("implicit", ImplicitVRLittleEndian, 16, 16, 0, "MONOCHROME2", {}),
        ("of bytes", ExplicitVRLittleEndian, 8, 8, 0, "MONOCHROME2", {}),
        ("inverted", ExplicitVRLittleEndian, 16, 12, 0, "MONOCHROME1", {}),
        ("rescaled", ImplicitVRLittleEndian, 16, 12, 1, "MONOCHROME2", {"RescaleSlope": 2.5, "RescaleIntercept": -1024}),
        ("window", ExplicitVRLittleEndian, 16, 12, 0, "MONOCHROME2", {"WindowCenter": [1500, 40], "WindowWidth": [2000, 400]}),
        ("window of inverted", ExplicitVRLittleEndian, 16, 12, 0, "MONOCHROME1", {"WindowCenter": 900, "WindowWidth": 700.5}),
        ("window of rescaled", ImplicitVRLittleEndian, 16, 16, 1, "MONOCHROME2", {"RescaleSlope": 0.5, "RescaleIntercept": -10, "WindowCenter": 50, "WindowWidth": 9000}),
        ("exact window", ExplicitVRLittleEndian, 16, 12, 0, "MONOCHROME2", {"WindowCenter": 1500, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}),
    ):
        low, high = (-(1 << stored - 1), (1 << stored - 1)) if signed else (0, 1 << stored)
        kind = f"{'i' if signed else 'u'}{allocated // 8}"
        pixels = rng.integers(low, high, (9, 13)).astype(kind)
        of = Dataset()
        of.file_meta = FileMetaDataset()
        of.file_meta.TransferSyntaxUID = syntax
        of.file_meta.MediaStorageSOPClassUID = of.SOPClassUID = SecondaryCaptureImageStorage
        of.file_meta.MediaStorageSOPInstanceUID = of.SOPInstanceUID = "1.2.3.4"
        of.PatientName = "Nobody"
        inner = Dataset()
        inner.Rows = 7
        of.ReferencedImageSequence = Sequence([inner, inner])
        of["ReferencedImageSequence"].is_undefined_length = name != "implicit"
        of.SamplesPerPixel, of.PhotometricInterpretation = 1, photometric
        of.NumberOfFrames = 1
        of.Rows, of.Columns = pixels.shape
        of.BitsAllocated, of.BitsStored, of.HighBit = allocated, stored, stored - 1
        of.PixelRepresentation = signed
        for key, value in more.items():
            setattr(of, key, value)
        of.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
        of["PixelData"].VR = "OB" if allocated == 8 else "OW"
        file = io.BytesIO()
        of.save_as(file, enforce_file_format=True)
        again = dcmread(io.BytesIO(file.getvalue()))
        values = apply_modality_lut(again.pixel_array, again).astype(float)
        slope, intercept = more.get("RescaleSlope", 1), more.get("RescaleIntercept", 0)
        ends = [slope * end + intercept for end in (low, high - 1)]
        if "WindowCenter" in more:
            values = apply_windowing(apply_modality_lut(again.pixel_array, again), again)
        shares = (values - ends[0]) / (ends[1] - ends[0])
        shares = 1 - shares if photometric == "MONOCHROME1" else shares
        yield f"dicom {name}", file.getvalue(), shares.astype(np.float32), 1


def part(contents: bytes) -> bytes:
    return struct.pack("<I", len(contents)) + contents


def write() -> None:
    """A record is a name and a file, each after its length, width and height, by how much samples may
    differ, and the pixels in RGB after their length."""
    records = b""
    for kind in (bmps, pnms, gifs, webps, tiffs):
        for name, file, tolerance in kind():
            image = Image.open(io.BytesIO(file)).convert("RGB")
            records += part(name.encode()) + part(file)
            records += struct.pack("<III", *image.size, tolerance) + part(image.tobytes())
    (GOLDEN / "formats.bin").write_bytes(zlib.compress(records, 9))
    # The same, with channels instead of what may differ, the top of the range, and floats.
    records = b""
    for name, file, samples, most in deep():
        samples = samples.reshape(9, 13, -1).astype("<f4")
        records += part(name.encode()) + part(file)
        records += struct.pack("<IIIf", 13, 9, samples.shape[2], most) + part(samples.tobytes())
    (GOLDEN / "deep.bin").write_bytes(zlib.compress(records, 9))
    records = b""
    for name, file, shares, _ in dicoms():
        records += part(name.encode()) + part(file) + part(shares.astype("<f4").tobytes())
    (GOLDEN / "dicom.bin").write_bytes(zlib.compress(records, 9))


if __name__ == "__main__":
    write()
