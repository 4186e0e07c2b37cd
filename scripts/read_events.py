"""Reads a run's event files with TensorBoard's own reader, and compares them with metrics.jsonl.

Run from the root of the repository with tensorboard installed:
    cargo build -p densenet-tests --example watched && python scripts/read_events.py
`python scripts/read_events.py golden` prints the records that the tests of train/tensorboard.rs
hold, by TensorBoard's own writer. Made with tensorboard 2.21.0.
"""

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

PROGRAM = "target/debug/examples/watched"


def golden() -> None:
    scalar = summary_pb2.Summary.Value
    scalars = [
        scalar(tag="train/loss", simple_value=0.625),
        scalar(tag="train/learning_rate", simple_value=0.1),
    ]
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    wall_time = 1700000000.25
    for event in [
        event_pb2.Event(wall_time=wall_time, step=300, summary=summary_pb2.Summary(value=scalars)),
        event_pb2.Event(wall_time=wall_time, step=301, session_log=start),
        event_pb2.Event(wall_time=wall_time, file_version="brain.Event:2"),
    ]:
        file = io.BytesIO()
        RecordWriter(file).write(event.SerializeToString())
        print(file.getvalue().hex())


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The metrics of a folder under TensorBoard's tags."""
    scalars = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metric = json.loads(line)
        kind = "train" if "loss" in metric else "val"
        step = metric.pop("step")
        metric.pop("epoch")
        for name, value in metric.items():
            if isinstance(value, (int, float)):
                tag = f"{kind}/{name.removeprefix('val_')}"
                scalars.setdefault(tag, []).append((step, float(np.float32(value))))
    return scalars


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def compare(folder: Path) -> None:
    ours, theirs = written(folder), shown(folder)
    for tag, values in ours.items():
        assert theirs[tag] == values, (tag, theirs.get(tag), values)
    files = len(list((folder / "tensorboard").iterdir()))
    counts = {tag: len(values) for tag, values in theirs.items()}
    print(f"{files} files of events as metrics.jsonl: {counts}")


def run(program: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for steps in [15, 25]:
            subprocess.run([program, folder, "3", str(steps)], check=True, capture_output=True)
            compare(folder)
        # As after a kill: files of a later step than the checkpoint's.
        checkpoint = (folder / "checkpoint.safetensors").read_bytes()
        subprocess.run([program, folder, "3", "30"], check=True, capture_output=True)
        (folder / "checkpoint.safetensors").write_bytes(checkpoint)
        subprocess.run([program, folder, "3", "28"], check=True, capture_output=True)
        compare(folder)


if sys.argv[1:] == ["golden"]:
    golden()
else:
    run(sys.argv[1] if len(sys.argv) > 1 else PROGRAM)
