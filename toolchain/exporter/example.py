"""What a model is traced with: inputs of which only types and sizes count."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from vitc.errors import VitcError

__all__ = ["Example", "inputs_of"]

Example: TypeAlias = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""One input [B, ..], or several in order or by name."""

_PROBES = 2


def inputs_of(model: nn.Module, example: Example | None) -> list[Tensor]:
    """The inputs of a model in the order of its forward method.

    Args:
        model: The model; without an example its `example` method, or ``config.input_shape``, says
            what it takes.
        example: Inputs; by name as the forward method names them, a single one by any name.

    Raises:
        VitcError: If there is no example and no shape, or the names are not those of the model.
    """
    stated: Callable[[int], Example] | None = getattr(model, "example", None)
    if example is None and stated is not None:
        example = stated(_PROBES)
    if example is None:
        config = getattr(model, "config", None)
        shape = getattr(config, "input_shape", None)
        if shape is None:
            raise VitcError(
                "The model does not say which input it takes (it has no config.input_shape).",
                "Pass example=: a tensor [B, ..], or several by name.",
            )
        dtype = torch.uint8 if getattr(config, "takes_bytes", False) else torch.float32
        return [torch.zeros(_PROBES, *shape, dtype=dtype)]
    if isinstance(example, Tensor):
        return [example]
    if not isinstance(example, Mapping):
        return list(example)
    wanted = inspect.signature(model.forward).parameters
    if len(example) == 1 and len(wanted) == 1:
        return list(example.values())
    strangers = [name for name in example if name not in wanted]
    missing = [
        name
        for name, parameter in wanted.items()
        if parameter.default is parameter.empty and name not in example
    ]
    if strangers or missing:
        found = [f"has {name}" for name in strangers] + [f"lacks {name}" for name in missing]
        raise VitcError(
            f"The example {' and '.join(found)}; the model takes {', '.join(wanted)}.",
            "Name its inputs as the model's forward method does.",
        )
    return [example[name] for name in wanted if name in example]
