"""Turns the buffers of a traced run back into the plain arrays that the taps name.

A step's layout in the manifest is a dictionary:

- `kind` "float": `rows` x `stride` fp32, of which `columns` are used;
- `kind` "rows": packed rows, `rows` of them, the axis `size` x `groups`;
- `kind` "keys": packed lanes, one set a group of the outputs, each with `rows` rows of `size` bits;
- `kind` "columns": packed lanes along the rows: `outputs` x `output_groups` lanes of `rows` bits;
  lanes are the first axis;
- `kind` "signs": another step's bits once more, as int8 for AMX; not decoded;
- `swap`: exchange the two axes; `head_first`: split columns into (heads, width) and put heads
  first;
- `shape`: the producer's shape for one image, and `view`: reshapes and transposes from there to the
  tap's value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.targets.layouts import Axis, from_lanes, from_rows, round_up

__all__ = ["decode", "decode_trace"]


def decode(layout: dict[str, Any], data: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
    """Decode one buffer.

    Args:
        layout: Layout of a step.
        data: The buffer's bytes.

    Returns:
        The value for one image, without batch axis: fp32, or bits as uint8.
    """
    kind = layout["kind"]
    value: npt.NDArray[Any]
    if kind == "float":
        rows, columns, stride = layout["rows"], layout["columns"], layout["stride"]
        value = data.view(np.float32)[: rows * stride].reshape(rows, stride)[:, :columns]
    elif kind == "rows":
        value = from_rows(data, layout["rows"], Axis(layout["size"], layout["groups"]))
    elif kind == "keys":
        rows, axis = layout["rows"], Axis(layout["size"])
        stride = round_up(rows, layout["lanes"]) * axis.padded // 8
        value = np.concatenate(
            [
                from_lanes(data[g * stride :], rows, axis, layout["lanes"], layout["element_bits"])
                for g in range(layout["groups"])
            ],
            axis=1,
        )
    elif kind == "columns":
        outputs = Axis(layout["size"], layout["groups"])
        value = outputs.unpad(
            from_lanes(
                data, outputs.padded, Axis(layout["rows"]), layout["lanes"], layout["element_bits"]
            ),
            0,
        )
    else:
        raise VitcError(
            f"The manifest names an unknown layout {kind!r}.",
            "Compile the model again with this version of vitc.",
        )
    if layout.get("swap"):
        value = value.T
    if "head_first" in layout:
        heads, width = layout["head_first"]
        value = value.reshape(-1, heads, width).transpose(1, 0, 2)
    value = value.reshape(layout["shape"])
    for operation, argument in layout["view"]:
        if operation not in {"reshape", "transpose"}:
            raise VitcError(
                f"The manifest names an unknown view {operation!r}.",
                "Compile the model again with this version of vitc.",
            )
        value = value.reshape(argument) if operation == "reshape" else value.transpose(argument)
    return np.ascontiguousarray(value)


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
    values: dict[str, list[npt.NDArray[np.generic]]] = {step["tap"]: [] for step in steps}
    position = 0
    for _ in range(images):
        for step in steps:
            chunk = flat[position : position + step["bytes"]].copy()
            try:
                if step["layout"]["kind"] != "signs":
                    values[step["tap"]].append(decode(step["layout"], chunk))
            except (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError) as error:
                raise VitcError(
                    f"The manifest's layout of {step['tap']} does not fit its buffer ({error}).",
                    "Compile the model again with this version of vitc.",
                ) from error
            position += step["bytes"]
    return {
        name: np.stack(parts)
        for name, parts in values.items()
        if parts and math.prod(parts[0].shape)
    }
