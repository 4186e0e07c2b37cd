"""Compiles the CUDA kernels of presets (all, or those named) with NVIDIA's own NVRTC, which needs no card, and
writes what ptxas says of them to docs/kernels.md: registers, shared memory, local memory.

    python3 scripts/cuda/compile.py [sm_80 ...] [--models densenet201 cifar_bc_100_12] [--families norm ...] [--out docs/kernels.md]

The programs are those that the CUDA executor compiles: `cargo run --example kernels` prints them.
NVRTC is the library that the environment variable NVRTC names, or that of the interpreter's
environment (PyPI's nvidia-cuda-nvrtc), or else fetched into target/nvrtc (nvrtc.py). Fails if a kernel does not compile, or has more in
local memory than is known.

What is said of a program is kept in target/nvrtc/compiled, under a hash of all that it depends on: a later run compiles only
what has changed since. Of the document, all from the line COUNTS on stays as it is, and with --families everything but the
cells of these families and architectures.
"""

import argparse
import collections
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import nvrtc

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 20  # seconds that a first start of DenseNet-201 may compile
# Bytes of local memory that are known and told in docs/kernels.md, by kernel, products and architecture.
KNOWN = {("spatial_weight", "bf16", "sm_100"): 16}
KEPT = nvrtc.PLACE / "compiled"
COUNTS = "## What a step launches and moves"


def programs(models):
    """The programs of presets, as the executor would compile them."""
    command = ["cargo", "run", "-q", "--example", "kernels", "--", *models]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


@functools.cache
def library():
    return nvrtc.Nvrtc(nvrtc.find())


def compile_one(job):
    """Whether it compiled, the log, and the processor's seconds."""
    architecture, source, constants = job
    key = hashlib.sha256("\0".join([library().version, architecture, source, *constants]).encode()).hexdigest()
    kept = KEPT / f"{key}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    start = time.process_time()
    ptx, log = library().compile(source, constants, architecture, "--ptxas-options=-v")
    found = ptx is not None, log, time.process_time() - start
    KEPT.mkdir(parents=True, exist_ok=True)
    fresh = kept.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(found))
    fresh.replace(kept)
    return found


def entries(log, constants):
    """Of each kernel of a log: its name, registers, shared bytes (what the host gives at launch, too, which a constant
    says), bytes of local memory: spilled, or arrays that found no registers."""
    constants = dict(constant[2:].split("=", 1) for constant in constants if "=" in constant)
    for entry in re.split(r"Compiling entry function '", log)[1:]:
        registers = re.search(r"Used (\d+) registers", entry)
        shared = re.search(r"(\d+) bytes smem", entry)
        local = sum(int(n) for n in re.findall(r"(\d+) bytes (?:spill|stack frame)", entry))
        name = entry.split("'")[0]
        given = int(constants.get(f"{name.upper()}_SHARED", 0))
        yield name, int(registers[1]), given + (int(shared[1]) if shared else 0), local


