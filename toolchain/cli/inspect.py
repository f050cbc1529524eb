"""`vitc inspect`: what a network costs, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vitc.cli.options import AllowExternalData, Force, JsonTo, existing
from vitc.cli.output import Output, megabytes
from vitc.cli.tables import table
from vitc.models.described import sides_text

if TYPE_CHECKING:
    from vitc.bench.inspection import Inspection
    from vitc.models.account import Account

__all__ = ["inspect"]

_LISTED: Final = 12


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
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Account for layers, bits, bytes and multiply-accumulates, and say what is not binary."""
    output = Output(json_to, force=force)
    from vitc.bench import inspect as inspect_path

    found = inspect_path(path, allow_external_data=allow_external_data)
    cost = found.account
    output.show(table(("", ""), _facts(found)))
    if found.entries:
        named = [(name, str(port)) for name, ports in found.entries.items() for port in ports]
        output.show(table(("entry", "port"), named))
    reasons = {why: str(n) for n, why in enumerate(dict.fromkeys(_reasons(cost)), 1)}
    rows = [
        (
            layer.name,
            layer.kind,
            _count(layer.parameters),
            _count(layer.binary_weights),
            _count(layer.folded_bytes),
            _count(layer.binary_macs),
            _count(layer.fp_macs),
            reasons.get(layer.why, ""),
        )
        for layer in cost.layers
    ]
    columns = ("layer", "kind", ">params", ">bits", ">bytes", ">binary MACs", ">fp MACs", ">why")
    output.show(table(columns, rows))
    output.show(table((">why", "not binary because"), [(n, why) for why, n in reasons.items()]))
    if found.scheme_parameters:
        titles = ("learned by the scheme", ">values", ">least", ">largest")
        learned = found.scheme_parameters.items()
        output.show(
            table(titles, [(n, str(c), f"{low:.3g}", f"{up:.3g}") for n, (c, low, up) in learned])
        )
    if found.kernels:
        output.show(table(("layer", "kernel"), [*found.kernels.items()]))
    totals = [
        ("parameters", _count(cost.parameters)),
        ("binary weights", _count(cost.binary_weights)),
        ("fp32", megabytes(cost.fp32_bytes)),
        ("folded 1-bit", megabytes(cost.folded_bytes)),
        ("binary MACs", _count(cost.binary_macs)),
        ("fp MACs", _count(cost.fp_macs)),
        ("OPs (binary / 64 + fp)", _count(cost.ops)),
    ]
    totals += [(name, megabytes(size)) for name, size in found.files.items()]
    output.show(table(("total", ">"), totals))
    if found.float_layers:
        heading = ("in float, as --allow-float said", "why")
        output.show(table(heading, [*found.float_layers.items()]))
    output.result(found.to_dict())


def _facts(found: Inspection) -> list[tuple[str, str]]:
    config, shown = found.config, found.preprocessing
    if config is None or shown is None:
        ports = () if found.entries else (*found.inputs, *found.outputs)
        kinds = ["input"] * len(found.inputs) + ["output"] * len(found.outputs)
        return [
            (found.kind, found.path),
            ("network", "one without a configuration; parameters and bytes are those of its file"),
            *((kind, str(port)) for kind, port in zip(kinds, ports, strict=False)),
        ]
    from vitc.models.architectures import summary

    mean, std = (" ".join(f"{value:g}" for value in values) for values in (shown.mean, shown.std))
    labels = found.labels
    listed = "unknown, so classes are numbers"
    if labels is not None:
        more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
        listed = ", ".join(labels[:_LISTED]) + more
    network = f"{config.arch}, {summary(config)}"
    steps = (
        f"shorter side to {sides_text(shown.resize)} px ({shown.interpolation}), centre crop of "
        f"{sides_text(shown.crop)} px, mean {mean}, std {std}"
    )
    return [
        (found.kind, found.path),
        ("network", network),
        ("weights", f"{config.weight_bits} bit{'s' if config.weight_bits > 1 else ''}"),
        ("preprocessing", steps),
        (f"{config.classes} classes", listed),
    ]


def _reasons(cost: Account) -> Iterator[str]:
    return (layer.why for layer in cost.layers if layer.why)


def _count(value: float) -> str:
    """Three digits and a factor of 1000; nothing for nothing."""
    if not value:
        return ""
    for factor, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g}{sign}"
    return f"{value:.0f}"
