"""Makes densenet-runtime/tests/data/golden/jpegs.bin and pngs.bin: JPEG files of every layout of scans,
sampling, restart interval, size and colour, PNG files whole and bent, and what Pillow makes of them.

Run from the root of the repository with numpy and Pillow installed:
    python scripts/golden_pictures.py
Made with Pillow 13.0.0 (libjpeg-turbo 3.1).
"""

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path("densenet-runtime/tests/data/golden")

ZIGZAG = sorted(
    range(64),
    key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8),
)


def segment(marker: int, contents: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(contents) + 2) + contents


class Bits:
    """Collects bits, and what they are made of: (symbol, bits of it, number, bits of it)."""

    def __init__(self):
        self.bits = []

    def plain(self, number: int, length: int) -> None:
        self.bits.extend((number >> at) & 1 for at in reversed(range(length)))

    def symbol(self, symbol: int, is_dc: bool) -> None:
        # Codes of 5 bits for the first coefficient; of 9 and of 12 bits for the others.
        if is_dc:
            self.plain(symbol, 5)
        elif symbol < 128:
            self.plain(symbol, 9)
        else:
            self.plain((128 << 3) + symbol - 128, 12)

    def number(self, number: int) -> None:
        size = abs(number).bit_length()
        self.plain(number if number > 0 else number + (1 << size) - 1, size)

    def stuffed(self) -> bytes:
        bits = self.bits + [1] * (-len(self.bits) % 8)
        data = np.packbits(np.array(bits, np.uint8)).tobytes()
        self.bits = []
        return data.replace(b"\xff", b"\xff\0")


TABLES = segment(0xC4, b"\0" + bytes([0] * 4 + [16] + [0] * 11) + bytes(range(16))) + segment(
    0xC4, b"\x10" + bytes([0] * 8 + [128, 0, 0, 128] + [0] * 4) + bytes(range(256))
)


class Scan:
    """Writes the entropy-coded data of one scan."""

    def __init__(self, blocks, first, last, high, low, is_progressive):
        self.blocks, self.first, self.last = blocks, first, last
        self.high, self.low, self.is_progressive = high, low, is_progressive
        self.bits = Bits()
        self.reset()

    def reset(self):
        self.predictors = [0] * 4
        self.run, self.waiting = 0, []

    def end_run(self):
        if self.run:
            size = self.run.bit_length() - 1
            self.bits.symbol(size << 4, False)
            self.bits.plain(self.run - (1 << size), size)
            self.bits.bits.extend(self.waiting)
        self.run, self.waiting = 0, []

    def block(self, c, x, y):
        block = self.blocks[c][y, x]
        if not self.is_progressive:
            self.dc(c, int(block[0]))
            self.ac([int(value) for value in block[1:]], False)
        elif self.first == 0:
            if self.high:
                self.bits.plain(int(block[0]) >> self.low & 1, 1)
            else:
                self.dc(c, int(block[0]) >> self.low)
        else:
            band = [int(value) for value in block[self.first : self.last + 1]]
            scaled = [(abs(value) >> self.low) * (1 if value > 0 else -1) for value in band]
            if self.high:
                self.finer(scaled)
            else:
                self.ac(scaled, True)

    def dc(self, c, value):
        difference = value - self.predictors[c]
        self.predictors[c] = value
        self.bits.symbol(abs(difference).bit_length(), True)
        self.bits.number(difference)

    def ac(self, values, has_runs):
        zeros = 0
        for value in values:
            if value == 0:
                zeros += 1
                continue
            self.end_run()
            while zeros > 15:
                self.bits.symbol(0xF0, False)
                zeros -= 16
            self.bits.symbol(zeros << 4 | abs(value).bit_length(), False)
            self.bits.number(value)
            zeros = 0
        if zeros and has_runs:
            self.run += 1
            if self.run == 0x7FFF:
                self.end_run()
        elif zeros:
            self.bits.symbol(0, False)

    def finer(self, values):
        last_new = max((at for at, value in enumerate(values) if abs(value) == 1), default=-1)
        zeros, corrections = 0, []
        for at, value in enumerate(values):
            if value == 0:
                zeros += 1
                continue
            while zeros > 15 and at <= last_new:
                self.end_run()
                self.bits.symbol(0xF0, False)
                zeros -= 16
                self.bits.bits.extend(corrections)
                corrections = []
            if abs(value) > 1:
                corrections.append(abs(value) & 1)
                continue
            self.end_run()
            self.bits.symbol(zeros << 4 | 1, False)
            self.bits.plain(int(value > 0), 1)
            self.bits.bits.extend(corrections)
            zeros, corrections = 0, []
        if zeros or corrections:
            self.run += 1
            self.waiting.extend(corrections)
            if self.run == 0x7FFF or len(self.waiting) > 937:
                self.end_run()


