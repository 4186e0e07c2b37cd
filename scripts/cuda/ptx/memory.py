"""Global and shared memory, with what is known of each place: who wrote it, who read it, and since which barrier."""

import numpy

from . import Fault

FILL = 0xff  # a NaN in every float format
BASE = 1 << 40
APART = 4096


STEPS = 64  # the most barriers of some warps between two of the whole block


class Record:
    """Accesses of threads to places of `unit` bytes. A thread's number has its block. A time counts a block's barriers, times STEPS,
    and those that the thread's team has had since then: `teams` says which warps have barriers of their own together. Threads
    of one block race where they meet between two barriers; those of two blocks race wherever they meet."""

    def __init__(self, count, unit, teams):
        self.unit, self.teams = unit, teams
        self.writer, self.written = numpy.full(count, -1, numpy.int32), numpy.zeros(count, numpy.int32)
        self.reader, self.read = numpy.full(count, -1, numpy.int32), numpy.zeros(count, numpy.int32)
        self.block = numpy.full(count, -1, numpy.int32)  # of the readers; -2 of several
        self.pending = numpy.full(count, -1, numpy.int32)  # who has started to copy

    def places(self, at, width):
        return (at // self.unit)[:, None] + numpy.arange(max(width // self.unit, 1))

    def _fault(self, bad, what, at, who):
        line, column = numpy.argwhere(bad)[0]
        raise Fault(f"race: thread {who[line, 0] % 1024} of block {who[line, 0] // 1024} {what} at byte {at[line] + column * self.unit}")

    def _races(self, places, who, when):
        """Where another thread has written, and nothing has ordered it and this one."""
        writer, written = self.writer[places], self.written[places]
        team = self.teams[who % 1024]
        ordered = (team > 0) & (self.teams[writer % 1024] == team) & (written != when)
        same = (written // STEPS == when // STEPS) & ~ordered
        return (writer >= 0) & (writer != who) & ((writer // 1024 != who // 1024) | same)

    def note_read(self, at, width, thread, epoch):
        places, who, when = self.places(at, width), thread[:, None], epoch[:, None]
        bad = self._races(places, who, when)
        if bad.any():
            self._fault(bad, "reads what another one wrote", at, who)
        if (self.pending[places] >= 0).any():
            self._fault(self.pending[places] >= 0, "reads what is still being copied", at, who)
        # The last reader stands for all of its epoch, or several of them.
        before, same = self.reader[places], self.read[places] // STEPS == when // STEPS
        self.reader[places] = numpy.where(same & (before != -1) & (before != who), -2, who)
        self.read[places] = when
        block, own = self.block[places], who // 1024
        self.block[places] = numpy.where((block == -1) | (block == own), own, -2)
        # Of several in one instruction one is left.
        several = self.reader[places] != who
        self.reader[places[several]] = -2
        several = self.block[places] != own
        self.block[places[several]] = -2

    def note_write(self, at, width, thread, epoch, copies=False):
        places, who, when = self.places(at, width), thread[:, None], epoch[:, None]
        reader, block, own = self.reader[places], self.block[places], who // 1024
        bad = self._races(places, who, when)
        if bad.any():
            self._fault(bad, "writes what another one wrote", at, who)
        bad = (block != -1) & ((block != own) | ((self.read[places] // STEPS == when // STEPS) & (reader != who)))
        if bad.any():
            self._fault(bad, "writes what another one reads", at, who)
        if (self.pending[places] >= 0).any():
            self._fault(self.pending[places] >= 0, "writes what is still being copied", at, who)
        self.writer[places] = who
        self.written[places] = when
        if (self.writer[places] != who).any():
            self._fault(self.writer[places] != who, "writes at once with another one", at, who)
        if copies:
            self.pending[places] = who


class Memory:
    """Allocations, by the numbers of buffers, apart from each other."""

    def __init__(self, sizes):
        self.starts, at = {}, APART
        for buffer, size in sizes.items():
            self.starts[buffer] = at
            at += -(-size // 256) * 256 + APART
        self.bytes = numpy.full(at, FILL, numpy.uint8)
        self.first = numpy.array(sorted(self.starts.values()))
        self.last = self.first + numpy.array([sizes[buffer] for buffer in sorted(sizes, key=self.starts.get)])
        self.sizes, self.record = sizes, None

    def watch(self, unit, teams):
        self.record = Record(len(self.bytes) // unit, unit, teams)

    def address(self, buffer, offset):
        return BASE + self.starts[buffer] + offset

    def view(self, buffer):
        start = self.starts[buffer]
        return self.bytes[start:start + self.sizes[buffer]]

    def check(self, addresses, width, what):
        """The places of accesses."""
        at = addresses.astype(numpy.int64) - BASE
        if (at % width).any():
            raise Fault(f"{what} of {width} bytes at an address that is no multiple of it: {hex(int(addresses[at % width != 0][0]))}")
        number = numpy.searchsorted(self.first, at, side="right") - 1
        bad = (number < 0) | (at + width > self.last[numpy.maximum(number, 0)])
        if bad.any():
            place, own = int(at[bad][0]), max(int(number[bad][0]), 0)
            raise Fault(f"{what} of {width} bytes outside of allocations, {place - self.first[own]} bytes from the start of one of"
                        f" {self.last[own] - self.first[own]} bytes")
        return at


class Shared:
    """The shared memory of some blocks, that of each at a multiple of `stride`; and the copies into it that are under way."""

    def __init__(self, blocks, size, unit, teams):
        self.size, self.stride = size, -(-max(size, 16) // 16) * 16
        self.bytes = numpy.full(blocks * self.stride, FILL, numpy.uint8)
        self.record = Record(len(self.bytes) // unit, unit, teams)
        self.copies = []

    def check(self, at, block, width, what):
        if (at % width).any():
            raise Fault(f"{what} of {width} bytes of shared memory at {at[at % width != 0][0]}, which is no multiple of it")
        if (at < 0).any() or (at + width > self.size).any():
            raise Fault(f"{what} of {width} bytes at {at.max()}, beyond the {self.size} bytes of shared memory")
        return at + block * self.stride

    def start(self, lanes, thread, into, values, group):
        """Copies of `values`, one line for each lane, that belong to the lanes' groups."""
        self.copies.append((lanes, thread, into, values, group))

    def wait(self, until, epoch):
        """Completes the copies of groups up to `until`, by lane; -1 for none."""
        left = []
        for lanes, thread, into, values, group in self.copies:
            done = group <= until[lanes]
            if not done.any():
                left.append((lanes, thread, into, values, group))
                continue
            at, width = into[done], values.shape[1]
            self.bytes[at[:, None] + numpy.arange(width)] = values[done]
            places = self.record.places(at, width)
            self.record.pending[places] = -1
            self.record.writer[places] = thread[done][:, None]
            self.record.written[places] = epoch[lanes[done]][:, None]
            if not done.all():
                stays = ~done
                left.append((lanes[stays], thread[stays], into[stays], values[stays], group[stays]))
        self.copies = left
