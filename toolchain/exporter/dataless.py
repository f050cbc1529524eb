"""Tensors that have a shape and a type but no data, and what operators make of them.

`torch` knows such tensors, on its device ``meta``; here each stands for one on the CPU, so that a
network takes the path that it takes there. Its ``FakeTensor`` is the same idea with devices,
symbols, memory formats and a cache, imports the compiler of torch and takes ten times as long.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.exporter.leaves import leaves, mapped

__all__ = ["Dataless", "Shapes", "storage"]

_aten = torch.ops.aten
_META: Final = torch.device("meta")
_LITERAL: Final = frozenset((_aten.lift_fresh.default, _aten.lift_fresh_copy.default))
"""What a tensor that is written out in the network's code goes through."""

_READS: Final = frozenset((_aten.is_nonzero.default,))
"""Operators that make a number of data and have no tag that says so."""

_IN_ORDER: Final = frozenset((_aten.batch_norm.default, _aten.layer_norm.default))
"""Operators whose result has the shape of their first argument, one row after the other."""

_MASKS: Final = (torch.bool, torch.uint8)


class Dataless(Tensor):
    """A tensor of the CPU without its data.

    Attributes:
        meta: The same on ``meta``.
    """

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor) -> Dataless:
        """Stand for a tensor on ``meta``."""
        made = Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=torch.device("cpu"),
        )
        made.meta = meta
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Without a `Shapes` there is nothing that an operator could make."""
        raise _depends_on_data(func)


class Shapes:
    """Applies operators to tensors of which at least some have no data.

    Constants that a network writes out keep theirs; what is made of them has none.
    """

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, func: Any, args: Any, keywords: dict[str, Any]) -> Any:
        """What an operator makes.

        Raises:
            VitcError: If that, or its shape, depends on data that is not there.
        """
        tensors = [leaf for leaf in leaves((args, keywords)) if isinstance(leaf, Tensor)]
        absent = any(isinstance(tensor, Dataless) for tensor in tensors)
        if func in _LITERAL or (_reads(func) and not absent):
            return func(*args, **keywords)
        if _reads(func) or _has_size_of_data(func, tensors):
            raise _depends_on_data(func)
        # Parts of weights, which were made outside of inference mode, are no inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            return self._made(func, args, keywords, tensors)

    def _made(self, func: Any, args: Any, keywords: Any, tensors: list[Tensor]) -> Any:
        arguments, options = mapped(self._on_meta, (args, keywords))
        made = _applied(func, arguments, options, tensors)
        if torch.Tag.inplace_view in func.tags:
            with torch._C._DisableTorchDispatch():
                func(*args, **keywords)
        held = ((self._on_meta(tensor), tensor) for tensor in tensors)
        changed = {id(meta): tensor for meta, tensor in held if meta is not tensor}
        return mapped(lambda result: _standing(result, changed), made)

    def _on_meta(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return _META
        if isinstance(leaf, Dataless):
            return leaf.meta
        if not isinstance(leaf, Tensor) or leaf.device == _META:
            return leaf
        if id(leaf) not in self._copies:  # the tensor is kept, or another could get its number
            sizes, strides = leaf.size(), leaf.stride()
            copy = torch.empty_strided(sizes, strides, dtype=leaf.dtype, device=_META)
            self._copies[id(leaf)] = leaf, copy
        return self._copies[id(leaf)][1]


def storage(tensor: Tensor) -> int:
    """What tensors that share memory have in common."""
    held = tensor.meta if isinstance(tensor, Dataless) else tensor
    return int(held.untyped_storage()._cdata)


def _standing(result: Any, changed: dict[int, Any]) -> Any:
    if not isinstance(result, Tensor):
        return result
    return changed[id(result)] if id(result) in changed else Dataless(result)


def _reads(func: Any) -> bool:
    return torch.Tag.data_dependent_output in func.tags or func in _READS


def _has_size_of_data(func: Any, tensors: list[Tensor]) -> bool:
    """Whether the data say how large the result is."""
    if func is _aten.index.Tensor:
        return any(tensor.dtype in _MASKS for tensor in tensors[1:])
    return torch.Tag.dynamic_output_shape in func.tags


def _depends_on_data(func: Any) -> VitcError:
    return VitcError(
        f"The model could not be traced: {func} depends on the data of its input.",
        "A model for vitc is built of the layers of vitc.nn and plain torch operators.",
    )


def _applied(func: Any, args: Any, keywords: dict[str, Any], tensors: list[Tensor]) -> Any:
    if not tensors:
        keywords = {**keywords, "device": _META}
    own = _own_rule(func, args, keywords)
    if own is not None:
        return own
    try:
        return func(*args, **keywords)
    except NotImplementedError:
        if not tensors or func._schema.is_mutable:
            raise
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            raise _depends_on_data(func) from None
        # An operator that does not say what shape it makes shows it on zeros.
        real = mapped(_zeros, (args, keywords))
        return mapped(_to_meta, func(*real[0], **real[1]))


def _own_rule(func: Any, args: Any, keywords: dict[str, Any]) -> Tensor | None:
    """What the most frequent operators make; what torch has for them imports its compiler."""
    if func is _aten.cat.default and len({part.dtype for part in args[0]}) == 1:
        parts, axis = args[0], args[1] if len(args) > 1 else 0
        others = {(*part.shape[:axis], *part.shape[axis:][1:]) for part in parts}
        if len(others) == 1 and 0 <= axis < parts[0].dim():
            sizes = list(parts[0].shape)
            sizes[axis] = sum(part.shape[axis] for part in parts)
            return torch.empty(sizes, dtype=parts[0].dtype, device=_META)
    elif func is _aten.linear.default and args[1].dim() == 2:
        if args[0].dim() and args[0].shape[-1] == args[1].shape[1]:
            made: Tensor = args[0].new_empty((*args[0].shape[:-1], args[1].shape[0]))
            return made
    elif func is _aten.mean.dim and args[0].is_floating_point():
        total: Tensor = _aten.sum.dim_IntList(*args, **keywords)
        return total
    elif func is _aten.roll.default or (func in _IN_ORDER and _fits(func, *args)):
        return torch.empty_like(args[0], memory_format=torch.contiguous_format)
    elif func is _aten._prelu_kernel.default:
        return torch.empty_like(args[0])
    elif torch.Tag.pointwise in func.tags and not func._schema.is_mutable:
        one = mapped(_one_element, (args, keywords))
        single = func(*one[0], **one[1])
        if isinstance(single, Tensor):
            tensors = [leaf for leaf in leaves((args, keywords)) if isinstance(leaf, Tensor)]
            shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
            like = next((tensor for tensor in tensors if tensor.shape == shape), None)
            like = torch.empty(shape, device=_META) if like is None else like
            return torch.empty_like(like, dtype=single.dtype)
    return None


def _fits(func: Any, x: Tensor, first: Any, *rest: Any) -> bool:
    if func is _aten.layer_norm.default:
        return list(x.shape[-len(first) :]) == list(first)
    return x.dim() > 1 and all(
        row is None or row.shape == (x.shape[1],) for row in (first, *rest[:3])
    )


def _one_element(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return torch.ones([1] * leaf.dim(), dtype=leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _zeros(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return torch.zeros_like(leaf, device="cpu") if isinstance(leaf, Tensor) else leaf


def _to_meta(result: Any) -> Any:
    return result.to(_META) if isinstance(result, Tensor) else result


