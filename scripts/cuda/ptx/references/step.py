"""What precedes and follows a pass, and the weights as operands."""

import numpy


def images_from_nchw(launch):
    images, area, channels = launch["batch"], launch["area"], launch["channels"]
    x = launch.take("from", (images * channels, area)).reshape(images, channels, area)
    launch.put("into", x.transpose(0, 2, 1).reshape(images * area, channels), scale=1e-9)


def normalised(launch, x):
    mean, deviation = launch.take("norm", (2, launch["channels"]), kind="positive")
    launch.put("into", (x - mean) / deviation, scale=(numpy.abs(x) + numpy.abs(mean)) / deviation)


def images_from_bytes(launch):
    shape = launch["pixels"], launch["channels"]
    normalised(launch, launch.take("from", shape, kind=launch.random.integers(0, 256, shape)) / 255)


def images_from_floats(launch):
    normalised(launch, launch.take("from", (launch["pixels"], launch["channels"]), kind="positive"))


def maps_to_nchw(launch):
    channels, area = launch["channels"], launch["area"]
    images = launch.grid[0] // -(-area // 32)
    x = launch.take("x", (images * area, channels))
    if launch["normalised"]:
        x = numpy.maximum(launch.normed(x, launch.vector("scale", channels, "positive"), launch.vector("shift", channels)), 0)
    launch.put("into", x.reshape(images, area, channels).transpose(0, 2, 1).reshape(images * channels, area), scale=1e-9)


def start(launch):
    launch.scalars(accumulate=0, broken=0.0)
    running = launch.vector("running", launch["statistics"])
    launch.put("gradient", numpy.zeros(launch["count"]))
    launch.put("before", running, scale=1e-9)


def squares(launch):
    gradient, blocks = launch.vector("gradient", launch["count"]), launch.grid[0]
    threads = launch.threads
    own = numpy.arange(launch["count"]) // threads % blocks
    launch.put("sums", numpy.bincount(own, gradient ** 2, blocks))


def clip(launch):
    sums = launch.vector("sums", launch["blocks"], "positive")
    step = launch.scalars(clip=0.5, norm_epsilon=1e-6)
    factor = step["clip"] / (numpy.sqrt(sums.sum()) + step["norm_epsilon"])
    launch.put("scalars", numpy.array([float(numpy.float32(min(factor, 1)).view(numpy.uint32))]), start=18, scale=2e6)


def groups(launch, count):
    """Groups of parameters: where they begin, and their shares of rate and decay."""
    first = numpy.arange(launch["group_count"]) * (count // launch["group_count"])
    shares = launch.random.uniform(0.5, 1.5, (len(first), 2)).astype(numpy.float32)
    words = numpy.column_stack([first.astype(numpy.uint32), shares.view(numpy.uint32)])
    launch.take("groups", words.shape, kind=words)
    of = numpy.searchsorted(first, numpy.arange(count), side="right") - 1
    return shares[of].astype(numpy.float64).T


def descend(launch):
    count = launch["count"]
    step = launch.scalars(rate=0.1, momentum=0.9, decay=1e-4, nesterov=1, clip=0.5, factor=0.7, broken=0.0)
    rate, decay = groups(launch, count)
    parameters, before, gradient = (launch.vector(name, count) for name in ("parameters", "momentum", "gradient"))
    slope = step["factor"] * gradient + decay * step["decay"] * parameters
    momentum = step["momentum"] * before + slope
    launch.put("momentum", momentum, scale=numpy.abs(before) + numpy.abs(gradient) + 1)
    launch.put("parameters", parameters - rate * step["rate"] * (slope + step["momentum"] * momentum),
               scale=numpy.abs(parameters) + numpy.abs(before) + numpy.abs(gradient))


def descend_adamw(launch):
    count = launch["count"]
    step = launch.scalars(rate=0.01, decay=0.05, fresh1=0.1, fresh2=0.001, correction1=1.5, correction2=2.0, epsilon=1e-8, clip=0.5,
                          factor=0.7, broken=0.0)
    rate, decay = groups(launch, count)
    parameters, first, gradient = (launch.vector(name, count) for name in ("parameters", "first", "gradient"))
    second = launch.vector("second", count, "positive")
    rate, slope = rate * step["rate"], step["factor"] * gradient
    first, second = first + step["fresh1"] * (slope - first), second + step["fresh2"] * (slope ** 2 - second)
    launch.put("first", first)
    launch.put("second", second)
    moved = (1 - rate * decay * step["decay"]) * parameters
    moved -= rate * step["correction1"] * first / (step["correction2"] * numpy.sqrt(second) + step["epsilon"])
    launch.put("parameters", moved)


def average(launch):
    count = launch["count"]
    step = launch.scalars(fresh=0.01, broken=0.0)
    before, values = launch.vector("average", count), launch.vector("values", count)
    launch.put("average", before + step["fresh"] * (values - before))


def pack_weights(launch):
    table = numpy.array(launch.weight_table).reshape(-1, launch["WORDS"])
    for start, into, channels, taps, maps, _ in table:
        weight = launch.take("parameters", (maps * channels, taps), start=start)
        launch.put("packed", weight.T, start=into, scale=1e-9)
    launch.take("table", table.shape, kind=table)
