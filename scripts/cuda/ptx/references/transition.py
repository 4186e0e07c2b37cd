"""A transition: BN, ReLU, 1x1 convolution, average pool."""

import numpy

from .conv import sums


def corners(launch):
    """The four pixels under each pooled pixel."""
    height, width, pooled = launch["HEIGHT"], launch["WIDTH"], launch["pooled"]
    tall, wide = height // 2, width // 2
    q = numpy.arange(pooled)
    first = (q // (tall * wide) * height + q % (tall * wide) // wide * 2) * width + q % wide * 2
    return first[:, None] + numpy.array([0, 1, width, width + 1])


def corners_read(launch, at):
    """The input at the corners, and BN of it."""
    channels = launch["IN"]
    places = at[..., None] * channels + numpy.arange(channels)
    launch.write("input", places, launch.random.standard_normal(places.shape))
    x = launch.read("input", places)
    return x, launch.normed(x, launch.vector("scale", channels, "positive"), launch.vector("shift", channels))


def pooled_operand(launch):
    """What the products read, pooled pixels x channels, and rounded."""
    if launch["POOLED"] and launch.kernel != "transition_pool":
        return launch.take("input", (launch["pooled"], launch["IN"]))
    z = numpy.maximum(corners_read(launch, corners(launch))[1], 0).astype(numpy.float32)
    return launch.stored(numpy.float32(0.25) * ((z[:, 0] + z[:, 1]) + (z[:, 2] + z[:, 3])))


def transition_pool(launch):
    launch.put("into", pooled_operand(launch), scale=1e-9)


def finished(launch, out, size, rows):
    maps = launch["OUT"]
    where = launch.put("out", out, launch["OUT_STRIDE"], scale=size)
    tiles = -(-launch["pooled"] // rows)
    launch.moments("partial", maps, rows, tiles, lambda: launch.read("out", where))


def transition_forward(launch):
    operand, weight = pooled_operand(launch), launch.take("weight", (launch["OUT"], launch["IN"]))
    finished(launch, operand @ weight.T, numpy.abs(operand) @ numpy.abs(weight).T, launch["ROWS"])


def site_factors(launch, at):
    return launch.factors(at[..., None] * launch["OUT"] + numpy.arange(launch["OUT"]))


def transition_forward_dropped(launch):
    at = corners(launch)
    z = launch.stored(numpy.maximum(corners_read(launch, at)[1], 0))
    weight, drop = launch.take("weight", (launch["OUT"], launch["IN"])), site_factors(launch, at)
    out, size = (0.25 * (z @ w.T * drop).sum(1) for w in (weight, numpy.abs(weight)))
    finished(launch, out, size, launch["ROWS"] // 4)


def pull(launch, at, d, size):
    """From the gradient at each corner."""
    x, plain = corners_read(launch, at)
    channels = launch["IN"]
    mean, gamma = launch.vector("mean", channels), launch.vector("gamma", channels)
    masked = numpy.where(plain > 0, 0.25 * d, 0)
    places = at[..., None] * channels + numpy.arange(channels)
    launch.put("into", gamma * masked, places=places, scale=numpy.abs(gamma) * size + numpy.zeros(places.shape))
    return masked, 0.25 * size, x, mean


def transition_pull(launch):
    at, pooled, maps = corners(launch), launch["pooled"], launch["OUT"]
    dout, weight = launch.take("dout", (pooled, maps)), launch.take("weight", (maps, launch["IN"]))
    d, size = (numpy.repeat(part[:, None], 4, 1) for part in (dout @ weight, numpy.abs(dout) @ numpy.abs(weight)))
    by_rows(launch, *pull(launch, at, d, size), launch["ROWS"])


def by_rows(launch, masked, size, x, mean, rows):
    """Sums of tiles of this many pooled pixels."""
    channels = launch["IN"]
    flat = [numpy.asarray(part).reshape(-1, channels) for part in (masked, size, x)]
    sums(launch, *flat, mean, 4 * rows, -(-launch["pooled"] // rows))


def transition_pull_dropped(launch):
    at, pooled, maps = corners(launch), launch["pooled"], launch["OUT"]
    dout, weight = launch.take("dout", (pooled, maps)), launch.take("weight", (maps, launch["IN"]))
    spread = launch.stored(dout[:, None] * site_factors(launch, at))
    by_rows(launch, *pull(launch, at, spread @ weight, numpy.abs(spread) @ numpy.abs(weight)), launch["ROWS"] // 4)


def shares(launch, rows, operand):
    maps, channels, length = launch["OUT"], launch["IN"], launch["length"]
    for number in range(launch.grid[2]):
        own = slice(number * length, (number + 1) * length)
        launch.put("share", rows[own].T @ operand[own], start=number * maps * channels,
                   scale=numpy.abs(rows[own]).T @ numpy.abs(operand[own]))


def transition_weight(launch):
    shares(launch, launch.take("dout", (launch["pooled"], launch["OUT"])), pooled_operand(launch))


def transition_weight_dropped(launch):
    at, maps = corners(launch), launch["OUT"]
    dout = launch.take("dout", (launch["pooled"], maps))
    spread = launch.stored(dout[:, None] * site_factors(launch, at))
    z = numpy.maximum(corners_read(launch, at)[1], 0).astype(numpy.float32)
    shares(launch, spread.reshape(-1, maps), launch.stored(numpy.float32(0.25) * z).reshape(-1, launch["IN"]))
