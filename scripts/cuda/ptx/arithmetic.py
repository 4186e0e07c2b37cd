"""Instructions that compute in registers."""

import numpy

from . import Fault

f32, f64, u32, u64 = numpy.float32, numpy.float64, numpy.uint32, numpy.uint64


def to_bf16(values):
    """The bits of values rounded to the nearest bfloat16, ties to even."""
    bits = numpy.asarray(values, f32).view(u32)
    rounded = (bits + (u32(0x7fff) + (bits >> u32(16) & u32(1)))) >> u32(16)
    return numpy.where(numpy.isnan(values), u32(0x7fff), rounded)


def from_bf16(bits):
    return (numpy.asarray(bits).astype(u32) << u32(16)).view(f32)


def fma(a, b, c):
    if numpy.result_type(a) == f32:
        # The product is exact in f64.
        return (numpy.asarray(a, f64) * b + numpy.asarray(c, f64)).astype(f32)
    return (numpy.asarray(a, numpy.longdouble) * b + c).astype(f64)


def quotient(a, b):
    """Towards zero."""
    if numpy.result_type(a).kind == "u":
        return a // b
    a, b = numpy.asarray(a, numpy.int64), numpy.asarray(b, numpy.int64)
    return numpy.sign(a) * numpy.sign(b) * (abs(a) // abs(b))


def leading_zeros(a):
    return 32 - numpy.ceil(numpy.log2(a.astype(f64) + 1)).astype(u32)


def approximate_reciprocal(a):
    """The lower half of its bits is 0."""
    return ((1 / a).view(u64) & u64(0xffffffff00000000)).view(f64)


BINARY = {"add": numpy.add, "sub": numpy.subtract, "and": numpy.bitwise_and, "or": numpy.bitwise_or, "xor": numpy.bitwise_xor}
UNARY = {"not": numpy.invert, "neg": numpy.negative, "abs": numpy.abs, "sqrt": numpy.sqrt, "clz": leading_zeros,
         "rsqrt": lambda a: 1 / numpy.sqrt(a)}
COMPARE = {"eq": numpy.equal, "ne": numpy.not_equal, "lt": numpy.less, "le": numpy.less_equal, "gt": numpy.greater,
           "ge": numpy.greater_equal, "lo": numpy.less, "ls": numpy.less_equal, "hi": numpy.greater, "hs": numpy.greater_equal,
           # Of floats that may be NaN: these hold then, too.
           "equ": lambda a, b: ~((a < b) | (a > b)), "neu": numpy.not_equal, "ltu": lambda a, b: ~(a >= b),
           "leu": lambda a, b: ~(a > b), "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b),
           "nan": lambda a, b: numpy.isnan(a) | numpy.isnan(b), "num": lambda a, b: ~(numpy.isnan(a) | numpy.isnan(b))}


def compiled(machine, own, parts):
    from .machine import TYPES
    root, arguments = parts[0], own.arguments
    kind = TYPES[parts[-1]]
    if root == "mov" and "{" in own.text:
        return packed(machine, arguments, parts[-1])
    put = machine.writer(arguments[0])
    read = lambda number, of=kind: machine.reader(arguments[number], of)
    if root in ("mov", "cvta"):
        a = read(1)
        return lambda: put(numpy.array(a()))
    if root == "cvt":
        return converted(machine, own, parts, put)
    if root == "selp":
        a, b, which = read(1), read(2), read(3, numpy.bool_)
        return lambda: put(numpy.where(which(), a(), b()))
    if root == "setp":
        a, b, compare = read(1), read(2), COMPARE[parts[1]]
        return lambda: put(compare(a(), b()))
    if root in ("shl", "shr"):
        bits = 8 * numpy.dtype(kind).itemsize
        a, by, shift = read(1), read(2, u32), numpy.left_shift if root == "shl" else numpy.right_shift

        def shifted():
            many = by()
            found = shift(a(), numpy.minimum(many, bits - 1).astype(kind))
            put(found if numpy.dtype(kind).kind == "i" else numpy.where(many >= bits, kind(0), found))
        return shifted
    if root == "bfi":
        a, b, at, count = read(1), read(2), int(arguments[3]), int(arguments[4])
        mask = (1 << count) - 1 << at
        return lambda: put(b() & kind(~mask & 0xffffffff) | a() << kind(at) & kind(mask))
    if root == "prmt":
        return permuted(read(1), read(2), read(3), put)
    if root in ("mul", "mad") and numpy.dtype(kind).kind in "iu":
        return whole_product(machine, own, parts, put, kind)
    if root == "fma":
        a, b, c = read(1), read(2), read(3)
        return lambda: put(fma(a(), b(), c()))
    if root in UNARY:
        a, work = read(1), UNARY[root]
        return lambda: put(work(a()))
    if root == "rcp":
        a = read(1)
        return lambda: put(approximate_reciprocal(a()) if "approx" in parts else kind(1) / a())
    a, b = read(1), read(2)
    work = BINARY.get(root) or binary(root, parts, numpy.dtype(kind).kind)
    return lambda: put(work(a(), b()))


def binary(root, parts, kind):
    if root == "mul":
        return numpy.multiply
    if root == "div":
        return numpy.divide if kind == "f" else quotient
    if root == "rem":
        return lambda a, b: a - quotient(a, b).astype(a.dtype) * b
    if root in ("min", "max"):
        if kind == "f" and "NaN" not in parts:
            # A number where one of them is not.
            return numpy.fmin if root == "min" else numpy.fmax
        return numpy.minimum if root == "min" else numpy.maximum
    raise KeyError(root)


def whole_product(machine, own, parts, put, kind):
    """mul and mad of whole numbers: the lower half, the upper half, or all of the product."""
    # Of 64 bits, Python's own numbers.
    twice = numpy.dtype(f"{numpy.dtype(kind).kind}{2 * numpy.dtype(kind).itemsize}").type if numpy.dtype(kind).itemsize < 8 else object
    form, half = parts[1], 8 * numpy.dtype(kind).itemsize
    a, b = (machine.reader(own.arguments[number], kind) for number in (1, 2))
    if form == "lo":
        product = lambda: a() * b()
    elif form == "wide":
        product = lambda: numpy.asarray(a(), twice) * numpy.asarray(b(), twice)
    else:
        product = lambda: (numpy.asarray(a()).astype(twice) * numpy.asarray(b()).astype(twice) >> (half if twice is object else twice(half))).astype(kind)
    if parts[0] == "mul":
        return lambda: put(product())
    c = machine.reader(own.arguments[3], twice if form == "wide" else kind)
    return lambda: put(product() + c())


def packed(machine, arguments, kind):
    """mov between a register and its halves."""
    half = {"b64": u32, "b32": numpy.uint16}[kind]
    whole, bits = {"b64": u64, "b32": u32}[kind], 8 * numpy.dtype(half).itemsize
    names = lambda text: [name.strip() for name in text.strip("{}").split(",")]
    if arguments[0].startswith("{"):
        low, high = (machine.writer(name) for name in names(arguments[0]))
        read = machine.reader(arguments[1], whole)

        def apart():
            value = read()
            low(value.astype(half))
            high((value >> whole(bits)).astype(half))
        return apart
    low, high = (machine.reader(name, half) for name in names(arguments[1]))
    put = machine.writer(arguments[0])
    return lambda: put(numpy.asarray(low(), whole) | numpy.asarray(high(), whole) << whole(bits))


def permuted(a, b, selector, put):
    """Each byte is one of the eight of `a` and `b`, or its sign eight times."""
    def work():
        all_bytes = numpy.asarray(a(), u64) | numpy.asarray(b(), u64) << u64(32)
        chosen, found = selector(), u32(0)
        for number in range(4):
            nibble = numpy.asarray(chosen) >> u32(4 * number) & u32(15)
            byte = (all_bytes >> (numpy.asarray(nibble & u32(7), u64) * u64(8)) & u64(255)).astype(u32)
            byte = numpy.where(nibble >= 8, numpy.where(byte >= 128, u32(255), u32(0)), byte)
            found = found | byte << u32(8 * number)
        put(found)
    return work


def converted(machine, own, parts, put):
    from .machine import TYPES, type_of
    if parts[-2:] == ["bf16x2", "f32"]:
        high, low = (machine.reader(own.arguments[number], f32) for number in (1, 2))
        relu = (lambda x: numpy.where(x < 0, f32(0), x)) if "relu" in parts else (lambda x: x)
        return lambda: put(to_bf16(relu(low())) | to_bf16(relu(high())) << u32(16))
    to, of = TYPES[parts[-2]], TYPES[parts[-1]]
    register = own.arguments[1]
    # A register may be wider than the type that is read of it.
    wide = type_of(register) if register.startswith("%") and "." not in register else of
    read = machine.reader(register, wide if numpy.dtype(wide).itemsize > numpy.dtype(of).itemsize else of)

    def work():
        value = numpy.asarray(read())
        if value.dtype != of:
            value = value.astype(f"u{numpy.dtype(of).itemsize}").view(of)
        if numpy.dtype(of).kind == "f" and numpy.dtype(to).kind in "iu":
            if "rzi" not in parts:
                raise Fault(f"{own.operation} is not known")
            value = numpy.trunc(value)
        put(value.astype(to) if value.dtype != to else value.copy())
    return work
