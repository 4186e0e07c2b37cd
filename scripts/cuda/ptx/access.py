"""Instructions that access memory, or whose lanes meet."""

import re

import numpy

from . import Fault, layouts

ADDRESS = re.compile(r"\[([%$\w.]+?)(?:\+(-?\d+))?\]$")


def compiled(machine, own, parts):
    """The work of an instruction, or nothing if it is of another kind."""
    if own.operation.startswith("cp.async"):
        return copies(machine, own, parts)
    if parts[0] in ("ld", "st", "ldmatrix", "mma", "shfl"):
        return globals()[parts[0]](machine, own, parts)
    return None


def names(text):
    return [name.strip() for name in text.strip("{}").split(",")]


def kind_of(parts):
    from .machine import TYPES
    vector = next((int(part[1]) for part in parts if re.match(r"v\d$", part)), 1)
    return numpy.dtype(TYPES[parts[-1]]), vector


def address(machine, text):
    """A function that returns the addresses of the lanes that run."""
    from .machine import type_of
    base, offset = ADDRESS.match(text).groups()
    offset = int(offset or 0)
    if not base.startswith("%"):
        start = machine.kernel.shared[base] + offset
        return lambda: numpy.full(len(machine.lanes), start, numpy.int64)
    kind = numpy.int32 if type_of(base) == numpy.uint32 else numpy.int64
    read = machine.reader(base, kind)
    return lambda: read().astype(numpy.int64) + offset


def place(machine, space, where, width, what):
    """The places in memory of an access, which is checked, and its record."""
    if space == "shared":
        at = machine.shared.check(where, machine.block[machine.lanes], width, what)
        return at, machine.shared.bytes, machine.shared.record
    at = machine.memory.check(where, width, what)
    return at, machine.memory.bytes, machine.memory.record


def who(machine):
    return machine.number[machine.lanes], machine.epoch[machine.lanes]


def ld(machine, own, parts):
    if parts[1] == "param":
        return parameter(machine, own, parts)
    kind, vector = kind_of(parts)
    width, space = kind.itemsize * vector, parts[1]
    into = [machine.writer(name) for name in names(own.arguments[0])]
    where = address(machine, own.arguments[1])

    def work():
        at, memory, record = place(machine, space, where(), width, "a load")
        record.note_read(at, width, *who(machine))
        values = memory[at[:, None] + numpy.arange(width)].view(kind)
        for number, put in enumerate(into):
            put(numpy.ascontiguousarray(values[:, number]))
    return work


def parameter(machine, own, parts):
    kind, _ = kind_of(parts)
    put, value = machine.writer(own.arguments[0]), machine.arguments[own.arguments[1].strip("[]")]
    value = numpy.array(value & (1 << 8 * kind.itemsize) - 1, f"u{kind.itemsize}")
    return lambda: put(numpy.full(len(machine.lanes), value))


def st(machine, own, parts):
    kind, vector = kind_of(parts)
    width, space = kind.itemsize * vector, parts[1]
    where = address(machine, own.arguments[0])
    values = [machine.reader(name, kind) for name in names(own.arguments[1])]

    def work():
        at, memory, record = place(machine, space, where(), width, "a store")
        record.note_write(at, width, *who(machine))
        stored = numpy.empty((len(at), vector), kind)
        for number, read in enumerate(values):
            stored[:, number] = read()
        memory[at[:, None] + numpy.arange(width)] = stored.view(numpy.uint8)
    return work


