"""Memory layouts of buffers, one a file, and the table of them.

To add a layout, add a file and an entry of `LAYOUTS`: compiler, manifest and trace follow.
"""

from __future__ import annotations

from typing import Any

from vitc.targets.layouts.across import Across
from vitc.targets.layouts.codes import Codes
from vitc.targets.layouts.columns import Columns
from vitc.targets.layouts.floats import Floats
from vitc.targets.layouts.lanes import Lanes
from vitc.targets.layouts.layout import Layout
from vitc.targets.layouts.plain import Plain
from vitc.targets.layouts.rows import Rows
from vitc.targets.layouts.signs import Signs

__all__ = [
    "LAYOUTS",
    "Across",
    "Codes",
    "Columns",
    "Floats",
    "Lanes",
    "Layout",
    "Plain",
    "Rows",
    "Signs",
    "layout_from_dict",
]

LAYOUTS: dict[str, type[Layout]] = {
    layout.kind: layout for layout in (Rows, Lanes, Columns, Across, Signs, Codes, Floats, Plain)
}


def layout_from_dict(values: Any) -> Layout:
    """The inverse of `Layout.to_dict`.

    Raises:
        ValueError: If the kind is unknown, a field is missing or unknown, or is no size.
    """
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ValueError("it is no layout")
    kind = values["kind"]
    if kind not in LAYOUTS:
        raise ValueError(f"{kind!r} is no known kind of layout")
    return LAYOUTS[kind].from_fields({key: v for key, v in values.items() if key != "kind"})
