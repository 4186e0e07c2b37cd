"""Checks what `densenet export` writes with onnx, ONNX Runtime and OpenVINO, against PyTorch.

Run from the root of the repository with torch, torchvision, safetensors, onnx, onnxscript, onnxruntime,
openvino and pillow installed:
    cargo build -p densenet-models --bin densenet && python scripts/onnx_check.py
`--program FILE` takes another build of the command, `--networks NAME...` some of the networks.

torchvision's DenseNet-121 and DenseNet-201 with random weights and BN that is not trivial, and the small
networks of scripts/reference, one of each kind. Each is exported plain and folded, in f32 and f16.
`onnx.checker` checks the file in full, and shape inference must find the shape of each value. Logits of one
image and of three are compared with PyTorch's in float64: the largest difference, relative to the largest
logit, is at most 1e-4 in f32 and 2e-2 in f16. torchvision's networks are exported by `torch.onnx.export`,
too, for the size of the file and the number of operators, and DenseNet-201's file must be at most 1% larger
than its weights. The lines of Python in docs/onnx.md are run on a picture, and must give what `densenet predict`
gives. The exit status is 1 if anything is not so.
"""

import argparse
import contextlib
import csv
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "reference"))
from densenet import DenseNet  # noqa: E402
from make import NETWORKS, OUT  # noqa: E402

TOLERANCE = {"f32": 1e-4, "f16": 2e-2}
FORMS = [("f32", ""), ("f32", "--fold"), ("f16", ""), ("f16", "--fold")]
BATCHES = (1, 3)


