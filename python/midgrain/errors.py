"""The exceptions that midgrain adds to Python's own.

Wrong kinds and dtypes raise `TypeError`; wrong shapes, ranges, NaN or infinity and empty input `ValueError`; arrays
that cannot be shared (device, read-only, protocol) `BufferError`.
"""

__all__ = ["BackendUnavailableError", "CudaError"]


class BackendUnavailableError(RuntimeError):
    """The kernels for an array's device are not built or not usable here."""


class CudaError(RuntimeError):
    """A CUDA call failed."""
