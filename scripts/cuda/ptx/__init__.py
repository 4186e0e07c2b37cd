"""Runs NVRTC's own PTX without a card, thread by thread, and checks what a card would not tell: the alignment of every access,
the bounds of every allocation, races on shared and global memory, copies that nobody waited for, and warps that do not meet."""


class Fault(Exception):
    """A kernel did what it must not."""
