"""Mistakes that are planted in a kernel's PTX, each of which has to be seen: else 'no fault' means nothing."""

import re

# What is wrong; kernel; pattern; what it becomes. Every place that fits is changed.
PLANTED = [
    ("two registers of mma's first operand are swapped", "pointwise_forward",
     r"(mma\.sync\S*\s+\{[^}]*\},\s*\{%\w+,)\s*(%\w+),\s*(%\w+),", r"\1 \3, \2,"),
    ("the registers of mma's second operand are swapped", "pointwise_forward",
     r"(mma\.sync\S*\s+\{[^}]*\},\s*\{[^}]*\},\s*\{)(%\w+),\s*(%\w+)\}", r"\1\3, \2}"),
    ("the halves of a pack are swapped", "pointwise_forward", r"(cvt\.rn\.relu\.bf16x2\.f32\s+%\w+),\s*(%\w+),\s*(%\w+);", r"\1, \3, \2;"),
    ("matrices are loaded as they lie, and not turned round", "pointwise_back", r"ldmatrix(\S*)\.trans\.", r"ldmatrix\1."),
    ("copies are not waited for", "pointwise_forward", r"cp\.async\.wait_(all|group \d);", ""),
    ("one group of copies more is left under way", "pointwise_back", r"cp\.async\.wait_group (\d);", lambda own: f"cp.async.wait_group {int(own[1]) + 1};"),
    ("there are no barriers", "pointwise_forward", r"bar\.sync\s+0;", ""),
    ("sums are read before all threads have put theirs", "finish", r"bar\.sync\s+0;", ""),
    ("the tiles' sums take the place of operands that are still read", "spatial_weight", r"bar\.sync\s+0;", ""),
    ("stores are 2 bytes further on", "pointwise_forward", r"(st\.global\.\S+\s+\[%\w+)\+?(\d*)\]", lambda own: f"{own[1]}+{int(own[2] or 0) + 2}]"),
    ("loads are 2 bytes further on", "pointwise_forward", r"(ld\.global\.v\S+\s+\{[^}]*\}, \[%\w+)\+?(\d*)\]", lambda own: f"{own[1]}+{int(own[2] or 0) + 2}]"),
    ("loads begin in front of the buffer", "pointwise_forward", r"(ld\.global\.v\S+\s+\{[^}]*\}, \[%\w+)\]", r"\1+-4096]"),
]


def plant(ptx, kernel, pattern, other):
    """The program with the mistake in one kernel."""
    start = ptx.index(f".visible .entry {kernel}(")
    end = ptx.index("\n}\n", start)
    changed, count = re.subn(pattern, other, ptx[start:end])
    if not count:
        raise SystemExit(f"{kernel} has no place for a mistake: {pattern}")
    return ptx[:start] + changed + ptx[end:]
