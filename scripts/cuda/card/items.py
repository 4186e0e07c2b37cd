"""Runs the items of a measurement, one after another or together, each with a limit of its own; a failure costs its own
item only. An item's result is written when it ends: a line of JSON in results.jsonl, its output in logs/."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

# What says how a test, a benchmark or a tool ended.
TELLING = re.compile(r"^test result|panicked|rror:|SUMMARY|ms_per_image")


class Items:
    def __init__(self, out, seconds, skip=(), only=(), patience=1):
        """`seconds` is for all items together; those that are named in `skip`, or not in `only`, are left out. Limits are
        longer by the factor `patience`."""
        self.out, self.skip, self.only = pathlib.Path(out), set(skip), set(only)
        self.logs = self.out / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.start = time.monotonic()
        self.patience, self.end = patience, self.start + seconds * patience
        self.lock, self.wrong = threading.Lock(), []

    def left(self):
        return self.end - time.monotonic()

    def wanted(self, name):
        return name not in self.skip and (not self.only or name in self.only)

    def write(self, **result):
        """A line of JSON, and a line on the terminal."""
        with self.lock, open(self.out / "results.jsonl", "a") as file:
            file.write(json.dumps(result) + "\n")
            if result.get("state", "done") != "done":
                self.wrong.append(result)
        said = " ".join(f"{key}={value}" for key, value in result.items() if key != "said")
        print(f"[{time.monotonic() - self.start:.0f} s] {said} {result.get('said', '')[:240]}", flush=True)

    def run(self, name, command, limit, **environment):
        """Runs a command; returns what it printed, or nothing if it failed or there was no time."""
        limit = min(limit * self.patience, self.left())
        if limit < 5:
            self.write(item=name, state="no time")
            return ""
        since, log = time.monotonic(), self.logs / f"{name}.log"
        with open(log, "w") as file:
            try:
                process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT,
                                           env={**os.environ, **environment}, start_new_session=True)
            except OSError as error:
                self.write(item=name, state="failed", said=str(error))
                return ""
            try:
                process.wait(limit)
                state = "done" if process.returncode == 0 else f"failed ({process.returncode})"
            except subprocess.TimeoutExpired:
                # With all that it started.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                state = "out of time"
        text = log.read_text(errors="replace")
        said = [line for line in text.splitlines() if TELLING.search(line)][-3:]
        self.write(item=name, state=state, seconds=round(time.monotonic() - since, 1), said=" | ".join(said))
        return text if state == "done" else ""

    def together(self, jobs, at_once):
        """Runs (name, command, limit) beside each other, in the order in which they are given."""
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda job: self.run(*job), jobs))
