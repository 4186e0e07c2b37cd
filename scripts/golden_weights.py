"""Makes densenet-runtime/tests/pytorch: small files of weights as PyTorch and others write them.

Run from the root of the repository with torch, torchvision, timm, monai and torchxrayvision:
    python scripts/golden_weights.py
Made with torch 2.15.0, torchvision 0.29.2, timm 1.0.31, monai 1.6.1 and torchxrayvision 1.5.7.

`containers/` has the tensors of `TENSORS` in each container; `networks/` has a small network under
the names of each library, and `logits.json` has what it makes of `images`.

    python scripts/golden_weights.py check [FILE...]
checks that torch.load(weights_only=True) takes `written.pth`, which our writer made, and that
torchvision's DenseNet takes files that were converted here, such as target/tmp/converted/monai.pth of
the tests, and has the outputs of the network that they came from.
"""

import copyreg
import io
import json
import pickle
import re
import struct
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import torch
from torch import nn

ROOT = Path("densenet-runtime/tests/pytorch")
TENSORS = OrderedDict(
    [
        ("a.weight", torch.arange(24.0).reshape(2, 3, 4) / 8),
        ("a.bias", torch.tensor([-1.5, 0.25])),
        ("scalar", torch.tensor(2.5)),
        ("empty", torch.zeros(0, 3)),
    ]
)


def containers() -> None:
    folder = ROOT / "containers"
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, what, **how) -> None:
        torch.save(what, folder / name, **how)

    def old(name: str, what) -> None:
        save(name, what, _use_new_zipfile_serialization=False)

    save("zip.pth", TENSORS)
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pth", TENSORS, pickle_protocol=protocol)
    torch.serialization.set_crc32_options(False)
    save("no_checksums.pth", TENSORS)
    torch.serialization.set_crc32_options(True)
    old("stream.pth", TENSORS)
    python2("python2.pth", TENSORS)
    tar("tar.pth", TENSORS)
    packed = folder / "packed.pth"
    pack(folder / "zip.pth", packed)

    for kind in ("float64", "float16", "bfloat16"):
        cast = {name: t.to(getattr(torch, kind)) for name, t in TENSORS.items()}
        save(f"{kind}.pth", cast)
        old(f"{kind}_stream.pth", cast)
    whole = torch.arange(-3, 3)
    kinds = {k: whole.to(getattr(torch, k)) for k in ("int64", "int32", "int16", "int8")}
    kinds |= {"uint8": whole.abs().to(torch.uint8), "bool": whole > 0}
    save("integers.pth", {**kinds, "complex": torch.zeros(2, dtype=torch.complex64)})
    old("integers_stream.pth", {**kinds, "complex": torch.zeros(2, dtype=torch.complex64)})

    a = torch.arange(24.0).reshape(4, 6)
    views = {"a": a, "turned": a.t(), "part": a[1:3, ::2], "expanded": a[:1].expand(5, 6)}
    save("views.pth", views)
    old("views_stream.pth", views)
    tar("views_tar.pth", views, parts={"part": (6, 18)})
    save("parameters.pth", {name: nn.Parameter(t) for name, t in TENSORS.items()})

    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    save("checkpoint.pth", {"epoch": 3, "state_dict": TENSORS, "optimizer": optimizer})
    average = {**{name: t + 1 for name, t in TENSORS.items()}, "n_averaged": torch.tensor(7)}
    save("averaged.pth", {"model_ema": average, "loss": torch.tensor(0.5), "model": TENSORS})
    save("listed.pth", [{"net": {"generator": TENSORS}}, 3])
    save("three.pth", 3)
    save("sparse.pth", {"a": a, "sparse": torch.sparse_coo_tensor([[0], [0]], [1.0], (2, 2))})

    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3, bias=False), norm=nn.BatchNorm2d(2)))
    with torch.no_grad():
        module.conv.weight.copy_(torch.arange(18.0).reshape(2, 1, 3, 3))
    save("module.pth", module)
    # PyTorch's own source, which the stream contains, is of no interest.
    with mock.patch("torch.serialization.get_source_lines_and_file", lambda _: (["..."], 1, "a.py")):
        old("module_stream.pth", module)
    save("parallel.pth", {"model": nn.DataParallel(module)})
    program = io.BytesIO()
    torch.jit.save(torch.jit.script(module), program)
    program.seek(0)
    pack(program, folder / "program.pt")


