"""Random numbers that belong to a sample, so that they are the same alone and in any batch."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

__all__ = ["seeded_by_content", "seeded_by_text"]


def seeded_by_content(sample: Tensor, seed: int) -> torch.Generator:
    """Random numbers that are the same for the same float32 sample on the CPU and seed, alone or in any batch."""
    return _seeded(sample.contiguous().numpy().tobytes(), seed)


def seeded_by_text(text: str, seed: int) -> torch.Generator:
    """Random numbers that are the same for the same text and seed."""
    return _seeded(text.encode(errors="backslashreplace"), seed)


def _seeded(content: bytes, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + zlib.crc32(content)) % 2**63)
