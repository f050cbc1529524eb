"""Turns the buffers of a traced run back into the plain arrays that the taps name.

A step of the manifest has the `layout` of its buffer (vitc.targets.layouts) and the `taps` that the
buffer holds, each with the `views` (vitc.targets.layouts.views) to it from what the layout decodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.targets.layouts import layout_from_dict
from vitc.targets.layouts.views import apply_views, views_from_json

__all__ = ["decode", "decode_trace"]


def decode(
    step: Mapping[str, Any], data: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.generic]]:
    """Decode one buffer.

    Args:
        step: A step of the manifest.
        data: The buffer's bytes.

    Returns:
        By tap, the value for one image, without batch axis: fp32, or bits as uint8.

    Raises:
        ValueError: If layout or views are malformed, or do not fit the buffer.
    """
    layout = layout_from_dict(step["layout"])
    if layout.size != data.size:
        raise ValueError(f"a {layout.kind} layout of {layout.size} bytes")
    value = layout.decode(data) if step["taps"] else data
    return {
        tap["name"]: np.ascontiguousarray(apply_views(value, views_from_json(tap["views"])))
        for tap in step["taps"]
    }


def decode_trace(
    steps: Sequence[dict[str, Any]], data: bytes, images: int
) -> dict[str, npt.NDArray[np.generic]]:
    """Decode the trace file of `vitc-run --trace`.

    Args:
        steps: `steps` of the manifest.
        data: Contents of the file.
        images: Number of images that were run.

    Returns:
        Tap name to array [images, ...].

    Raises:
        VitcError: If the file has another length than the manifest says, or a layout does not fit.
    """
    per_image = sum(step["bytes"] for step in steps)
    if len(data) != per_image * images:
        raise VitcError(
            f"The trace has {len(data)} bytes, wanted {per_image * images} for {images} images.",
            "The runner and the manifest are of different compilations; compile again.",
        )
    flat = np.frombuffer(data, np.uint8)
    values: dict[str, list[npt.NDArray[np.generic]]] = {}
    position = 0
    for _ in range(images):
        for step in steps:
            chunk = flat[position : position + step["bytes"]].copy()
            try:
                for name, value in decode(step, chunk).items():
                    values.setdefault(name, []).append(value)
            except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError) as error:
                raise VitcError(
                    f"The manifest's layout of {step['tap']} does not fit its buffer ({error}).",
                    "Compile the model again with this version of vitc.",
                ) from error
            position += step["bytes"]
    return {name: np.stack(parts) for name, parts in values.items() if math.prod(parts[0].shape)}
