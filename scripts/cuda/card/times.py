"""The table of the times in results.jsonl: for each network, batch, precision and program, the median of its runs."""

import collections
import json
import statistics

# Of the peers, how many times ours they should take at least.
WANTED = {"pytorch": 3.0, "pytorch-compile": 1.5}


def table(results, bounds):
    """Markdown. `bounds` has the roofline's milliseconds of a step, by network, batch and precision."""
    runs = collections.defaultdict(list)
    for result in results:
        if "ms_per_image" in result:
            key = (result["model"], result["batch"], result["precision"])
            runs[key, result.get("peer") or "ours"].append(result["ms_per_image"] * result["batch"])
    lines = ["| network | batch | precision | who | ms a step | images/s | runs | times ours | wanted |",
             "|---|---:|---|---|---:|---:|---:|---:|---:|"]
    row = lambda key, who, ms, count, ours, wanted: lines.append(
        f"| {key[0]} | {key[1]} | {key[2]} | {who} | {ms:.2f} | {key[1] / ms * 1e3:.0f} | {count} |"
        f" {f'{ms / ours:.2f}' if ours else ''} | {wanted or ''} |")
    for key in sorted({key for key, _ in runs}):
        ours = statistics.median(runs[key, "ours"]) if (key, "ours") in runs else None
        for who in ["ours", *WANTED]:
            if (key, who) in runs:
                row(key, who, statistics.median(runs[key, who]), len(runs[key, who]), ours, WANTED.get(who))
        if bound := bounds.get(key):
            row(key, "roofline", bound, "", ours, 0.5)
    return "\n".join(lines) + "\n"


def read(path):
    return [json.loads(line) for line in open(path)] if path.exists() else []
