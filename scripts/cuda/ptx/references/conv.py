"""A layer's convolutions."""

import numpy

from . import norm


def shifted(maps, dy, dx):
    """Of images x height x width x channels, the pixel dy below and dx to the right; zeros outside."""
    height, width = maps.shape[1:3]
    around = numpy.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return around[:, 1 + dy:1 + dy + height, 1 + dx:1 + dx + width]


def operand(launch, channels, stride):
    """The input, with BN and ReLU as an operand, and BN alone."""
    x = launch.take("input", (launch["pixels"], channels), stride)
    z = launch.normed(x, launch.vector("scale", channels, "positive"), launch.vector("shift", channels))
    return x, launch.stored(numpy.maximum(z, 0)), z


def sums(launch, masked, size, x, mean, rows, tiles):
    """The sums for gamma and beta of the masked gradient, by tiles of rows; `size` is the sum of its terms' magnitudes."""
    terms = numpy.stack([masked * (x - mean), masked], -1)
    scale = numpy.stack([size * (numpy.abs(x) + numpy.abs(mean)), size], -1)
    cut = [slice(tile * rows, (tile + 1) * rows) for tile in range(tiles)]
    found, scale = (numpy.stack([part[own].sum(0) for own in cut]).reshape(1, -1) for part in (terms, scale))
    launch.put("partial", found, scale=scale)
    return cut


def pointwise_forward(launch):
    pixels, channels, maps = launch["pixels"], launch["channels"], launch["MAPS"]
    _, z, _ = operand(launch, channels, launch["IN_STRIDE"])
    weight = launch.take("weight", (maps, channels))
    drop = launch.factors(launch.places((pixels, maps)))
    where = launch.put("out", z @ weight.T * drop, scale=numpy.abs(z) @ numpy.abs(weight).T * drop)
    launch.moments("partial", maps, launch["ROWS"], launch.grid[0], lambda: launch.read("out", where))


def pointwise_part(launch):
    pixels, channels, maps, length = launch["pixels"], launch["channels"], launch["MAPS"], launch["length"]
    _, z, _ = operand(launch, channels, launch["IN_STRIDE"])
    weight = launch.take("weight", (maps, channels))
    for part in range(launch.grid[2]):
        own = slice(part * length, (part + 1) * length)
        found, scale = (a[:, own] @ b[:, own].T for a, b in ((z, weight), (numpy.abs(z), numpy.abs(weight))))
        launch.put("sums", found, start=part * pixels * maps, scale=scale)


def pointwise_joined(launch):
    pixels, maps, parts = launch["pixels"], launch["MAPS"], launch["parts"]
    sums = launch.take("sums", (parts * pixels, maps)).reshape(parts, pixels, maps)
    drop = launch.factors(launch.places((pixels, maps)))
    where = launch.put("out", sums.sum(0) * drop, scale=numpy.abs(sums).sum(0) * drop)
    launch.moments("partial", maps, launch["ROWS"], launch.grid[0], lambda: launch.read("out", where))


def pointwise_back(launch):
    pixels, channels, maps, map0 = launch["pixels"], launch["channels"], launch["MAPS"], launch["map0"]
    group, length, slices = min(launch["GROUP"], maps - map0), launch["length"], launch.grid[1]
    x, z, plain = operand(launch, channels, launch["IN_STRIDE"])
    dout = launch.take("dout", (pixels, group), maps, map0)
    weight = launch.take("weight", (group, channels), start=map0 * channels)
    mean, gamma = launch.vector("mean", channels), launch.vector("gamma", channels)
    before = launch.take("into", (pixels, channels), launch["IN_STRIDE"])
    masked, size = (numpy.where(plain > 0, part, 0) for part in (dout @ weight, numpy.abs(dout) @ numpy.abs(weight)))
    launch.put("into", before + gamma * masked, launch["IN_STRIDE"], scale=numpy.abs(before) + numpy.abs(gamma) * size)
    for number, own in enumerate(sums(launch, masked, size, x, mean, length, slices)):
        launch.put("share", dout[own].T @ z[own], start=(number * maps + map0) * channels, scale=numpy.abs(dout[own]).T @ z[own])


def images_of(launch, values):
    return values.reshape(-1, launch["HEIGHT"], launch["WIDTH"], values.shape[1])


TAPS = [(tap // 3 - 1, tap % 3 - 1) for tap in range(9)]


def spatial_forward(launch):
    pixels, channels, maps = launch["pixels"], launch["channels"], launch["MAPS"]
    _, z, _ = operand(launch, channels, launch["IN_STRIDE"])
    weight = launch.take("weight", (9 * maps, channels)).reshape(9, maps, channels)
    under = [shifted(images_of(launch, z), *tap).reshape(pixels, channels) for tap in TAPS]
    out, size = (sum(z @ w.T for z, w in zip(under, of)) for of in (weight, numpy.abs(weight)))
    drop = launch.factors(launch.places((pixels, maps)))
    where = launch.put("out", out * drop, launch["OUT_STRIDE"], launch["column"], scale=size * drop)
    launch.moments("partial", maps, launch["ROWS"], launch.grid[0], lambda: launch.read("out", where))


def spatial_pull(launch):
    pixels, channels, maps = launch["pixels"], launch["channels"], launch["MAPS"]
    x, _, plain = operand(launch, channels, launch["IN_STRIDE"])
    dout = launch.take("dout", (pixels, maps))
    weight = launch.take("weight", (9 * maps, channels)).reshape(9, maps, channels)
    mean = launch.vector("mean", channels)
    over = [shifted(images_of(launch, dout), -dy, -dx).reshape(pixels, maps) for dy, dx in TAPS]
    masked = numpy.where(plain > 0, sum(d @ w for d, w in zip(over, weight)), 0)
    size = sum(numpy.abs(d) @ numpy.abs(w) for d, w in zip(over, weight))
    into, scale = masked, size
    if launch["add"]:
        before, gamma = launch.take("into", (pixels, channels), launch["IN_STRIDE"]), launch.vector("gamma", channels)
        into, scale = before + gamma * masked, numpy.abs(before) + numpy.abs(gamma) * size
    launch.put("into", into, launch["IN_STRIDE"], scale=scale)
    sums(launch, masked, size, x, mean, launch["PULL_ROWS"], launch.grid[0])


def spatial_weight(launch):
    pixels, channels, maps, length = launch["pixels"], launch["channels"], launch["MAPS"], launch["length"]
    _, z, _ = operand(launch, channels, launch["IN_STRIDE"])
    dout = launch.take("dout", (pixels, maps))
    under = [shifted(images_of(launch, z), *tap).reshape(pixels, channels) for tap in TAPS]
    for number in range(launch.grid[2]):
        own = slice(number * length, (number + 1) * length)
        share, size = (numpy.stack([d[own].T @ z[own] for z in under], 1) for d in (dout, numpy.abs(dout)))
        launch.put("share", share.reshape(maps, -1), start=number * maps * 9 * channels, scale=size.reshape(maps, -1))
    norm.passed(launch, channels, launch["add"], channels)
