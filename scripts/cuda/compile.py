"""Compiles every kernel family with NVIDIA's own NVRTC, which needs no card, for the shapes of
DenseNet-201 and of DenseNet-BC-100-12, and prints what ptxas says: registers and spills.

    python3 scripts/cuda/compile.py [sm_80 sm_90 ...]

NVRTC comes from PyPI into a folder of its own (target/nvrtc). The constants are those of
densenet-runtime/src/cuda/program.rs.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ROOT / "densenet-runtime/src/cuda/kernels"
WHEEL = "nvidia-cuda-nvrtc-cu12==12.9.86"
PLACE = ROOT / "target/nvrtc"


def nvrtc():
    """The library, fetched once."""
    folder = PLACE / "nvidia/cuda_nvrtc/lib"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", PLACE, WHEEL]
        subprocess.run(pip, check=True)
    return ctypes.CDLL(str(folder / "libnvrtc.so.12"))


def program(files, constants):
    lines = "#define EPSILON 1e-5\n#define MOMENTUM 0.1\n"
    for file in files:
        lines += f'#line 1 "{file}"\n' + (KERNELS / file).read_text() + "\n"
    return lines, constants


def programs():
    """Name, source and constants of each program."""
    tiled = ["common.cuh", "product.cuh", "pull.cuh"]
    dropout = {"DROPOUT": 1, "DROPOUT_THRESHOLD": 858993459, "DROPOUT_SCALE": 0x3FA00000}
    networks = {
        "densenet201": dict(k=32, init=64, layers=[6, 12, 48, 32], side=56, input=224, classes=1000),
        "bc_100_12": dict(k=12, init=24, layers=[16, 16, 16], side=32, input=32, classes=10),
    }
    for bf16, kind in enumerate(["f32", "bf16"]):
        for family in ("norm", "step"):
            yield f"{kind} {family}", *program(["common.cuh", f"{family}.cu"], {"BF16": bf16})
    for name, net in networks.items():
        imagenet = net["input"] == 224
        for bf16 in (0, 1):
            kind = f"{name} {'bf16' if bf16 else 'f32'}"
            own = {"BF16": bf16, **(dropout if name == "bc_100_12" else {})}
            k, maps, side = net["k"], net["init"], net["side"]
            stem = {
                "KERNEL": 7 if imagenet else 3, "STEP": 2 if imagenet else 1, "CHANNELS": 3,
                "HEIGHT": net["input"], "WIDTH": net["input"], "MAPS": maps, "POOL": int(imagenet),
            }
            files = tiled + ["stem.cu"] + (["pool.cu"] if imagenet else [])
            yield f"{kind} stem", *program(files, {**own, **stem})
            for number, layers in enumerate(net["layers"], 1):
                out = maps + layers * k
                size = {"HEIGHT": side, "WIDTH": side}
                narrow = {"KERNEL": 1, "IN_STRIDE": out, "OUT_STRIDE": 4 * k, "MAPS": 4 * k}
                wide = {"KERNEL": 3, "IN_STRIDE": 4 * k, "OUT_STRIDE": out, "MAPS": k}
                for what, shape in (("1x1", narrow), ("3x3", wide)):
                    constants = {**own, **size, **shape}
                    yield f"{kind} block{number} {what}", *program(tiled + ["convolution.cu"], constants)
                if number < len(net["layers"]):
                    maps = out // 2
                    after = maps + net["layers"][number] * k
                    shape = {**size, "IN": out, "OUT": maps, "OUT_STRIDE": after}
                    yield f"{kind} transition{number}", *program(tiled + ["transition.cu"], {**own, **shape})
                    side //= 2
            head = {"CHANNELS": out, "PIXELS": side * side, "CLASSES": net["classes"]}
            yield f"{kind} head", *program(tiled + ["head.cu"], {**own, **head})


def compile_one(library, source, constants, architecture):
    """Whether it compiles, and the log."""
    handle = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(handle), source.encode(), None, 0, None, None)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"]
    options += [f"-D{name}={value}" for name, value in constants.items()]
    array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = library.nvrtcCompileProgram(handle, len(options), array)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(handle, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(handle, log)
    library.nvrtcDestroyProgram(ctypes.byref(handle))
    return not failed, log.value.decode()


def main():
    library = nvrtc()
    mistakes = 0
    for architecture in sys.argv[1:] or ["sm_80", "sm_90"]:
        start, count = time.time(), 0
        print(f"\n| {architecture} | kernel | registers | shared bytes | spilled bytes |\n|---|---|---|---|---|")
        for name, source, constants in programs():
            good, log = compile_one(library, source, constants, architecture)
            count += 1
            if not good:
                mistakes += 1
                print(f"{name} for {architecture}:\n{log}", file=sys.stderr)
                continue
            entries = re.split(r"Compiling entry function '", log)[1:]
            for entry in entries:
                kernel = entry.split("'")[0]
                registers = re.search(r"Used (\d+) registers", entry)
                shared = re.search(r"(\d+) bytes smem", entry)
                spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", entry))
                print(f"| {name} | {kernel} | {registers[1] if registers else '?'} | {shared[1] if shared else 0} | {spills} |")
        print(f"{count} programs for {architecture} in {time.time() - start:.1f} s", file=sys.stderr)
    sys.exit(mistakes > 0)


if __name__ == "__main__":
    main()
