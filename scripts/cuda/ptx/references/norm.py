"""Batch normalisation around the convolutions."""

import numpy

EPSILON, MOMENTUM = 1e-5, float(numpy.float32(0.1))


def prepare(launch):
    channels, first, fresh, pixels = launch["channels"], launch["first"], launch["count"], launch["pixels"]
    tiles, rows = launch["tiles"], launch["rows"]
    gamma, beta = launch.vector("gamma", channels), launch.vector("beta", channels)
    running = launch.take("running", (2, channels), kind="positive")
    moves = launch["training"] and not launch["frozen"]
    if not moves:
        mean, scale = running[0], gamma / numpy.sqrt(running[1] + EPSILON)
    if fresh and not launch["training"]:
        raise ValueError("an evaluation measures nothing")
    statistics = {name: numpy.zeros(channels) for name in ("mean", "variance", "inverse")}
    old = numpy.array([c for c in range(channels) if not first <= c < first + fresh], int)
    if launch["training"]:
        # Of a frozen BN, what its effective gamma is computed from.
        for name in statistics if moves else ["inverse"]:
            places = old[None]
            launch.write(name, places, launch.random.uniform(0.25, 1.25, places.shape))
            statistics[name][old] = launch.read(name, places)[0]
    if fresh:
        moments = launch.take("partial", (tiles * fresh, 2), kind="positive").reshape(tiles, fresh, 2)
        counts = numpy.full(tiles, rows)
        counts[-1] = pixels - (tiles - 1) * rows
        average = (counts[:, None] * moments[..., 0]).sum(0) / pixels
        variance = (moments[..., 1] + counts[:, None] * (moments[..., 0] - average) ** 2).sum(0) / pixels
        own = slice(first, first + fresh)
        statistics["mean"][own], statistics["variance"][own] = average, variance
        statistics["inverse"][own] = 1 / numpy.sqrt(variance + EPSILON)
        for name in statistics:
            launch.put(name, statistics[name][own], start=first)
    if moves:
        mean, scale = statistics["mean"], gamma * statistics["inverse"]
        unbiased = pixels / (max(pixels, 2) - 1)
        moved = running + MOMENTUM * (numpy.stack([mean, statistics["variance"] * unbiased]) - running)
        launch.put("running", moved)
    elif launch["training"]:
        launch.put("effective", scale / statistics["inverse"])
    launch.put("scale", scale)
    launch.put("shift", beta - mean * scale, scale=numpy.abs(beta) + numpy.abs(mean * scale))


def passed(launch, channels, add, done):
    """Completes a pass backward through a BN; of channels from `done` on, the sums that undo it are not kept. Returns them."""
    tiles = launch["tiles"]
    sums = launch.take("partial", (tiles * channels, 2)).reshape(tiles, channels, 2)
    gamma, inverse = launch.vector("gamma", channels), launch.vector("inverse", channels, "positive")
    dgamma, dbeta = launch.vector("dgamma", channels), launch.vector("dbeta", channels)
    (slope, bias), (sizes, size) = sums.sum(0).T, numpy.abs(sums).sum(0).T
    slope, sizes = slope * inverse, sizes * inverse
    launch.put("dgamma", dgamma + slope, scale=numpy.abs(dgamma) + sizes)
    launch.put("dbeta", dbeta + bias, scale=numpy.abs(dbeta) + size)
    found = []
    for name, own, scale in (("plain", bias, size), ("normalised", slope, sizes)):
        before = launch.vector(name, channels) if add else numpy.zeros(channels)
        found.append(before + gamma * own)
        launch.put(name, found[-1][:done], scale=(numpy.abs(before) + numpy.abs(gamma) * scale)[:done])
    return found


def shares(launch, values):
    """Adds the slices' shares of a weight's gradient to it."""
    if not values:
        return
    share = launch.take("share", (launch["slices"], values))
    before = launch.vector("gradient", values)
    taps, across = launch["taps"], launch["across"]
    # From maps x taps x channels to the weight's order.
    order = lambda part: part.reshape(-1, taps, across).transpose(0, 2, 1).reshape(-1) if taps > 1 else part
    launch.put("gradient", before + order(share.sum(0)), scale=numpy.abs(before) + order(numpy.abs(share).sum(0)))


def gather(launch):
    channels = launch["channels"]
    if channels:
        passed(launch, channels, launch["add"], channels)
    shares(launch, launch["count"])


def coefficients(launch, count, gamma=1.0, start=0, left=None):
    """What undoes BN: of g, of the deviation, and the constant; each in f32. `left` has the sums, if they are made in the launch."""
    read = lambda name, kind="signed": launch.take(name, (1, count), start=start, kind=kind)[0]
    mean = read("mean")
    if left:
        inverse = launch.read("inverse", launch.places((1, count), start=start))[0]
        plain, normalised = (own[start:] for own in left)
    else:
        inverse, plain, normalised = read("inverse", "positive"), read("plain"), read("normalised")
    share = 1 / launch["pixels"]
    return mean, inverse * gamma, -inverse ** 2 * normalised * share, -inverse * plain * share


def swept(launch, g, x, mean, scale, slope, shift):
    drop = launch.factors(launch.places(g.shape))
    size = numpy.abs(g * scale) + numpy.abs((x - mean) * slope) + numpy.abs(shift)
    return (g * scale + (x - mean) * slope + shift) * drop, 4 * size * drop


def finish(launch):
    pixels, count, first, stride = (launch[name] for name in ("pixels", "count", "first", "stride"))
    g, x = (launch.take(name, (pixels, count), stride, first) for name in ("g", "x"))
    left = passed(launch, first + count, True, first) if launch["tiles"] else None
    values, scale = swept(launch, g, x, *coefficients(launch, count, start=first, left=left))
    launch.put("into", values, scale=scale)
    shares(launch, launch["values"])


def undo(launch):
    pixels, maps = launch["pixels"], launch["maps"]
    dy, y = launch.take("dy", (pixels, maps)), launch.take("y", (pixels, maps))
    values, scale = swept(launch, dy, y, *coefficients(launch, maps, launch.vector("gamma", maps)))
    launch.put("dy", values, scale=scale)
    shares(launch, launch["values"])


def undo_numbers(launch):
    maps = launch["maps"]
    mean, scale, slope, shift = coefficients(launch, maps, launch.vector("gamma", maps))
    launch.put("into", numpy.stack([scale, slope, shift, mean]), scale=numpy.abs(numpy.stack([scale, slope, shift, mean])))