def pack(file: Path | io.BytesIO, to: Path) -> None:
    """The same zip as people pack it again, without what is for debuggers."""
    with zipfile.ZipFile(file) as read, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as write:
        for info in read.infolist():
            if info.filename.endswith(".debug_pkl"):
                continue
            own = zipfile.ZipInfo(info.filename)
            own.compress_type = zipfile.ZIP_DEFLATED
            write.writestr(own, read.read(info))


class Named:
    """What stands outside of a pickle."""

    def __init__(self, name) -> None:
        self.name = name


class Pickler(pickle.Pickler):
    """As Python 2 wrote ordered dictionaries: made from a list of pairs."""

    dispatch_table = copyreg.dispatch_table | {
        OrderedDict: lambda d: (OrderedDict, ([[k, v] for k, v in d.items()],))
    }

    def persistent_id(self, value):
        return value.name if isinstance(value, Named) else None


class Rebuilt:
    def __init__(self, tensor: torch.Tensor, key: str) -> None:
        self.tensor, self.key = tensor, key

    def __reduce__(self):
        t = self.tensor
        numel = t.untyped_storage().nbytes() // 4
        storage = Named(("storage", torch.FloatStorage, self.key, "cpu", numel, None))
        arguments = (storage, t.storage_offset(), tuple(t.size()), tuple(t.stride()))
        return torch._utils._rebuild_tensor, arguments


