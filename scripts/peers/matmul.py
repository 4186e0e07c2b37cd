#!/usr/bin/env python3
"""The rate of large matrix products in PyTorch: what this processor's peak is in practice.

Usage: matmul.py [SIDE]   (environment: THREADS, PRECISION f32 or bf16)
"""
import json
import os
import sys
import time

import torch

side = int(sys.argv[1]) if len(sys.argv) > 1 else 2048
precision = os.environ.get("PRECISION", "f32")
torch.set_num_threads(int(os.environ.get("THREADS", "2")))
kind = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
a, b = (torch.randn(side, side).to(kind) for _ in range(2))
best = float("inf")
for _ in range(20):
    start = time.perf_counter()
    torch.mm(a, b)
    best = min(best, time.perf_counter() - start)
print(json.dumps({"peer": "pytorch-matmul", "precision": precision, "gflops": 2 * side**3 / best / 1e9}))
