"""Turns the buffers of a traced run back into the plain arrays that the taps name.

What a step writes has, in the manifest, the `layout` of its buffer (vitc.targets.layouts) and the
`taps` that the buffer holds, each with the `views` (vitc.targets.layouts.views) to it from what the
layout decodes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.runtime.manifest import EntryFacts, Written
from vitc.runtime.port import Port
from vitc.targets.layouts import layout_from_dict
from vitc.targets.layouts.views import apply_views, views_from_json

__all__ = ["decode", "decode_trace", "traced_bytes"]


def decode(written: Written, data: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
    """Decode one buffer.

    Args:
        written: What a step wrote.
        data: The buffer's bytes.

    Returns:
        By tap, the value for one image, without batch axis: fp32, or bits as uint8.

    Raises:
        ValueError: If layout or views are malformed, or do not fit the buffer.
    """
    layout = layout_from_dict(written.layout)
    if layout.size != data.size:
        raise ValueError(f"a {layout.kind} layout of {layout.size} bytes")
    value = layout.decode(data) if written.taps else data
    return {
        tap["name"]: np.ascontiguousarray(apply_views(value, views_from_json(tap["views"])))
        for tap in written.taps
    }


def decode_trace(
    entry: EntryFacts, data: bytes, images: int, n: int = 0
) -> dict[str, npt.NDArray[np.generic]]:
    """Decode the trace file of `vitc-run --trace`.

    Args:
        entry: What was run.
        data: Contents of the file.
        images: Number of images that were run.
        n: Extent of the run.

    Returns:
        Tap name to array [images, ...].

    Raises:
        VitcError: If the file has another length than the manifest says, or a layout does not fit.
    """
    writes = [written for step in entry.steps for written in step.writes]
    ports = {port.name: port for port in entry.outputs}
    sizes = [_bytes(ports.get(written.port or ""), written, n) for written in writes]
    if len(data) != sum(sizes) * images:
        raise VitcError(
            f"The trace has {len(data)} bytes, wanted {sum(sizes) * images} for {images} images.",
            "The runner and the manifest are of different compilations; compile again.",
        )
    flat = np.frombuffer(data, np.uint8)
    values: dict[str, list[npt.NDArray[np.generic]]] = {}
    position = 0
    for _ in range(images):
        for written, size in zip(writes, sizes, strict=True):
            chunk = flat[position : position + size].copy()
            position += size
            port = ports.get(written.port or "")
            if port is not None:
                shape = port.sizes(1, n)[int(port.per_image) :]
                values.setdefault(written.tap, []).append(chunk.view(port.dtype).reshape(shape))
                continue
            try:
                for name, value in decode(written, chunk).items():
                    values.setdefault(name, []).append(value)
            except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError) as error:
                raise VitcError(
                    f"The manifest's layout of {written.tap} does not fit its buffer ({error}).",
                    "Compile the model again with this version of vitc.",
                ) from error
    return {name: np.stack(parts) for name, parts in values.items() if math.prod(parts[0].shape)}


def traced_bytes(entry: EntryFacts, n: int = 0) -> int:
    """Bytes of what all steps write for one image."""
    ports = {port.name: port for port in entry.outputs}
    return sum(
        _bytes(ports.get(written.port or ""), written, n)
        for step in entry.steps
        for written in step.writes
    )


def _bytes(port: Port | None, written: Written, n: int) -> int:
    if port is None:
        return written.bytes
    return port.values * port.itemsize * (n if port.extent else 1)
