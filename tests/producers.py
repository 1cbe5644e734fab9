"""Objects that share arrays through DLPack in unusual ways, to test the boundary with."""

from __future__ import annotations

import ctypes

import numpy as np


class Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", Deleter))


class ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype = ctypes.c_char_p
_capsule_name.argtypes = (ctypes.py_object,)
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


def on_device(capsule: object, device: tuple[int, int]) -> object:
    """The capsule, which now says that its array is on another device."""
    name = _capsule_name(capsule)
    kind = ManagedVersioned if name == b"dltensor_versioned" else Managed
    kind.from_address(_capsule_pointer(capsule, name)).tensor.device = Device(*device)
    return capsule


_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}


class HandMade:
    """A NumPy array in a capsule written field by field; counts how often the consumer calls the deleter.

    Args:
        array: contiguous.
        version: (major, minor) of DLPack, or None for the capsule from before versions.
        byte_offset: the data pointer is moved back by as much.
        strides: whether to give them; without, the array is contiguous by definition.
        lanes: of the element type.
        has_deleter: some producers have nothing to free.
    """

    def __init__(self, array, version=None, byte_offset=0, strides=True, lanes=1, has_deleter=True):
        self.array = array
        self.deleted = 0
        self._shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self._strides = (ctypes.c_int64 * array.ndim)(*[s // array.itemsize for s in array.strides])
        self._deleter = Deleter(self._count) if has_deleter else Deleter()
        self.managed = Managed() if version is None else ManagedVersioned(*version)
        self.managed.deleter = self._deleter
        self.managed.tensor = Tensor(
            data=array.ctypes.data - byte_offset,
            device=Device(1, 0),
            ndim=array.ndim,
            dtype=DataType(_CODES[array.dtype.kind], 8 * array.itemsize, lanes),
            shape=self._shape,
            strides=self._strides if strides else None,
            byte_offset=byte_offset,
        )
        # PyCapsule_New keeps the pointer to its name, so the name must live as long as this.
        self._name = b"dltensor" if version is None else b"dltensor_versioned"

    def _count(self, _):
        self.deleted += 1

    def __dlpack__(self, *, max_version=None):
        return _new_capsule(ctypes.addressof(self.managed), self._name, None)

    def __dlpack_device__(self):
        return (1, 0)


class Forwarding:
    """Shares a NumPy array; the subclasses change one thing."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, *, max_version=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


class BeforeVersions(Forwarding):
    """`__dlpack__` takes no `max_version`, as before DLPack 1.0."""

    def __dlpack__(self):
        return self.array.__dlpack__()


class AlreadyConsumed(Forwarding):
    """Returns a capsule that somebody else has taken."""

    def __dlpack__(self, *, max_version=None):
        capsule = self.array.__dlpack__()
        taken = type("Taken", (Forwarding,), {"__dlpack__": lambda *_, **__: capsule})
        np.from_dlpack(taken(self.array))
        return capsule


class NoCapsule(Forwarding):
    def __dlpack__(self, *, max_version=None):
        return "dltensor"


class OtherCapsule(Forwarding):
    def __dlpack__(self, *, max_version=None):
        return _new_capsule(id(self), b"something else", None)


class Raising(Forwarding):
    def __dlpack__(self, *, max_version=None):
        raise RuntimeError("not today")


class OnCuda(Forwarding):
    def __dlpack_device__(self):
        return (2, 0)


class NoDevice(Forwarding):
    def __dlpack_device__(self):
        return "cpu"


class OldCuda:
    """Knows only CUDA's own protocol."""

    __cuda_array_interface__ = {"version": 3}  # noqa: RUF012


class LastOwner(Forwarding):
    """Gives its only reference to the array away with the capsule."""

    def __dlpack__(self, *, max_version=None):
        capsule = self.array.__dlpack__()
        del self.array
        return capsule