def of_torchvision(name: str):
    """A model, and the shape of its images."""
    torch.manual_seed(1)
    model = getattr(torchvision.models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model, (3, 224, 224)


def small(name: str):
    spec = NETWORKS[name]
    model = DenseNet(spec)
    golden = load_file(OUT / f"{name}.safetensors")
    names = model.state_dict()
    state = {key: value for key, value in golden.items() if key in names}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return model, spec.input


MODELS = {
    "densenet121": of_torchvision,
    "densenet201": of_torchvision,
    **dict.fromkeys(NETWORKS, small),
}
# How far probabilities may be from those of `densenet predict`, which resizes pictures by code of its own.
PROBABILITY = 1e-3
# All that a file has; Cast is that of f16 files, whose images and logits are f32.
OPERATORS = {
    *("Conv", "BatchNormalization", "Relu", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Flatten", "Gemm", "Softmax", "Sigmoid", "Cast"),
}


def difference(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def in_onnxruntime(path: Path, batches):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(None, {"images": images})[0] for images in batches]


def in_openvino(path: Path, batches):
    core = openvino.Core()
    # Its default on some processors is bf16, which is not what is compared.
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [model(images)[0] for images in batches]


def checked(path: Path, output: str, classes: int):
    """The model, after what the package onnx has to say of it."""
    model = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert [(own.domain, own.version) for own in model.opset_import] == [("", 17)]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    found = {value.name for value in inferred.graph.value_info} | {output}
    assert all(name in found for node in model.graph.node for name in node.output)
    shape = inferred.graph.output[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", classes), shape
    return model


class Check:
    def __init__(self, program: Path, folder: Path):
        self.program, self.folder, self.agree = program, folder, True

    def export(self, name: str, shape, *options: str) -> Path:
        path = self.folder / f"{name}.onnx"
        size = "x".join(map(str, shape))
        command = [self.program, "export", "--weights", self.folder / f"{name}.safetensors"]
        command += ["--onnx", path, "--input", size, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return path

    def within(self, what: str, found: float, most: float) -> None:
        if found > most:
            print(f"  {what}: {found:.1e} IS MORE THAN {most:.1e}")
            self.agree = False

    def network(self, name: str) -> None:
        model, shape = MODELS[name](name)
        model.eval()
        state = {key: own.clone() for key, own in model.state_dict().items()}
        save_file(state, self.folder / f"{name}.safetensors")
        numbers = sum(own.numel() for own in state.values() if own.is_floating_point())
        torch.manual_seed(2)
        batches = [torch.randn(batch, *shape) for batch in BATCHES]
        with torch.no_grad():
            single = [model(images).numpy() for images in batches]
            model.double()
            truth = [model(images.double()).numpy() for images in batches]
            model.float()
        classes = truth[0].shape[1]
        own = max(difference(a, b) for a, b in zip(single, truth))
        print(f"{name}: {4 * numbers:,} bytes of weights; PyTorch's f32 differs by {own:.1e}")
        images = [images.numpy() for images in batches]
        for kind, fold in FORMS:
            options = [*([fold] if fold else []), *(["--f16"] if kind == "f16" else [])]
            path = self.export(name, shape, *options)
            graph = checked(path, "logits", classes).graph
            self.tensors(graph, state, kind, fold)
            size = path.stat().st_size
            differences = []
            for runtime in (in_onnxruntime, in_openvino):
                found = runtime(path, images)
                worst = max(difference(a, b) for a, b in zip(found, truth))
                self.within(f"{runtime.__name__} {options}", worst, TOLERANCE[kind])
                differences.append(worst)
            if name == "densenet201":
                weights = numbers * (4 if kind == "f32" else 2)
                self.within("size", size / weights, 1.01)
            print(
                f"  {kind} {fold or 'plain':7} {size:11,} bytes, {len(graph.node):4} operators; "
                f"ONNX Runtime {differences[0]:.1e}, OpenVINO {differences[1]:.1e}"
            )
        for word, expected in [
            ("softmax", torch.softmax(torch.from_numpy(truth[1]), 1)),
            ("sigmoid", torch.sigmoid(torch.from_numpy(truth[1]))),
        ]:
            path = self.export(name, shape, f"--{word}")
            checked(path, "probabilities", classes)
            for runtime in (in_onnxruntime, in_openvino):
                found = runtime(path, images[1:])[0]
                self.within(f"{runtime.__name__} {word}", difference(found, expected), 1e-4)
        if MODELS[name] is of_torchvision:
            self.theirs(name, model, batches[1], truth[1])

    def tensors(self, graph, state, kind: str, fold: str) -> None:
        """Plain tensors are those of the state dict, under its names."""
        own = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        if fold:
            return
        names = {name for name in state if not name.endswith("num_batches_tracked")}
        assert own.keys() == names, own.keys() ^ names
        element = np.float32 if kind == "f32" else np.float16
        for name in names:
            assert (own[name] == state[name].numpy().astype(element)).all(), name

    def document(self) -> None:
        """The lines of Python in docs/onnx.md, on a picture whose sides fit none of the network's."""
        text = (ROOT / "docs" / "onnx.md").read_text()
        [lines] = [block.split("```")[0] for block in text.split("```python\n")[1:]]
        model, shape = small("imagenet_bc")
        notes = {
            "densenet.classes": json.dumps([f"flower {number}" for number in range(7)]),
            "densenet.normalization": json.dumps({"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}),
        }
        worst = 0.0
        for view, size in [(None, (70, 61)), ({"crop_pct": 0.9, "interpolation": "bicubic"}, (50, 240))]:
            own = {**notes, **({"densenet.view": json.dumps(view)} if view else {})}
            save_file(dict(model.state_dict()), self.folder / "flowers.safetensors", own)
            rng = np.random.default_rng(5)
            colours = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            colours.resize(size, Image.Resampling.BICUBIC).save(self.folder / "flower.jpg", quality=90)
            self.export("flowers", shape, "--softmax")
            names, printed = {}, io.StringIO()
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(lines, names)
            command = [self.program, "predict", "--weights", "flowers.safetensors", "--format", "csv"]
            command += ["--input", "x".join(map(str, shape)), "flower.jpg"]
            said = subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.PIPE, text=True)
            [_, row] = csv.reader(said.stdout.splitlines())
            expected = np.array([float(cell) for cell in row[1:-1]])
            worst = max(worst, float(np.abs(names["answers"][0] - expected).max()))
            if printed.getvalue().strip() != row[-1]:
                print(f"  docs/onnx.md prints {printed.getvalue()!r}, BUT predict SAYS {row[-1]!r}")
                self.agree = False
        self.within("docs/onnx.md", worst, PROBABILITY)
        print(f"docs/onnx.md: probabilities differ by {worst:.1e}")

    def theirs(self, name: str, model, images, truth) -> None:
        """torchvision's network as PyTorch exports it."""
        path = self.folder / f"{name}.torch.onnx"
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            model,
            (images,),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        graph = onnx.load(path).graph
        found = in_onnxruntime(path, [images.numpy()])[0]
        size, operators = path.stat().st_size, Counter(node.op_type for node in graph.node)
        print(
            f"  torch.onnx.export {size:,} bytes, {len(graph.node)} operators, "
            f"{len(graph.initializer)} tensors; ONNX Runtime {difference(found, truth):.1e}"
        )
        ours = onnx.load(self.export(name, images.shape[1:], "--fold")).graph
        more = Counter(node.op_type for node in ours.node)
        print(f"    theirs {dict(sorted(operators.items()))}")
        print(f"    folded {dict(sorted(more.items()))}")
        metadata = onnx.load(self.folder / f"{name}.onnx").metadata_props
        view = {entry.key: entry.value for entry in metadata}
        mean = json.loads(view["densenet.normalization"])["mean"]
        assert np.allclose(mean, [0.485, 0.456, 0.406]), mean


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/densenet")
    parser.add_argument("--networks", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    modules = (onnx, onnxruntime, openvino, torch, torchvision)
    print(", ".join(f"{module.__name__} {module.__version__}" for module in modules))
    with tempfile.TemporaryDirectory() as temporary:
        check = Check(options.program.resolve(), Path(temporary))
        check.document()
        for name in options.networks:
            check.network(name)
    print("agrees" if check.agree else "DOES NOT AGREE")
    sys.exit(not check.agree)