def copies(machine, own, parts):
    """cp.async, its groups, and how they are waited for."""
    if parts[2] == "commit_group":
        def commit():
            machine.group[machine.lanes] += 1
        return commit
    if parts[2] in ("wait_all", "wait_group"):
        later = int(own.arguments[0]) if own.arguments else -1

        def wait():
            until = numpy.full(machine.count, -1, numpy.int32)
            # The group at hand has no end yet: only wait_all waits for it.
            until[machine.lanes] = machine.group[machine.lanes] - 1 - later
            machine.shared.wait(until, machine.epoch)
        return wait
    into, source, width = address(machine, own.arguments[0]), address(machine, own.arguments[1]), int(own.arguments[2])
    given = machine.reader(own.arguments[3], numpy.uint32) if len(own.arguments) > 3 else lambda: numpy.uint32(width)
    if width not in (4, 8, 16):
        raise Fault(f"cp.async of {width} bytes")

    def copy():
        lanes = machine.lanes
        number, epoch = who(machine)
        to = machine.shared.check(into(), machine.block[lanes], width, "cp.async")
        at = machine.memory.check(source(), width, "cp.async, which has to have a valid address though it copies nothing,")
        real = numpy.broadcast_to(given(), at.shape)
        if ((real != 0) & (real != width)).any():
            raise Fault("cp.async of a part of its bytes")
        there = real != 0
        machine.memory.record.note_read(at[there], width, number[there], epoch[there])
        machine.shared.record.note_write(to, width, number, epoch, copies=True)
        values = machine.memory.bytes[at[:, None] + numpy.arange(width)]
        values[~there] = 0
        machine.shared.start(lanes, number, to, values, machine.group[lanes].copy())
    return copy


def warps(machine, what):
    """The number of warps that run, which are whole."""
    lanes = machine.lanes
    if len(lanes) % 32 == 0:
        of = machine.thread[lanes].reshape(-1, 32)
        if (of[:, 0] % 32 == 0).all() and (of == of[:, :1] + layouts.LANES).all() and (numpy.diff(lanes.reshape(-1, 32)) == 1).all():
            return len(of)
    raise Fault(f"{what} of a warp that is not whole")


def ldmatrix(machine, own, parts):
    transposed = "trans" in parts
    into, where = [machine.writer(name) for name in names(own.arguments[0])], address(machine, own.arguments[1])
    if "x4" not in parts or len(into) != 4:
        raise Fault("ldmatrix of other than four matrices")
    lanes = [layouts.ldmatrix(register, transposed) for register in range(4)]

    def work():
        count = warps(machine, "ldmatrix")
        at, memory, record = place(machine, "shared", where(), 16, "ldmatrix")
        record.note_read(at, 16, *who(machine))
        values = memory[at[:, None] + numpy.arange(16)].view(numpy.uint16).reshape(count, 256).astype(numpy.uint32)
        for put, (low, high) in zip(into, lanes):
            put((values[:, low] | values[:, high] << numpy.uint32(16)).reshape(-1))
    return work


def mma(machine, own, parts):
    if own.operation != "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32":
        raise Fault(f"{own.operation} is not known")
    into = [machine.writer(name) for name in names(own.arguments[0])]
    a, b = ([machine.reader(name, numpy.uint32) for name in names(own.arguments[number])] for number in (1, 2))
    c = [machine.reader(name, numpy.float32) for name in names(own.arguments[3])]

    def gathered(registers, layout, size, count):
        found = numpy.empty((count, size))
        for value, place in enumerate(layout):
            bits = registers[value // 2]().reshape(count, 32)
            bits = bits & numpy.uint32(0xffff0000) if value % 2 else bits << numpy.uint32(16)
            found[:, place] = bits.view(numpy.float32)
        return found

    def work():
        count = warps(machine, "mma")
        left = gathered(a, layouts.A, 256, count).reshape(count, 16, 16).transpose(0, 2, 1)
        right = gathered(b, layouts.B, 128, count).reshape(count, 16, 8)
        sums = numpy.empty((count, 128))
        for value, place in enumerate(layouts.RESULT):
            sums[:, place] = numpy.broadcast_to(c[value](), (count * 32,)).reshape(count, 32)
        sums = sums.reshape(count, 8, 16) + (left @ right).transpose(0, 2, 1)
        sums = sums.reshape(count, 128).astype(numpy.float32)
        for value, place in enumerate(layouts.RESULT):
            into[value](numpy.ascontiguousarray(sums[:, place]).reshape(-1))
    return work


def shfl(machine, own, parts):
    if parts[2] != "bfly":
        raise Fault(f"{own.operation} is not known")
    put = machine.writer(own.arguments[0].split("|")[0])
    value, other = machine.reader(own.arguments[1], numpy.uint32), machine.reader(own.arguments[2], numpy.uint32)

    def work():
        count = warps(machine, "shfl")
        by = numpy.broadcast_to(other(), (len(machine.lanes),)).reshape(count, 32)
        put(numpy.take_along_axis(value().reshape(count, 32), (layouts.LANES ^ by).astype(numpy.int64), 1).reshape(-1))
    return work
