"""The first layers."""

import numpy

from .conv import sums

NONE = 255  # the pool's choice where the ReLU cut off all


def sizes(launch):
    """Of the convolution's maps and of the pooled ones."""
    tall, wide = -(-launch["HEIGHT"] // launch["STEP"]), -(-launch["WIDTH"] // launch["STEP"])
    return (tall, wide), (-(-tall // 2), -(-wide // 2))


def patches(launch, pixels):
    """Pixels x channels x the kernel's pixels, of random images."""
    (tall, wide), _ = sizes(launch)
    images, height, width = pixels // (tall * wide), launch["HEIGHT"], launch["WIDTH"]
    x = launch.take("images", (images * height * width, launch["CHANNELS"])).reshape(images, height, width, -1)
    kernel, step = launch["KERNEL"], launch["STEP"]
    around = kernel // 2
    x = numpy.pad(x, ((0, 0), (around, kernel), (around, kernel), (0, 0)))
    taps = [x[:, y:y + step * tall:step, z:z + step * wide:step] for y in range(kernel) for z in range(kernel)]
    return numpy.stack(taps, -1).reshape(pixels, -1)


def stem_forward(launch):
    pixels, maps = launch["pixels"], launch["MAPS"]
    x = patches(launch, pixels)
    weight = launch.stored(launch.take("weight", (maps, x.shape[1])))
    where = launch.put("out", x @ weight.T, launch["stride"], scale=numpy.abs(x) @ numpy.abs(weight).T)
    rows = launch["STRIP"] or launch["ROWS"]
    launch.moments("partial", maps, rows, -(-pixels // rows), lambda: launch.read("out", where))


def windows(launch, x, fill):
    """The nine pixels under each pooled one, last."""
    (tall, wide), (high, across) = sizes(launch)
    x = numpy.pad(x.reshape(-1, tall, wide, launch["MAPS"]), ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=fill)
    taps = [x[:, y:y + 2 * high:2, z:z + 2 * across:2] for y in range(3) for z in range(3)]
    return numpy.stack([tap[:, :high, :across] for tap in taps], -1).reshape(-1, launch["MAPS"], 9)


def count(launch, pooled):
    (tall, wide), (high, across) = sizes(launch)
    return pooled // (high * across) * tall * wide


def stem_pool(launch):
    pooled, maps = launch["pooled"], launch["MAPS"]
    x = launch.take("convolved", (count(launch, pooled), maps))
    z = launch.normed(x, launch.vector("scale", maps, "positive"), launch.vector("shift", maps))
    nine = windows(launch, z, -numpy.inf)
    best = nine.max(-1)
    launch.put("choice", numpy.where(best > 0, nine.argmax(-1), NONE), scale=1e-9)
    where = launch.put("out", numpy.maximum(best, 0), launch["stride"], scale=1e-9)
    launch.moments("partial", maps, launch["ROWS"], launch.grid[0], lambda: launch.read("out", where))


def chosen(launch, pooled):
    """Some choices: each a pixel that exists, or none."""
    maps = launch["MAPS"]
    exists = windows(launch, numpy.zeros((count(launch, pooled), maps)), numpy.nan) == 0
    order = numpy.where(exists, launch.random.uniform(size=exists.shape), -1)
    choice = numpy.where(launch.random.uniform(size=(pooled, maps)) < 0.2, NONE, order.argmax(-1))
    launch.take("choice", (pooled, maps), kind=choice)
    return choice


def stem_sums(launch):
    pooled, maps = launch["pooled"], launch["MAPS"]
    choice = chosen(launch, pooled)
    d = numpy.where(choice == NONE, 0, launch.take("dout", (pooled, maps)))
    nine = windows(launch, launch.take("convolved", (count(launch, pooled), maps)), 0)
    x = numpy.take_along_axis(nine, numpy.where(choice == NONE, 4, choice)[..., None], -1)[..., 0]
    sums(launch, d, numpy.abs(d), x, launch.vector("mean", maps), launch["ROWS"], launch.grid[0])


def stem_weight(launch):
    pixels, maps, length = launch["pixels"], launch["MAPS"], launch["length"]
    if launch["POOL"]:
        gradient = undone(launch, pixels, maps)
    else:
        gradient = launch.take("dout", (pixels, maps))
    x = patches(launch, pixels)
    for number in range(launch.grid[2]):
        own = slice(number * length, (number + 1) * length)
        launch.put("share", gradient[own].T @ x[own], start=number * maps * x.shape[1],
                   scale=numpy.abs(gradient[own]).T @ numpy.abs(x[own]))


def undone(launch, pixels, maps):
    """The gradient of the convolution's maps: gathered through the pool, with BN undone."""
    (tall, wide), (high, across) = sizes(launch)
    images = pixels // (tall * wide)
    pooled = images * high * across
    choice, d = chosen(launch, pooled), launch.take("dout", (pooled, maps))
    x = launch.take("convolved", (pixels, maps))
    scale, slope, shift, mean = launch.take("undo", (4, maps)).astype(numpy.float32)
    masked = numpy.zeros((images, tall + 3, wide + 3, maps), numpy.float32)
    for place in range(9):
        own = numpy.where(choice == place, d, 0).reshape(images, high, across, maps).astype(numpy.float32)
        masked[:, place // 3:place // 3 + 2 * high:2, place % 3:place % 3 + 2 * across:2][:, :high, :across] += own
    masked = masked[:, 1:1 + tall, 1:1 + wide].reshape(pixels, maps)
    f32, f64 = numpy.float32, numpy.float64
    once = lambda a, b, c: (f64(a) * f64(b) + f64(c)).astype(f32)
    return launch.stored(once(masked, scale, once(x, slope, once(-mean, slope, shift))))