def python2(name: str, tensors) -> None:
    """A stream as PyTorch 0.2 wrote it under Python 2."""
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(value, file, 2)
    keys = {own: str(94000 + index) for index, own in enumerate(tensors)}
    Pickler(file, 2).dump(OrderedDict((own, Rebuilt(t, keys[own])) for own, t in tensors.items()))
    pickle.dump(list(keys.values()), file, 2)
    for tensor in tensors.values():
        storage = bytes(tensor.untyped_storage())
        file.write(struct.pack("<q", len(storage) // 4) + storage)
    (ROOT / "containers" / name).write_bytes(file.getvalue())


def tar(name: str, tensors, parts=None) -> None:
    """A tar as PyTorch 0.1 wrote it. `parts` have storages that are parts of others: offset and
    length."""
    storages, headers = io.BytesIO(), io.BytesIO()
    roots, views = {}, []
    for tensor in tensors.values():
        pointer = tensor.untyped_storage().data_ptr()
        roots.setdefault((pointer, tensor.untyped_storage().nbytes()), (1000 + len(roots), tensor))
    pickle.dump(len(roots), storages, 2)
    for key, tensor in roots.values():
        storage = bytes(tensor.untyped_storage())
        pickle.dump((key, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", len(storage) // 4) + storage)
    pickle.dump(len(tensors), headers, 2)
    for index, (own, tensor) in enumerate(tensors.items()):
        storage = tensor.untyped_storage()
        key, offset = roots[storage.data_ptr(), storage.nbytes()][0], tensor.storage_offset()
        if own in (parts or {}):
            start, length = parts[own]
            views.append((3000 + index, key, start, length))
            key, offset = 3000 + index, offset - start
        pickle.dump((2000 + index, key, torch.FloatTensor), headers, 2)
        dimensions = tensor.dim()
        headers.write(struct.pack("<ii", dimensions, 0))
        headers.write(struct.pack(f"<{2 * dimensions}q", *tensor.shape, *tensor.stride()))
        headers.write(struct.pack("<q", offset))
    pickle.dump(views, storages, 2)
    objects = io.BytesIO()
    named = OrderedDict((own, Named(2000 + index)) for index, own in enumerate(tensors))
    Pickler(objects, 2).dump(named)
    system = io.BytesIO()
    pickle.dump({"protocol_version": 1000, "little_endian": True}, system, 2)
    path = ROOT / "containers" / name
    files = {"sys_info": system, "pickle": objects, "tensors": headers, "storages": storages}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for own, file in files.items():
            info = tarfile.TarInfo(own)
            info.size = file.tell()
            file.seek(0)
            archive.addfile(info, file)
    read = torch.load(path, weights_only=False)
    assert all(torch.equal(read[own], tensors[own]) for own in tensors), name


SHAPE = {"growth_rate": 4, "block_config": (2, 1), "bn_size": 2}


def images(channels: int) -> torch.Tensor:
    """Numbers that a test can make, too."""
    index = torch.arange(channels * 32 * 32)
    return ((index * 37 % 101) / 50 - 1).reshape(1, channels, 32, 32)


def networks() -> None:
    import monai.networks.nets
    import timm.models.densenet
    import torchvision
    import torchxrayvision

    folder = ROOT / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    logits = {}

    def ready(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        return network.eval()

    def keep(name: str, what, forward, channels: int = 3, **how) -> None:
        torch.save(what, folder / f"{name}.pth", **how)
        with torch.no_grad():
            logits[name] = forward(images(channels))[0].tolist()

    def tv() -> nn.Module:
        own = torchvision.models.DenseNet(num_init_features=8, num_classes=3, **SHAPE)
        return ready(own)

    network = tv()
    keep("torchvision", network.state_dict(), network)

    network = tv()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): tensor
        for name, tensor in network.state_dict().items()
        if "num_batches_tracked" not in name
    }
    keep("torchvision_2017", old, network, _use_new_zipfile_serialization=False)

    network = ready(timm.models.densenet.DenseNet(num_classes=3, **SHAPE))
    keep("timm", {"state_dict": network.state_dict(), "arch": "densenet"}, network)

    network = ready(
        monai.networks.nets.DenseNet(
            spatial_dims=2, in_channels=3, out_channels=3, init_features=8, **SHAPE
        )
    )
    keep("monai", network.state_dict(), network)

    class CheXNet(nn.Module):
        """https://github.com/arnoweng/CheXNet"""

        def __init__(self) -> None:
            super().__init__()
            self.densenet121 = tv()
            features = self.densenet121.classifier.in_features
            self.densenet121.classifier = nn.Sequential(nn.Linear(features, 3), nn.Sigmoid())

    network = CheXNet().eval()
    inner = network.densenet121
    inner_logits = lambda x: inner.classifier[0](
        nn.functional.relu(inner.features(x)).mean((2, 3))
    )
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): tensor
        for name, tensor in nn.DataParallel(network).state_dict().items()
        if "num_batches_tracked" not in name
    }
    checkpoint = {"epoch": 14, "state_dict": old, "best_loss": 0.1}
    keep("chexnet", checkpoint, inner_logits, _use_new_zipfile_serialization=False)

    network = ready(
        torchxrayvision.models.DenseNet(
            num_init_features=8, num_classes=3, in_channels=1,
            op_threshs=torch.tensor([0.25, 0.5, 0.125]), **SHAPE
        )
    )
    own_logits = lambda x: network.classifier(network.features2(x))
    keep("torchxrayvision", network.state_dict(), own_logits, 1)
    # As its own files are: the whole module.
    torch.save(network, folder / "torchxrayvision_module.pth")

    lines = [f'  "{name}": {json.dumps(values)}' for name, values in logits.items()]
    (ROOT / "logits.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def check(files: list[str]) -> None:
    read = torch.load(ROOT / "written.pth", weights_only=True)
    assert list(read) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(read[name], tensor) and read[name].shape == tensor.shape, name
    for file in files:
        import torchvision

        read = torch.load(file, weights_only=True)
        classes, features = read["classifier.weight"].shape
        own = torchvision.models.DenseNet(num_init_features=8, num_classes=classes, **SHAPE)
        if features == 1024:
            own = torchvision.models.densenet121(num_classes=classes)
        own.features.conv0 = nn.Conv2d(
            read["features.conv0.weight"].shape[1], own.features.conv0.out_channels, 7, 2, 3, bias=False
        )
        own.load_state_dict(read)
        with torch.no_grad():
            found = own.eval()(images(own.features.conv0.in_channels))[0]
        expected = json.loads((ROOT / "logits.json").read_text())
        same = [name for name, values in expected.items() if torch.allclose(found, torch.tensor(values), atol=1e-4)]
        print(f"{file}: torchvision takes it; it has the outputs of {same or 'no golden network'}")


if __name__ == "__main__":
    torch.manual_seed(1)
    if sys.argv[1:2] == ["check"]:
        check(sys.argv[2:])
    else:
        containers()
        networks()
