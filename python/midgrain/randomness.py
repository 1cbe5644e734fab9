"""Random numbers that belong to a sample, so that they are the same alone and in any batch."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

__all__ = ["seeded_by_content"]


def seeded_by_content(sample: Tensor, seed: int) -> torch.Generator:
    """Random numbers that are the same for the same float32 sample on the CPU and seed, alone or in any batch."""
    digest = zlib.crc32(sample.contiguous().numpy().tobytes())
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + digest) % 2**63)
