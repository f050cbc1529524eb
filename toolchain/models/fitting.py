"""Whether the tensors of a file fit a network, and how they get into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from vitc.errors import VitcError

__all__ = ["fill"]

_LISTED: Final = 12
_FLOATS: Final = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def fill(file: Path, model: nn.Module, tensors: Mapping[str, Tensor], hint: str) -> None:
    """Give a network that was made on the meta device its tensors, as fp32.

    Args:
        file: Where they come from, for errors.
        model: The network.
        tensors: By the names of the network.
        hint: What to do if they do not fit.

    Raises:
        VitcError: If tensors are missing, unexpected, of a wrong shape or type, or not finite; all
            of them are named.
    """
    _check_tensors(file, model, tensors, hint)
    model.load_state_dict(_assignable(model, tensors), strict=True, assign=True)
    model.requires_grad_(True).eval()


def _optional(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _is_whole(tensor: Tensor) -> bool:
    """Whether each element has its own bytes: a kilobyte can claim a terabyte of zeros."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _check_tensors(file: Path, model: nn.Module, tensors: Mapping[str, Tensor], hint: str) -> None:
    wanted = model.state_dict()
    missing = sorted(n for n in wanted if n not in tensors and not _optional(n))
    unexpected = sorted(n for n in tensors if n not in wanted)
    shared = sorted(n for n in tensors if n in wanted and not _optional(n))
    wrong = [
        f"{n} is {tuple(tensors[n].shape)}, wanted {tuple(wanted[n].shape)}"
        for n in shared
        if tensors[n].shape != wanted[n].shape
    ]
    # A flag may be of any type.
    numbers = [n for n in shared if wanted[n].dtype != torch.bool]
    integral = [f"{n} is {tensors[n].dtype}" for n in numbers if tensors[n].dtype not in _FLOATS]
    repeated = [n for n in shared if not _is_whole(tensors[n])]
    found = [
        f"{what}: {_listing(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of a wrong shape", wrong),
            ("not floating point", integral),
            ("not stored value by value", repeated),
        )
        if names
    ]
    if found:
        raise VitcError(
            f"The tensors of {file} do not fit the network: {'; '.join(found)}.",
            hint,
        )
    broken = [n for n in shared if not torch.isfinite(tensors[n].to(wanted[n].dtype)).all()]
    if broken:
        raise VitcError(
            f"{file} holds NaN, infinite values or values beyond fp32 in {_listing(broken)}.",
            "The training diverged; take an earlier checkpoint.",
        )
    negative = [n for n in shared if n.endswith("running_var") and (tensors[n] < 0).any()]
    if negative:
        raise VitcError(f"{file} holds negative variances in {_listing(negative)}.", hint)


def _assignable(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensors.get(name, torch.zeros(slot.shape)).to(slot.dtype, copy=True).contiguous()
        for name, slot in model.state_dict().items()
    }
