"""A machine for PTX: it runs the threads of some blocks at once, and of these always those at the lowest instruction. So
threads that part meet again where their ways do, and what does not depend on the order of warps is the same as on a card."""

import re

import numpy

from . import Fault, access, arithmetic
from .memory import STEPS, Shared

# Types of values, and of registers by their names.
TYPES = {"f32": numpy.float32, "f64": numpy.float64, "u8": numpy.uint8, "b8": numpy.uint8, "u16": numpy.uint16,
         "s16": numpy.int16, "b16": numpy.uint16, "u32": numpy.uint32, "s32": numpy.int32, "b32": numpy.uint32,
         "u64": numpy.uint64, "s64": numpy.int64, "b64": numpy.uint64, "pred": numpy.bool_}
REGISTERS = {"%p": numpy.bool_, "%rs": numpy.uint16, "%r": numpy.uint32, "%rd": numpy.uint64, "%f": numpy.float32,
             "%fd": numpy.float64, "%temp": numpy.uint32}
LANES = 4096  # threads at once
# How an instruction goes on.
NEXT, BRANCH, BARRIER, RETURN = range(4)
WAITING = 1 << 30


def type_of(register):
    return REGISTERS[re.match(r"%[a-z]+", register)[0]]


class Machine:
    """A launch of a kernel: `arguments` are numbers, `given` is the shared memory of the launch in bytes."""

    def __init__(self, kernel, memory, grid, threads, arguments, given=0):
        if len(arguments) != len(kernel.parameters):
            raise Fault(f"{kernel.name} has {len(kernel.parameters)} parameters, and not {len(arguments)}")
        self.kernel, self.memory, self.grid, self.threads = kernel, memory, grid, threads
        self.arguments = dict(zip(kernel.parameters, arguments))
        self.size = kernel.declared + given
        # The narrowest access decides how finely places are told apart.
        widths = {space: [self._width(own) for own in kernel.code if re.match(rf"(ld|st)\.{space}", own.operation)]
                  for space in ("global", "shared")}
        self.unit = min(widths["shared"] + [4])
        self.teams = numpy.zeros(1024, numpy.int32)  # of threads, by the barrier that they have together
        memory.watch(min(widths["global"] + [4]), self.teams)
        self.program = [self._compile(own) for own in kernel.code]
        self.executed = set()  # places of instructions that a thread came to

    @staticmethod
    def _width(instruction):
        return numpy.dtype(TYPES[instruction.operation.split(".")[-1]]).itemsize

    def run(self):
        x, y, z = self.grid
        blocks = [(a, b, c) for c in range(z) for b in range(y) for a in range(x)]
        at_once = max(LANES // self.threads, 1)
        with numpy.errstate(all="ignore"):
            for first in range(0, len(blocks), at_once):
                self._run(blocks[first:first + at_once], first)

    def _run(self, blocks, first):
        count = len(blocks) * self.threads
        self.count, self.all = count, numpy.arange(count)
        self.thread = numpy.tile(numpy.arange(self.threads), len(blocks))
        self.block = numpy.repeat(numpy.arange(len(blocks)), self.threads)
        self.number = ((self.block + first) * 1024 + self.thread).astype(numpy.int32)
        self.epoch = numpy.zeros(count, numpy.int32)
        self.group = numpy.zeros(count, numpy.int32)  # of copies
        coordinates = numpy.array(blocks, numpy.uint32)[self.block]
        constant = lambda value: numpy.full(count, value, numpy.uint32)
        self.special = {"%tid.x": self.thread.astype(numpy.uint32), "%ntid.x": constant(self.threads),
                        "%ctaid.x": coordinates[:, 0], "%ctaid.y": coordinates[:, 1], "%ctaid.z": coordinates[:, 2],
                        **{f"%nctaid.{axis}": constant(size) for axis, size in zip("xyz", self.grid)}}
        self.registers = {}
        self.shared = Shared(len(blocks), self.size, self.unit, self.teams)
        self.barrier, self.expected = numpy.zeros(count, numpy.int64), numpy.zeros(count, numpy.int64)
        place = numpy.zeros(count, numpy.int64)
        end = len(self.program)
        while True:
            running = place < end
            if not running.any():
                if (place == end).all():
                    break
                self._barrier(place, blocks, end)
                continue
            low = int(place[running].min())
            lanes = numpy.nonzero(place == low)[0]
            others = place[(place > low) & (place < end)]
            self._go(place, low, lanes, int(others.min()) if len(others) else end, blocks)
        if any((group >= 0).any() for *_, group in self.shared.copies):
            # Harmless on a card, but nobody means it.
            raise Fault(f"{self.kernel.name} ends while it copies")

    def _barrier(self, place, blocks, end):
        """All threads wait, or have returned: those go on whose barrier has all the threads that it is for."""
        for block in numpy.unique(self.block[place >= WAITING]):
            of_block, gone = self.block == block, False
            for number in numpy.unique(self.barrier[of_block & (place >= WAITING)]):
                own = numpy.nonzero(of_block & (place >= WAITING) & (self.barrier == number))[0]
                if len(set(place[own])) > 1 or len(own) != self.expected[own[0]]:
                    continue
                gone = True
                if number == 0:
                    self.epoch[own] += STEPS - self.epoch[own] % STEPS
                else:
                    self.teams[self.thread[own]] = number
                    self.epoch[own] += 1
                place[own] += 1 - WAITING
            if not gone:
                at = sorted({"the end" if one == end else f"`{self.kernel.code[one - WAITING].text}` ({one - WAITING})" for one in set(place[of_block])})
                raise Fault(f"{self.kernel.name}, block {blocks[block]}: not all threads come to one barrier; they are at {', '.join(at)}")

    def _go(self, place, at, lanes, limit, blocks):
        """Lets some lanes go on until others wait for them where they are."""
        self.lanes, self.full = lanes, len(lanes) == self.count
        self.chosen = slice(None) if self.full else lanes
        first = True
        while at < len(self.program) and (first or at < limit):
            first = False
            kind, work = self.program[at]
            self.executed.add(at)
            try:
                if kind == NEXT:
                    work()
                    at += 1
                elif kind == BRANCH:
                    taken, target = work()
                    if taken is None or taken.all():
                        at = target
                    elif not taken.any():
                        at += 1
                    else:
                        place[lanes] = numpy.where(taken, target, at + 1)
                        return
                    if limit < len(self.program) and at >= limit:
                        break
                elif kind == BARRIER:
                    self.barrier[lanes], self.expected[lanes] = work()
                    place[lanes] = WAITING + at
                    return
                else:
                    place[lanes] = len(self.program)
                    return
            except Fault as fault:
                text = self.kernel.code[at].text
                raise Fault(f"{self.kernel.name}, blocks from {blocks[0]} on, `{text}`: {fault}") from None
        place[lanes] = at

    def _compile(self, own):
        parts = own.operation.split(".")
        if parts[0] == "bra":
            target = lambda: self.kernel.labels[own.arguments[0]]
            if own.predicate is None:
                return BRANCH, lambda: (None, target())
            condition = self._predicate(own.predicate)
            return BRANCH, lambda: (condition(), target())
        if parts[0] in ("bar", "barrier"):
            if own.predicate or parts[1] != "sync":
                raise Fault(f"a barrier of a kind that is not known: {own.text}")
            number = self.reader(own.arguments[0], numpy.uint32)
            count = int(own.arguments[1]) if len(own.arguments) > 1 else self.threads
            return BARRIER, lambda: (number(), count)
        if parts[0] in ("ret", "exit"):
            if own.predicate:
                condition, then = self._predicate(own.predicate), len(self.kernel.code)
                return BRANCH, lambda: (condition(), then)
            return RETURN, None
        try:
            work = access.compiled(self, own, parts) or arithmetic.compiled(self, own, parts)
        except (KeyError, IndexError, ValueError) as error:
            raise Fault(f"`{own.text}` is not known: {error!r}") from None
        if own.predicate is None:
            return NEXT, work
        condition = self._predicate(own.predicate)

        def guarded():
            kept = self.lanes, self.full, self.chosen
            lanes = self.lanes[condition()]
            if len(lanes):
                self.lanes, self.full, self.chosen = lanes, False, lanes
                work()
            self.lanes, self.full, self.chosen = kept
        return NEXT, guarded

    def _predicate(self, predicate):
        read, negated = self.reader(predicate[0], numpy.bool_), predicate[1]
        return (lambda: ~read()) if negated else read

    # Operands.

    def register(self, name):
        own = self.registers.get(name)
        if own is None:
            own = self.registers[name] = numpy.zeros(self.count, type_of(name))
        return own

    def reader(self, text, kind):
        """A function that returns an operand's values for the lanes that run, as a type."""
        kind = numpy.dtype(kind)
        if text.startswith("%"):
            if "." in text:
                return lambda: self.special[text][self.chosen].view(kind) if kind.itemsize == 4 else self.special[text][self.chosen].astype(kind)
            own = numpy.dtype(type_of(text))
            if own == kind:
                return lambda: self.register(text)[self.chosen]
            if own.itemsize == kind.itemsize:
                return lambda: self.register(text)[self.chosen].view(kind)
            return lambda: self.register(text)[self.chosen].astype(kind)
        value = self._constant(text, kind)
        return lambda: value

    def _constant(self, text, kind):
        if match := re.match(r"0[fF]([0-9A-Fa-f]{8})$", text):
            return numpy.array(int(match[1], 16), numpy.uint32).view(numpy.float32)[()]
        if match := re.match(r"0[dD]([0-9A-Fa-f]{16})$", text):
            return numpy.array(int(match[1], 16), numpy.uint64).view(numpy.float64)[()]
        if text in self.kernel.shared:
            return kind.type(self.kernel.shared[text])
        value = int(text.rstrip("U"), 0)
        if kind.kind == "b":
            return numpy.bool_(value)
        bits = numpy.dtype(f"u{kind.itemsize}")
        return numpy.array(value & (1 << 8 * kind.itemsize) - 1, bits).view(kind)[()]

    def writer(self, name):
        """A function that writes values of the lanes that run. What it is given belongs to the register afterwards."""
        if name in ("_", "%temp"):
            return lambda values: None
        kind = numpy.dtype(type_of(name))

        def put(values):
            values = numpy.asarray(values)
            if values.dtype != kind:
                same = values.dtype.itemsize == kind.itemsize and values.dtype.kind != "b"
                values = values.view(kind) if same else values.astype(kind)
            if self.full and values.ndim:
                self.registers[name] = values
            else:
                # A register may share its memory with another one.
                own = self.register(name).copy()
                own[self.chosen] = values
                self.registers[name] = own
        return put
