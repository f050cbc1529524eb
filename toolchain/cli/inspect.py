"""`vitc inspect`: what a network costs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import AllowExternalData, JsonTo, existing
from vitc.cli.output import Output, megabytes
from vitc.cli.tables import table

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT|M.onnx|DIR",
            help="A checkpoint, an exported file or an artefact folder.",
            callback=existing(
                "file or folder", "Name a checkpoint, an .onnx file or an artefact folder."
            ),
        ),
    ],
    allow_external_data: AllowExternalData = False,
    json_to: JsonTo = None,
) -> None:
    """Account for layers, bits, bytes and multiply-accumulates, and say what is not binary."""
    from vitc.bench import inspect as inspect_path

    output = Output(json_to)
    found = inspect_path(path, allow_external_data=allow_external_data)
    cost = found.account
    rows = [
        (
            layer.name,
            layer.kind,
            f"{layer.parameters}",
            f"{layer.binary_weights}",
            f"{layer.folded_bytes:.0f}",
            f"{layer.binary_macs / 1e6:.3f}",
            f"{layer.fp_macs / 1e6:.3f}",
            found.kernels.get(layer.name, layer.why),
        )
        for layer in cost.layers
    ]
    last = "kernel, or why it is not binary" if found.kernels else "why it is not binary"
    output.show(
        table(
            ("layer", "kind", ">params", ">bits", ">folded B", ">binary MMAC", ">fp MMAC", last),
            rows,
        )
    )
    totals = [
        ("parameters", f"{cost.parameters / 1e6:.2f} M"),
        ("binary weights", f"{cost.binary_weights / 1e6:.2f} M"),
        ("fp32", megabytes(cost.fp32_bytes)),
        ("folded 1-bit", megabytes(cost.folded_bytes)),
        ("binary MACs", f"{cost.binary_macs / 1e9:.3f} G"),
        ("fp MACs", f"{cost.fp_macs / 1e6:.1f} M"),
        ("OPs (binary / 64 + fp)", f"{cost.ops / 1e6:.1f} M"),
    ]
    totals += [(name, megabytes(size)) for name, size in found.files.items()]
    output.show(table(("total", ">"), totals))
    if found.float_layers:
        columns = ("in float, as --allow-float said", "why")
        output.show(table(columns, [*found.float_layers.items()]))
    output.result(found.to_dict())
