"""Arrays of numeric tools: NPY, and HDF5 with MATLAB 7.3 (through h5py). Older MATLAB files are in `matlab`.

Nothing is unpickled, no link to another file is followed. An HDF5 file may hold several arrays: the one with the most
samples is the picture, and of equals the first by name. The last axis of a C-ordered array of uint8 with 3 or
4 entries is colour.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from openus_data.decode.source import Decoder, Options, Place, Source, guard
from openus_data.decode.volume import Shape, check_raw, raw_slices, shape_of, volume_media
from openus_data.errors import DecodeError, DecodeLimit, MissingExtra, UnsupportedFormat
from openus_data.records import Media

_NPY_HEADER_BYTES = 10_000
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MATLAB_73 = b"MATLAB 7.3 MAT-file"


def decode_npy(source: Source, options: Options) -> Media:
    """Read an NPY file; pickled objects are refused."""
    with guard("NPY header is damaged"):
        stream = io.BytesIO(source.data[: _NPY_HEADER_BYTES + 64])
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        lengths, is_fortran, dtype = read(stream, max_header_size=_NPY_HEADER_BYTES)
        start = stream.tell()
    if dtype.hasobject or dtype.names:
        raise UnsupportedFormat("NPY with pickled or structured content is not read", next_step="convert it")
    samples = 1
    if not is_fortran and _is_colour(lengths[-1:], len(lengths), dtype):
        samples, lengths = lengths[-1], lengths[:-1]
    axes = lengths if is_fortran else lengths[::-1]
    shape = shape_of(axes, dtype, limits=options.limits, samples=samples, is_transposed=is_fortran)
    check_raw(source.size, start, shape)
    slices = partial(raw_slices, source.place.reopen, start, shape)
    return volume_media(shape, slices, is_complete=True)


def _is_colour(length: Sequence[int], axes: int, dtype: np.dtype[Any], colours: Sequence[int] = (3, 4)) -> bool:
    return axes > 2 and dtype == np.uint8 and length[0] in colours


def decode_hdf5(source: Source, options: Options) -> Media:
    """Read the largest numeric data set of an HDF5 or MATLAB 7.3 file, slice by slice."""
    h5py = _extra("h5py", "HDF5 and MATLAB 7.3 files")
    is_matlab = source.head.startswith(_MATLAB_73)
    with guard("HDF5 file is damaged"), h5py.File(source.place.path, "r", locking=False) as file:
        name = _largest(h5py, file)
        dataset = file[name]
        _check_storage(dataset, options)
        lengths, dtype, samples = tuple(dataset.shape), dataset.dtype, 1
        if is_matlab and len(lengths) > 2 and _is_colour(lengths[-3:-2], len(lengths), dtype, (3,)):
            raise UnsupportedFormat("MATLAB 7.3 colour arrays are not read", next_step="save it as PNG or MATLAB 7")
        if not is_matlab and _is_colour(lengths[-1:], len(lengths), dtype):
            samples, lengths = lengths[-1], lengths[:-1]
        shape = shape_of(lengths[::-1], dtype, limits=options.limits, samples=samples, is_transposed=is_matlab)
    return volume_media(shape, partial(_hdf5_slices, source.place, name, shape, len(lengths)), is_complete=False)


def _hdf5_slices(place: Place, name: str, shape: Shape, axes: int, indices: Sequence[int]) -> Iterator[Any]:
    h5py = _extra("h5py", "HDF5 and MATLAB 7.3 files")
    file = None
    try:
        with guard("HDF5 file is damaged"):
            file = h5py.File(place.reopen().place.path, "r", locking=False)
            dataset = file[name]
            slow = dataset.shape[: axes - 2]
        for index in indices:
            with guard("HDF5 file is damaged"):
                picture = dataset[np.unravel_index(index, slow) if slow else ()]
            yield index, picture.swapaxes(0, 1) if shape.is_transposed else picture
    finally:
        if file is not None:
            file.close()


def _largest(h5py: Any, file: Any) -> str:
    found: list[tuple[int, str]] = []

    def visit(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset) and thing.ndim >= 2 and thing.dtype.kind in "biuf":
            found.append((-thing.size, name))

    file.visititems(visit)  # follows hard links only
    if not found:
        raise UnsupportedFormat("HDF5 file without a numeric array", expected="a data set of 2 axes or more")
    return min(found)[1]


def _check_storage(dataset: Any, options: Options) -> None:
    """Refuse data kept in other files, and chunks that inflate too far."""
    if dataset.external or dataset.is_virtual:
        raise DecodeError("HDF5 data set points to other files", next_step="the file is left out")
    chunk_bytes = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
    if chunk_bytes > options.limits.inflated_bytes:
        raise DecodeLimit("HDF5 chunk too large", expected=f"at most {options.limits.inflated_bytes:,} bytes")


def _extra(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra(f"{what} need an extra", next_step="pip install 'openus[volumes]'") from None


def _is_npy(head: bytes) -> bool:
    return head.startswith(b"\x93NUMPY")


def _is_hdf5(head: bytes) -> bool:
    return any(head[place : place + 8] == _HDF5_MAGIC for place in (0, 512, 1024, 2048))


DECODERS: tuple[Decoder, ...] = (
    Decoder(name="NPY", sniff=_is_npy, decode=decode_npy),
    Decoder(name="HDF5", sniff=_is_hdf5, decode=decode_hdf5),
)
