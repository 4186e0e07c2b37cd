"""Writes tests/golden/torchvision_names.txt: names and shapes of the tensors of torchvision's networks
of 1, 3, 4 and 5 blocks, without counters. Needs torchvision."""
from pathlib import Path

from torchvision.models import DenseNet

BLOCKS = {1: (2,), 3: (1, 1, 1), 4: (1, 1, 1, 1), 5: (1, 1, 1, 1, 1)}
lines = []
for blocks, config in BLOCKS.items():
    network = DenseNet(growth_rate=4, block_config=config, num_init_features=8, bn_size=4, num_classes=3)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            lines.append(f"{blocks}: {name} {list(tensor.shape)}")
path = Path(__file__).parents[2] / "tests/golden/torchvision_names.txt"
path.write_text("\n".join(lines) + "\n")
