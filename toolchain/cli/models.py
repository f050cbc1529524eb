"""`vitc models`: the table of presets."""

from __future__ import annotations

from vitc.cli.options import Force, JsonTo
from vitc.cli.output import Output, megabytes
from vitc.cli.tables import table

__all__ = ["models"]


def models(json_to: JsonTo = None, force: Force = False) -> None:
    """List the presets with their sizes."""
    from vitc.models.architectures import PRESETS, account

    output = Output(json_to, force=force)
    costs = {name: account(entry.config) for name, entry in PRESETS.items()}
    output.show(
        table(
            ("preset", "what", ">parameters", ">fp32", ">folded 1-bit", ">binary GMAC"),
            [
                (
                    name,
                    entry.summary,
                    f"{costs[name].parameters / 1e6:.2f} M",
                    megabytes(costs[name].fp32_bytes),
                    megabytes(costs[name].folded_bytes),
                    f"{costs[name].binary_macs / 1e9:.4g}",
                )
                for name, entry in PRESETS.items()
            ],
        )
    )
    output.result(
        {
            "models": [
                {
                    "name": name,
                    "summary": entry.summary,
                    "config": entry.config.to_dict(),
                    "totals": costs[name].to_dict()["totals"],
                }
                for name, entry in PRESETS.items()
            ]
        }
    )