def up(number: int, by: int) -> int:
    return -(-number // by)


def jpeg(
    size,
    sampling,
    scans,
    restart=0,
    progressive=False,
    seed=0,
    extra=b"",
    ids=(1, 2, 3, 4),
    change_tables=False,
    end=b"\xff\xd9",
) -> bytes:
    """A picture of random coefficients. `scans` have components, or (components, first and last
    coefficient, upper and lower bit)."""
    width, height = size
    rng = np.random.default_rng(seed)
    h_most, v_most = (max(side) for side in zip(*sampling))
    across, down = up(width, 8 * h_most), up(height, 8 * v_most)
    blocks = []
    for h, v in sampling:
        shape = (down * v, across * h, 64)
        block = np.round(rng.laplace(0, 1, shape) * 30 / (1 + np.arange(64)) ** 0.5).astype(int)
        block *= rng.random(shape) < 0.1
        block[..., 0] = rng.integers(-60, 60, shape[:2])
        blocks.append(block)
    quantization = bytes(6 + at // 4 for at in range(64))
    out = b"\xff\xd8" + extra + segment(0xDB, b"\0" + quantization)
    listed = b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in zip(ids, sampling))
    frame = struct.pack(">BHHB", 8, height, width, len(sampling)) + listed
    out += segment(0xC2 if progressive else 0xC0, frame) + TABLES
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    for number, scan in enumerate(scans):
        parts, first, last, high, low = scan if progressive else (scan, 0, 63, 0, 0)
        if change_tables and number:
            # The tables of later scans are not those of the first one.
            out += TABLES + (segment(0xDD, struct.pack(">H", restart)) if restart else b"")
        header = bytes([len(parts)]) + b"".join(bytes([ids[c], 0]) for c in parts)
        out += segment(0xDA, header + bytes([first, last, high << 4 | low]))
        writer = Scan(blocks, first, last, high, low, progressive)
        if len(parts) == 1:
            h, v = sampling[parts[0]]
            columns, rows = up(up(width * h, h_most), 8), up(up(height * v, v_most), 8)
        else:
            columns, rows = across, down
        for mcu, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
            if restart and mcu and mcu % restart == 0:
                writer.end_run()
                out += writer.bits.stuffed() + bytes([0xFF, 0xD0 + (mcu // restart - 1) % 8])
                writer.reset()
            for c in parts:
                h, v = sampling[c] if len(parts) > 1 else (1, 1)
                for y, x in itertools.product(range(v), range(h)):
                    writer.block(c, column * h + x, row * v + y)
        writer.end_run()
        out += writer.bits.stuffed()
    return out + end


def script(count: int) -> list:
    """Scans of a progressive picture, much as libjpeg's own."""
    everything = list(range(count))
    scans = [(everything, 0, 0, 0, 1)]
    for c in reversed(everything):
        scans += [([c], 1, 5, 0, 2), ([c], 6, 63, 0, 2), ([c], 1, 63, 2, 1)]
    scans += [(everything, 0, 0, 1, 0)]
    return scans + [([c], 1, 63, 1, 0) for c in everything]


def separate_script(count: int) -> list:
    """The same, but the first coefficients come one component after another, too."""
    scans = [([c], 0, 0, 0, 0) for c in range(count)]
    return scans + [([c], 1, 63, 0, 0) for c in range(count)]


SAMPLINGS = {
    "444": [(1, 1)] * 3,
    "422": [(2, 1), (1, 1), (1, 1)],
    "440": [(1, 2), (1, 1), (1, 1)],
    "420": [(2, 2), (1, 1), (1, 1)],
    "411": [(4, 1), (1, 1), (1, 1)],
    "410": [(4, 2), (1, 1), (1, 1)],
    "441": [(1, 4), (1, 1), (1, 1)],
    "3x1": [(3, 1), (1, 1), (1, 1)],
    "1x3": [(1, 3), (1, 1), (1, 1)],
    "422 in halves": [(4, 1), (2, 1), (2, 1)],
    "luma smaller": [(1, 1), (2, 2), (2, 2)],
    "luma narrower": [(1, 1), (2, 1), (2, 1)],
    "luma lower": [(1, 1), (1, 2), (1, 2)],
    "one chroma smaller": [(2, 2), (2, 2), (1, 1)],
    "mixed": [(2, 2), (2, 1), (1, 2)],
    "no most": [(2, 1), (1, 2), (1, 1)],
    "all doubled": [(2, 2), (2, 2), (2, 2)],
    "chroma 2 of 4": [(4, 1), (2, 1), (1, 1)],
}
LAYOUTS = {
    "one": [[0, 1, 2]],
    "each": [[0], [1], [2]],
    "two": [[0], [1, 2]],
    "last": [[0, 1], [2]],
    "backwards": [[2], [1], [0]],
}
SIZES = [
    (1, 1),
    (2, 3),
    (3, 3),
    (4, 31),
    (5, 5),
    (7, 9),
    (8, 8),
    (17, 33),
    (33, 17),
    (16, 16),
    (31, 40),
]
JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def jpegs():
    seed = 0
    for (name, sampling), (layout, scans) in itertools.product(SAMPLINGS.items(), LAYOUTS.items()):
        blocks = max(
            (sum(h * v for h, v in (sampling[c] for c in scan)) for scan in scans if len(scan) > 1),
            default=0,
        )
        if blocks > 10:
            continue
        for number, size in enumerate(SIZES):
            for restart in (0, 1, 3):
                if (number + restart + len(name) + len(layout)) % 4:
                    continue
                seed += 1
                yield f"{name}, {layout}, {size}, restart {restart}", jpeg(
                    size, sampling, scans, restart, seed=seed, change_tables=seed % 2 == 0
                )
    for name, sampling in SAMPLINGS.items():
        if sum(h * v for h, v in sampling) > 10:
            continue
        for number, (size, kind, restart) in enumerate(
            itertools.product(SIZES, (script, separate_script), (0, 1, 3))
        ):
            if (number + len(name)) % 6:
                continue
            seed += 1
            yield f"progressive {name}, {kind.__name__}, {size}, restart {restart}", jpeg(
                size, sampling, kind(3), restart, True, seed=seed
            )
    for number, (sampling, size, restart, progressive) in enumerate(
        itertools.product([(1, 1), (2, 2), (1, 2), (3, 1)], SIZES, (0, 2), (False, True))
    ):
        if number % 4:
            continue
        seed += 1
        scans = script(1) if progressive else [[0]]
        yield f"grey {sampling}, {size}, restart {restart}, {progressive}", jpeg(
            size, [sampling], scans, restart, progressive, seed=seed
        )
    colours = {
        "none": b"",
        "jfif": JFIF,
        **{f"adobe {t}": adobe(t) for t in (0, 1, 2)},
        "both": JFIF + adobe(0),
    }
    fours = {
        "444": [(1, 1)] * 4,
        "420": [(2, 2), (1, 1), (1, 1), (2, 2)],
        "422": [(2, 1), (1, 1), (1, 1), (2, 1)],
    }
    for (colour, extra), (name, sampling) in itertools.product(colours.items(), fours.items()):
        for layout, scans in {
            "one": [[0, 1, 2, 3]],
            "each": [[0], [1], [2], [3]],
            "progressive": script(4),
        }.items():
            seed += 1
            yield f"four {colour} {name} {layout}", jpeg(
                (19, 21), sampling, scans, 0, layout == "progressive", seed=seed, extra=extra
            )
    for (colour, extra), ids in itertools.product(
        colours.items(), [(1, 2, 3), b"RGB", (0, 1, 2), (1, 1, 1), (1, 34, 35)]
    ):
        seed += 1
        yield f"three {colour} {ids}", jpeg(
            (19, 21), [(1, 1)] * 3, [[0, 1, 2]], seed=seed, extra=extra, ids=ids
        )
    # Pictures as they come from cameras and programs, with tables made for them.
    y, x = np.mgrid[0:75, 0:100]
    waves = [np.sin(x / 5 + y / 9), np.sin(x / 3 - y / 6), np.cos((x + y) / 4)]
    pixels = 127 + 120 * np.stack(waves, -1) + np.random.default_rng(0).normal(0, 4, (75, 100, 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for subsampling, progressive, rows in itertools.product((0, 1, 2), (False, True), (0, 1)):
        file = io.BytesIO()
        picture.save(
            file,
            "JPEG",
            quality=40,
            subsampling=subsampling,
            progressive=progressive,
            restart_marker_rows=rows,
        )
        yield f"Pillow {subsampling}, {progressive}, {rows}", file.getvalue()


def chunk(name: bytes, contents: bytes, checksum: int | None = None) -> bytes:
    if checksum is None:
        checksum = zlib.crc32(name + contents)
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", checksum)


def header(width, height, depth, kind, interlaced=0, checksum=None) -> bytes:
    contents = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", contents, checksum)


def packed(samples: np.ndarray, depth: int) -> bytes:
    """Rows of samples (height x width x samples of a pixel) without a filter."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif depth < 8:
        bits = (rows[..., None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows)


def adam7(samples: np.ndarray, depth: int) -> bytes:
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    parts = [samples[y::down, x::across] for x, y, across, down in passes]
    return b"".join(packed(part, depth) for part in parts if part.size)


def pngs():
    rng = np.random.default_rng(0)
    end, palette = chunk(b"IEND", b""), chunk(b"PLTE", bytes(range(10, 34)))
    for depth, (kind, samples), interlaced in itertools.product(
        (1, 2, 4, 8, 16), {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.items(), (0, 1)
    ):
        # Sixteen bits of grey are clipped by Pillow.
        if depth < 8 and kind not in (0, 3) or depth == 16 and kind in (0, 3):
            continue
        for width, height in ((13, 9), (1, 1), (3, 5)):
            pixels = rng.integers(0, 1 << depth, (height, width, samples))
            rows = (adam7 if interlaced else packed)(pixels, depth)
            file = header(width, height, depth, kind, interlaced)
            file += palette if kind == 3 else b""
            file += chunk(b"IDAT", zlib.compress(rows)) + end
            yield f"depth {depth}, kind {kind}, {width}x{height}, interlaced {interlaced}", file
    rows = packed(rng.integers(0, 256, (9, 7, 3)), 8)
    data, start = zlib.compress(rows, 9), header(7, 9, 8, 2)
    whole, text = chunk(b"IDAT", data), chunk(b"tEXt", b"a\0b")
    yield "whole", start + whole + end
    yield "no end", start + whole
    yield "garbage behind the end", start + whole + end + b"garbage"
    yield "wrong checksum of data", start + chunk(b"IDAT", data, 7) + end
    yield "wrong checksum of the header", header(7, 9, 8, 2, 0, 7) + whole + end
    yield "wrong checksum of text behind", start + whole + chunk(b"tEXt", b"a\0b", 7) + end
    yield "wrong checksum within data", start + chunk(b"IDAT", data[:-4] + b"abcd") + end
    yield "no checksum within data", start + chunk(b"IDAT", data[:-4]) + end
    yield "half a checksum within data", start + chunk(b"IDAT", data[:-2]) + end
    yield "cut in the checksum", (start + whole)[:-2]
    yield "cut before the checksum", (start + whole)[:-4]
    yield "cut in the checksum within", (start + whole)[:-6]
    yield "cut in the data", (start + whole)[:-10]
    yield "more data than pixels", start + chunk(b"IDAT", zlib.compress(rows + rows)) + end
    yield "two chunks", start + chunk(b"IDAT", data[:30]) + chunk(b"IDAT", data[30:]) + end
    yield "chunks of nothing", start + chunk(b"IDAT", b"") + whole + chunk(b"IDAT", b"") + end
    yield "data in two places", start + chunk(b"IDAT", data[:30]) + text + chunk(
        b"IDAT", data[30:]
    ) + end
    yield "few rows", start + chunk(b"IDAT", zlib.compress(rows[:100])) + end
    yield "an unknown filter", start + chunk(b"IDAT", zlib.compress(b"\7" + rows[1:])) + end
    yield "an unknown chunk", start + chunk(b"ABCD", b"abc") + whole + end
    yield "gamma", start + chunk(b"gAMA", struct.pack(">I", 20000)) + whole + end
    yield "no width", header(0, 9, 8, 2) + whole + end
    start = header(8, 4, 8, 3)
    whole = chunk(b"IDAT", zlib.compress(packed(np.tile(np.arange(8)[:, None], (4, 1, 1)), 8)))
    for length in (0, 1, 9, 12, 13, 14, 24):
        yield f"a palette of {length} bytes", start + chunk(
            b"PLTE", bytes(range(10, 10 + length))
        ) + whole + end
    yield "wrong checksum of the palette", start + chunk(b"PLTE", bytes(range(24)), 7) + whole + end


def write(name: str, files) -> None:
    """A record is a name and a file, each after its length, and width, height and the checksum of
    the pixels in RGB: zeros where Pillow does not read it."""
    records = b""
    for label, file in files:
        for part in (label.encode(), file):
            records += struct.pack("<I", len(part)) + part
        try:
            picture = Image.open(io.BytesIO(file)).convert("RGB")
            records += struct.pack("<III", *picture.size, zlib.crc32(picture.tobytes()))
        except (OSError, ValueError):
            records += bytes(12)
    (GOLDEN / name).write_bytes(zlib.compress(records, 9))


if __name__ == "__main__":
    write("jpegs.bin", jpegs())
    write("pngs.bin", pngs())
