"""The last layers and the losses."""

import numpy


def head_pool(launch):
    images, pixels, channels = launch["batch"], launch["PIXELS"], launch["CHANNELS"]
    x = launch.take("x", (images * pixels, channels))
    z = numpy.maximum(launch.normed(x, launch.vector("scale", channels, "positive"), launch.vector("shift", channels)), 0)
    features = z.reshape(images, pixels, channels).mean(1)
    launch.put("features", features, scale=features)


def class_maps(launch):
    images, wanted, pixels, channels, classes = (launch[name] for name in ("batch", "wanted", "PIXELS", "CHANNELS", "CLASSES"))
    x = launch.take("x", (images * pixels, channels))
    z = numpy.maximum(launch.normed(x, launch.vector("scale", channels, "positive"), launch.vector("shift", channels)), 0)
    weight = launch.take("weight", (classes, channels))
    chosen = launch.take("classes", (images, wanted), kind=launch.random.integers(0, classes, (images, wanted))).astype(int)
    maps, size = (numpy.einsum("ipc,iwc->iwp", z.reshape(images, pixels, channels), own[chosen]) for own in (weight, numpy.abs(weight)))
    launch.put("maps", maps.reshape(images * wanted, pixels), scale=size.reshape(images * wanted, pixels))


def rounded(launch, name, shape):
    """f32 values that are rounded as they become operands."""
    return launch.stored(launch.take(name, shape))


def classify(launch):
    images, channels, classes = launch["batch"], launch["CHANNELS"], launch["CLASSES"]
    features, weight = rounded(launch, "features", (images, channels)), rounded(launch, "weight", (classes, channels))
    bias = launch.vector("bias", classes)
    launch.put("logits", features @ weight.T + bias, scale=numpy.abs(features) @ numpy.abs(weight).T + numpy.abs(bias))


def classify_weight(launch):
    images, channels, classes = launch["batch"], launch["CHANNELS"], launch["CLASSES"]
    dlogits = launch.take("dlogits", (images, classes))
    d, features = launch.stored(dlogits), rounded(launch, "features", (images, channels))
    weight, bias = launch.take("dweight", (classes, channels)), launch.vector("dbias", classes)
    launch.put("dweight", weight + d.T @ features, scale=numpy.abs(weight) + numpy.abs(d).T @ numpy.abs(features))
    launch.put("dbias", bias + dlogits.sum(0), scale=numpy.abs(bias) + numpy.abs(dlogits).sum(0))


def classify_features(launch):
    images, channels, classes = launch["batch"], launch["CHANNELS"], launch["CLASSES"]
    d, weight = rounded(launch, "dlogits", (images, classes)), rounded(launch, "weight", (classes, channels))
    launch.put("dfeatures", d @ weight, scale=numpy.abs(d) @ numpy.abs(weight))


def head_pull(launch):
    from .conv import sums
    images, pixels, channels = launch["batch"], launch["PIXELS"], launch["CHANNELS"]
    x = launch.take("x", (images * pixels, channels))
    plain = launch.normed(x, launch.vector("scale", channels, "positive"), launch.vector("shift", channels))
    d = numpy.repeat(launch.take("dfeatures", (images, channels)), pixels, 0) / pixels
    masked = numpy.where(plain > 0, d, 0)
    launch.put("g", launch.vector("gamma", channels) * masked)
    sums(launch, masked, numpy.abs(d), x, launch.vector("mean", channels), launch["ROWS"], launch.grid[0])


def common(launch, images, classes):
    """What the losses read, and the share of an image."""
    z = launch.take("logits", (images, classes))
    scale = launch.scalars(smoothing=0.1, scale=0.75) if launch["training"] else {"smoothing": 0.0, "scale": 0.0}
    weights = launch.vector("weights", classes, "positive")
    return z, weights, 1 / launch.take("divisor", (1, 1), kind="positive")[0, 0], scale


def finished(launch, loss, others, gradient, scale):
    launch.put("results", numpy.stack([loss, *others], 1), scale=numpy.stack([numpy.abs(loss) + 1e-3, *([1e-9 + 0 * loss] * 2)], 1))
    if launch["training"]:
        launch.put("gradient", gradient, scale=scale)


def cross_entropy(launch):
    images, classes = launch.grid[0], launch["CLASSES"]
    z, weights, share, step = common(launch, images, classes)
    if launch["dense"]:
        targets = launch.random.dirichlet(numpy.ones(classes), images)
        targets = launch.take("targets", (images, classes), kind=targets)
        label = targets.argmax(1)
    else:
        label = launch.random.integers(0, classes, images)
        launch.take("labels", (1, images), kind=label)
        targets = numpy.eye(classes)[label]
    wanted = weights * ((1 - step["smoothing"]) * targets + step["smoothing"] / classes)
    highest = z.max(1, keepdims=True)
    total = numpy.log(numpy.exp(z - highest).sum(1, keepdims=True)) + highest
    loss = share * (wanted * (total - z)).sum(1)
    rank = classes - (z < z[numpy.arange(images), label][:, None]).sum(1)
    gradient = share * step["scale"] * (wanted.sum(1, keepdims=True) * numpy.exp(z - total) - wanted)
    finished(launch, loss, [rank == 1, rank <= 5], gradient, share)


def binary_cross_entropy(launch):
    images, classes = launch.grid[0], launch["CLASSES"]
    z, weights, share, step = common(launch, images, classes)
    targets = numpy.where(launch.random.uniform(size=(images, classes)) < 0.2, numpy.nan, launch.random.uniform(size=(images, classes)).round())
    targets = launch.take("targets", (images, classes), kind=targets)
    known = ~numpy.isnan(targets)
    yes, no = numpy.where(known, weights * targets, 0), numpy.where(known, 1 - targets, 0)
    loss = share * (yes * numpy.logaddexp(0, -z) + no * numpy.logaddexp(0, z)).sum(1)
    right = (known & ((z >= 0) == (targets >= 0.5))).sum(1)
    gradient = share * step["scale"] * (no / (1 + numpy.exp(-z)) - yes / (1 + numpy.exp(z)))
    finished(launch, loss, [right, known.sum(1)], gradient, share)