def renewed(document, table):
    """The document with these cells of its table."""
    lines = document.splitlines()
    architectures = next(line for line in lines if line.startswith("| family |")).strip("| ").split(" | ")[3:]
    for (family, kernel, precision), of in table.items():
        start = f"| {family} | `{kernel}` | {precision} | "
        number = next((number for number, line in enumerate(lines) if line.startswith(start)), None)
        if number is None:
            row = lambda line: [cell.strip("` ") for cell in line.split("|")[1:4]]
            rows = [number for number, line in enumerate(lines) if line.startswith("| ") and line.count("|") == 4 + len(architectures)][1:]
            number = next((number for number in rows if row(lines[number]) > [family, kernel, precision]), rows[-1] + 1)
            lines.insert(number, start + " | ".join("-" * len(architectures)) + " |")
        cells = lines[number][len(start):].strip("| ").split(" | ")
        for place, architecture in enumerate(architectures):
            if architecture in of:
                cells[place] = " / ".join(map(str, of[architecture]))
        lines[number] = start + " | ".join(cells) + " |"
    return "\n".join(lines) + "\n"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("architectures", nargs="*")
    arguments.add_argument("--models", nargs="*", default=[])
    arguments.add_argument("--families", nargs="*", help="only these, whose cells alone are renewed in the document")
    arguments.add_argument("--programs", type=pathlib.Path, help="what the example printed, instead of running it")
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/kernels.md")
    arguments = arguments.parse_args()
    architectures = arguments.architectures or ["sm_80", "sm_90", "sm_100"]

    if arguments.programs:
        found = [json.loads(line) for line in arguments.programs.read_text().splitlines()]
    else:
        found = programs(arguments.models)
    if arguments.families:
        found = [program for program in found if program["family"] in arguments.families]
    jobs = {}
    for program in found:
        for architecture in architectures:
            job = (architecture, program["source"], tuple(program["constants"]))
            jobs.setdefault(job, []).append(program)
    nvrtc.fetch()
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(jobs, pool.map(compile_one, jobs)))

    mistakes = 0
    # Of each kernel and precision, the most of all programs that have it, by architecture.
    table = collections.defaultdict(dict)
    seconds = collections.Counter()
    for job, users in jobs.items():
        good, log, took = results[job]
        architecture, program = job[0], users[0]
        for model, precision in {(user["model"], user["precision"]) for user in users}:
            seconds[model, precision, architecture] += took
        name = f'{program["model"]} {program["precision"]} {program["family"]}'
        if not good:
            mistakes += 1
            print(f"{name} does not compile for {architecture}:\n{log}", file=sys.stderr)
            continue
        for kernel, *numbers in entries(log, job[2]):
            products = "bf16" if "-DBF16=1" in job[2] else "f32"
            if numbers[2] > KNOWN.get((kernel, products, architecture), 0):
                mistakes += 1
                print(f"{name}, kernel {kernel}, has {numbers[2]} bytes in local memory on {architecture}", file=sys.stderr)
            of = table[program["family"], kernel, products]
            of[architecture] = [max(pair) for pair in zip(of.get(architecture, [0, 0, 0]), numbers)]

    if arguments.families:
        arguments.out.write_text(renewed(arguments.out.read_text(), table))
        print(f"renewed the cells of {', '.join(arguments.families)} in {arguments.out}: {len(jobs)} programs, {mistakes} mistakes")
        sys.exit(mistakes > 0)
    models = sorted({program["model"] for program in found})
    lines = [
        "# Kernels, as ptxas sees them",
        "",
        f"`scripts/cuda/compile.py` with NVRTC {library().version}: {len(jobs)} programs of {len(models)} presets,"
        f" for {', '.join(architectures)}. A cell gives the largest values over all programs with the kernel:"
        " registers per thread / bytes of shared memory per block / bytes of local memory, which must be 0 (no spills).",
        "",
        "| family | kernel | products | " + " | ".join(architectures) + " |",
        "|---|---|---|" + "---|" * len(architectures),
    ]
    for (family, kernel, precision), of in sorted(table.items()):
        cells = [" / ".join(map(str, of[architecture])) if architecture in of else "-" for architecture in architectures]
        lines.append(f"| {family} | `{kernel}` | {precision} | " + " | ".join(cells) + " |")
    slow = []
    if "densenet201" in models:
        cores = os.cpu_count()
        lines += ["", "Seconds of a processor to compile all programs of DenseNet-201, summed over the programs."
                  " The executor compiles on all cores, so a first start takes"
                  f" the sum divided by their number; the limit is {LIMIT} s.", "",
                  "| products | " + " | ".join(architectures) + " |", "|---|" + "---|" * len(architectures)]
        for precision in ("f32", "bf16"):
            took = [seconds["densenet201", precision, architecture] for architecture in architectures]
            slow += [t for t in took if t / cores > LIMIT]
            lines.append(f"| {precision} | " + " | ".join(f"{t:.1f}" for t in took) + " |")
    arguments.out.parent.mkdir(exist_ok=True)
    before = arguments.out.read_text() if arguments.out.exists() else ""
    counts = before[before.index(COUNTS):] if COUNTS in before else ""
    arguments.out.write_text("\n".join(lines) + "\n" + ("\n" + counts if counts else ""))
    print(f"wrote {arguments.out}: {len(jobs)} programs, {mistakes} mistakes")
    sys.exit(mistakes > 0 or bool(slow))


if __name__ == "__main__":
    main()
