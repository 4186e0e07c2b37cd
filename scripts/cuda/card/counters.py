"""Nsight Compute's counters of a training step, joined with the roofline: what each kernel takes, in each stage, and which
share of the least time that is."""

import collections
import csv
import io
import json

METRICS = ["gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum",
           "sm__warps_active.avg.pct_of_peak_sustained_active", "launch__registers_per_thread"]
# The tool says which unit it has chosen.
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0,
         "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}


def command(program):
    """Nsight Compute for all kernels of a program; those of a graph one by one, with the clocks as they are."""
    return ["ncu", "--graph-profiling", "node", "--clock-control", "none", "--cache-control", "none", "--csv",
            "--metrics", ",".join(METRICS), *program]


def launches(text):
    """The launches of the last step in what the tool printed: name, and metrics in seconds and bytes."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    found = collections.OrderedDict()
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        own = found.setdefault(row["ID"], {"kernel": row["Kernel Name"].split("(")[0]})
        try:
            value = float(row["Metric Value"].replace(",", ""))
        except ValueError:
            continue
        own[row["Metric Name"]] = value * UNITS.get(row["Metric Unit"], 1.0)
    found = list(found.values())
    starts = [number for number, own in enumerate(found) if own["kernel"] == "start"]
    # A step begins with its images.
    return found[max(starts[-1] - 1, 0):] if starts else []


def joined(measured, counted):
    """For each kernel and stage of the roofline's launches, the sums of both. The n-th launch of a kernel is the n-th that
    was counted; where there are not as many, the kernel has no stages."""
    of = collections.defaultdict(list)
    for own in counted:
        of[own["kernel"]].append(own)
    turns = collections.Counter()
    many = collections.Counter(own["kernel"] for own in measured)
    sums = collections.OrderedDict()
    for own in measured:
        name = own["kernel"]
        bounds, turn = of.get(name, []), turns[name]
        turns[name] += 1
        bound = bounds[turn] if len(bounds) == many[name] else None
        key = (name, f'{bound["family"]} {bound["stage"]}' if bound else "?")
        total = sums.setdefault(key, collections.Counter())
        total["launches"] += 1
        total["seconds"] += own.get(METRICS[0], 0.0)
        total["bytes"] += own.get(METRICS[1], 0.0) + own.get(METRICS[2], 0.0)
        total["warps"] += own.get(METRICS[3], 0.0)
        total["registers"] = max(total["registers"], own.get(METRICS[4], 0.0))
        if bound:
            total["bound"] += bound["seconds"]
            total["counted"] += bound["reads"] + bound["writes"]
    return sums


def table(text, counted, card):
    """Markdown: what takes most beyond its bound comes first."""
    measured = launches(text)
    sums = joined(measured, counted)
    all_seconds = sum(own["seconds"] for own in sums.values())
    if not all_seconds:
        return "No kernel was measured.\n"
    bound = sum(own["seconds"] for own in counted)
    lines = [f"{len(measured)} launches take {all_seconds * 1e3:.2f} ms; the roofline of {card} for them is {bound * 1e3:.2f} ms,"
             f" {bound / all_seconds:.2f} of it.", "",
             "| kernel | stage | launches | ms | of all | bound, ms | share of the bound | GB | counted | active warps | registers |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    lost = lambda own: own["bound"] - own["seconds"]
    for (kernel, stage), own in sorted(sums.items(), key=lambda item: lost(item[1])):
        seconds = own["seconds"] or 1e-12
        lines.append(f'| {kernel} | {stage} | {own["launches"]} | {own["seconds"] * 1e3:.3f} | {own["seconds"] / all_seconds:.1%}'
                     f' | {own["bound"] * 1e3:.3f} | {own["bound"] / seconds:.2f} | {own["bytes"] / 1e9:.2f} | {own["counted"] / 1e9:.2f}'
                     f' | {own["warps"] / own["launches"]:.0f}% | {own["registers"]:.0f} |')
    return "\n".join(lines) + "\n"


def read_lines(text):
    """The lines of JSON in what a program printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
