"""NVIDIA's run-time compiler, which needs no card."""

import ctypes
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

WHEEL = "nvidia-cuda-nvrtc==13.0.88"
PLACE = pathlib.Path(__file__).resolve().parents[2] / "target/nvrtc"
# Where wheels for CUDA 13 and 12 have it.
LIBRARIES = ["cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"]


def find():
    """The path of the library: that which the environment variable NVRTC names, or that of the interpreter's environment,
    or one that was fetched before; or nothing."""
    if named := os.environ.get("NVRTC"):
        return named
    found = importlib.util.find_spec("nvidia")
    places = [pathlib.Path(place) for place in found.submodule_search_locations] if found else []
    for place in [*places, PLACE / "nvidia"]:
        for library in LIBRARIES:
            if (place / library).exists():
                return str(place / library)
    return None


def fetch():
    """Installs the wheel into target/nvrtc, unless the library is there."""
    if not find():
        install("--no-deps", WHEEL)


def install(*what):
    """Installs wheels into target/nvrtc."""
    uv = shutil.which("uv")
    command = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    subprocess.run([*command, "-q", "--target", PLACE, *what], check=True)


class Nvrtc:
    def __init__(self, path):
        # What it opens by name is beside it, where the loader does not look.
        for beside in sorted(pathlib.Path(path).parent.glob("libnvrtc-builtins.so.*")):
            ctypes.CDLL(str(beside))
        self.library = ctypes.CDLL(path)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def compile(self, source, constants, architecture, *more):
        """Compiles a program as the executor does. Returns its PTX, or nothing if it does not compile, and the log."""
        library, handle = self.library, ctypes.c_void_p()
        library.nvrtcCreateProgram(ctypes.byref(handle), source.encode(), None, 0, None, None)
        options = [f"--gpu-architecture={architecture}", "--std=c++17", "--device-as-default-execution-space", *constants, *more]
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = library.nvrtcCompileProgram(handle, len(options), array)
        log = self._text(handle, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
        ptx = None if failed else self._text(handle, "nvrtcGetPTXSize", "nvrtcGetPTX")
        library.nvrtcDestroyProgram(ctypes.byref(handle))
        return ptx, log

    def _text(self, handle, size, get):
        count = ctypes.c_size_t()
        getattr(self.library, size)(handle, ctypes.byref(count))
        text = ctypes.create_string_buffer(count.value)
        getattr(self.library, get)(handle, text)
        return text.value.decode()
