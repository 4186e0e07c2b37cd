"""Which test programs a machine with a card runs."""

KERNELS = ["head", "norm", "stem", "step", "transition"]
NETWORKS = ["cuda_equals_cpu", "cuda_bfloat16", "cuda_prefetches", "cuda_training", "frozen_stages", "frozen_on_cuda",
            "frozen_parts_on_cuda", "frozen_agrees_with_pytorch", "optimizers_agree_with_pytorch", "refused_steps", "targets_of_all_kinds",
            "trained_weights"]
# They need what only an emulated device has: its calls and accesses, memory that runs out, or several devices. Pictures that
# are decoded and mixed are the same on every device.
EMULATED = ["costs_are_what_kernels_touch", "cuda_graphs", "cuda_lanes", "cuda_memory", "cuda_nccl", "cuda_ranks", "cuda_refuses",
            "deep_pictures_train"]


def forgotten(tests):
    """Test files in this folder that use a CUDA device, and are in none of these lists."""
    for path in sorted(tests.glob("*.rs")):
        text = path.read_text()
        if ("densenet_tests::emulated::" in text or "on_cuda" in text) and path.stem not in NETWORKS + EMULATED:
            yield path.stem
