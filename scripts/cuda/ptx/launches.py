"""Launches, as the example `kernels` lists them, each by itself: a reference takes what the kernel may read from buffers that
are NaN otherwise, and says what the kernel is to write; the machine runs the kernel; all bytes are compared."""

import numpy

from . import Fault, arithmetic
from .machine import Machine
from .memory import Memory

F32, BF16 = 1e-6, 2.0 ** -8  # the largest relative errors: of a sum in f32, and of one rounding to bfloat16
ELEMENTS = {"float": numpy.float32, "double": numpy.float64, "unsigned char": numpy.uint8, "unsigned": numpy.uint32,
            "int": numpy.int32, "Scalars": numpy.uint32, "Group": numpy.uint32}


class Launch:
    """A launch of a listing, with buffers of its own."""

    def __init__(self, listed, constants, sizes, weight_table, seed=1):
        self.kernel, self.grid, self.threads = listed["kernel"], listed["grid"], listed["threads"]
        self.given, self.constants, self.weight_table = listed["shared"], constants, weight_table
        self.bf16 = constants["BF16"] == 1
        self.random = numpy.random.default_rng(seed)
        self.ints = {own[0]: own[2] for own in listed["arguments"] if len(own) == 3}
        self.pointers = {own[0]: (self._element(own[1]), own[2], own[3]) for own in listed["arguments"] if len(own) == 4}
        self.order = [own[0] for own in listed["arguments"]]
        self.memory = Memory({buffer: sizes[buffer] for _, buffer, _ in self.pointers.values()})
        self.expected, self.afterwards = [], []

    def _element(self, of):
        return numpy.dtype(ELEMENTS.get(of, numpy.uint16 if self.bf16 else numpy.float32))

    def __getitem__(self, name):
        """A value of the launch, or a constant of the program (0 if it has none of this name)."""
        return self.ints[name] if name in self.ints else self.constants.get(name, 0)

    def stored(self, values):
        """Values as maps are stored and operands made, as f64."""
        values = numpy.asarray(values, numpy.float32)
        return (arithmetic.from_bf16(arithmetic.to_bf16(values)) if self.bf16 else values).astype(numpy.float64)

    def _elements(self, name, places):
        kind, buffer, offset = self.pointers[name]
        at = offset + kind.itemsize * numpy.asarray(places, numpy.int64)
        if at.size and (at.min() < 0 or at.max() + kind.itemsize > self.memory.sizes[buffer]):
            raise Fault(f"{self.kernel}: {name} has bytes {at.min()} to {at.max() + kind.itemsize} of a buffer of {self.memory.sizes[buffer]}")
        return kind, buffer, at

    @staticmethod
    def places(shape, stride=None, start=0):
        """Where rows x columns lie that are `stride` elements apart."""
        rows, columns = shape
        return start + numpy.arange(rows)[:, None] * (stride or columns) + numpy.arange(columns)

    def write(self, name, places, values):
        kind, buffer, at = self._elements(name, places)
        values = arithmetic.to_bf16(values).astype(kind) if self._is_bf16(name) else numpy.asarray(values).astype(kind)
        raw = self.memory.view(buffer)
        raw[at[..., None] + numpy.arange(kind.itemsize)] = values.reshape(at.shape)[..., None].view(numpy.uint8)

    def _is_bf16(self, name):
        return self.pointers[name][0] == numpy.uint16

    def read(self, name, places):
        """What lies there now, as f64."""
        kind, buffer, at = self._elements(name, places)
        raw = self.memory.view(buffer)[at[..., None] + numpy.arange(kind.itemsize)]
        values = numpy.ascontiguousarray(raw).view(kind)[..., 0]
        return (arithmetic.from_bf16(values) if self._is_bf16(name) else values).astype(numpy.float64)

    def take(self, name, shape, stride=None, start=0, kind="signed"):
        """Gives the kernel random values to read: `signed`, `positive`, or an array."""
        places = self.places(shape, stride, start)
        if isinstance(kind, str):
            kind = self.random.standard_normal(shape) if kind == "signed" else self.random.uniform(0.25, 1.25, shape)
        self.write(name, places, numpy.broadcast_to(kind, shape))
        return self.read(name, places)

    def vector(self, name, count, kind="signed"):
        return self.take(name, (1, count), kind=kind)[0]

    def put(self, name, values, stride=None, start=0, scale=None, places=None):
        """What the kernel is to write there. `scale` is the sum of the magnitudes of what a value is summed from; without it,
        of the largest value."""
        values = numpy.atleast_2d(values)
        places = self.places(values.shape, stride, start) if places is None else places
        scale = numpy.abs(values).max(initial=1e-30) if scale is None else scale
        self.expected.append((name, places, values, numpy.broadcast_to(scale, values.shape)))
        return places

    def then(self, check):
        """Calls `check`, which says what else there is to be, when the kernel has run: what depends on how others were rounded."""
        self.afterwards.append(check)

    def run(self, kernel):
        """Runs the kernel, and compares; returns the largest error, as a share of what is allowed, and the machine."""
        before = self.memory.bytes.copy()
        arguments = [self.ints[name] if name in self.ints else self.memory.address(*self.pointers[name][1:]) for name in self.order]
        machine = Machine(kernel, self.memory, self.grid, self.threads, arguments, self.given)
        machine.run()
        for check in self.afterwards:
            check()
        touched, worst = numpy.zeros(len(before), bool), 0.0
        for name, places, values, scale in self.expected:
            worst = max(worst, self._compare(name, places, values, scale, touched))
        other = (before != self.memory.bytes) & ~touched
        if other.any():
            raise Fault(f"{self.kernel} writes where nothing was to be written: {self._where(int(numpy.argmax(other)))}")
        return worst, machine

    def _compare(self, name, places, values, scale, touched):
        kind, buffer, at = self._elements(name, places)
        touched[self.memory.starts[buffer] + at[..., None] + numpy.arange(kind.itemsize)] = True
        found = self.read(name, places)
        allowed = F32 * scale + (BF16 * 1.01 * numpy.abs(values) if self._is_bf16(name) else 0) + 1e-37
        error = numpy.where((found == values) | (numpy.isnan(found) & numpy.isnan(values)), 0, numpy.abs(found - values) / allowed)
        error = numpy.where(numpy.isnan(error), numpy.inf, error)
        worst = float(error.max(initial=0))
        if worst > 1:
            place = numpy.unravel_index(int(error.argmax()), error.shape)
            raise Fault(f"{self.kernel}: {name}[{places[place]}] is {found[place]:.9g}, and not {values[place]:.9g}; {(error > 1).sum()} of"
                        f" {error.size} are wrong, the worst {worst:.3g} times what is allowed")
        return worst

    def _where(self, at):
        buffer = max((start, own) for own, start in self.memory.starts.items() if start <= at)[1]
        names = [name for name, (_, own, _) in self.pointers.items() if own == buffer]
        return f"byte {at - self.memory.starts[buffer]} of the buffer of {', '.join(names)}"

    # What kernels have in common.

    def scalars(self, **values):
        """The numbers of a step (`common.cuh`)."""
        names = ["seed", "_", "smoothing", "scale", "accumulate", "rate", "momentum", "decay", "nesterov", "fresh1", "fresh2",
                 "correction1", "correction2", "epsilon", "clip", "norm_epsilon", "fresh", "broken", "factor"]
        for name, value in values.items():
            whole = name in ("seed", "accumulate", "nesterov")
            bits = value if whole else int(numpy.float32(value).view(numpy.uint32))
            word = names.index(name)
            for offset in range(2 if name == "seed" else 1):
                self.write("scalars", numpy.array([word + offset]), numpy.array([bits >> 32 * offset & 0xffffffff], numpy.uint32))
        return {name: value if name in ("seed", "accumulate", "nesterov") else float(numpy.float32(value)) for name, value in values.items()}

    def factors(self, numbers):
        """Dropout's factors of values with these numbers, at the launch's site."""
        if not self["DROPOUT"] or self["site"] < 0:
            return numpy.ones(numpy.shape(numbers))
        word, seed = numpy.uint64, 0x123456789abcdef
        self.scalars(seed=seed)

        def mix(z):
            z = (z ^ z >> word(30)) * word(0xbf58476d1ce4e5b9)
            z = (z ^ z >> word(27)) * word(0x94d049bb133111eb)
            return z ^ z >> word(31)
        with numpy.errstate(over="ignore"):
            key = mix(word(seed) ^ mix(word(self["site"])))
            bits = mix(key + numpy.asarray(numbers, word) * word(0x9e3779b97f4a7c15))
        scale = float(numpy.array(self["DROPOUT_SCALE"], numpy.uint32).view(numpy.float32))
        return numpy.where(bits >> word(32) >= word(self["DROPOUT_THRESHOLD"]), scale, 0.0)

    def normed(self, x, scale, shift):
        """scale x + shift in f32, with one rounding."""
        with numpy.errstate(over="ignore"):
            return (x * scale + shift).astype(numpy.float32).astype(numpy.float64)

    def moments(self, name, maps, rows, tiles, where):
        """After the launch: the mean and the squared deviations of each tile's stored values, which `where` returns."""
        if not self["training"]:
            return

        def check():
            stored, found = where(), numpy.empty((tiles, maps, 2))
            for tile in range(tiles):
                own = stored[tile * rows:(tile + 1) * rows]
                found[tile, :, 0], found[tile, :, 1] = own.mean(0), ((own - own.mean(0)) ** 2).sum(0)
            scale = numpy.stack([numpy.full((tiles, maps), numpy.abs(stored).max()), found[..., 1] + (stored ** 2).max()], -1)
            self.put(name, found.reshape(1, -1), scale=scale.reshape(1, -1))
        self.then(check)

