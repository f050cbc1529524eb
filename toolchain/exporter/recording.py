"""What a network computes, as a list of calls, without running it.

The network's own code runs twice on tensors that have shapes but no data, once for two images and
once for three; every operator that it calls is noted. Both runs must make the same calls. A size
that is the same in both is a constant; one that grew with the images is so many of each image. That
is what `torch.export` finds out by symbolic arithmetic, which takes fifty times as long.

In inference mode the dispatcher hands over operators before it decomposes them, so the list holds
`linear` and `batch_norm`, as a person wrote them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vitc.errors import VitcError
from vitc.exporter.dataless import Dataless, Shapes, storage
from vitc.exporter.leaves import leaves, mapped
from vitc.models.fast_paths import without_fast_paths
from vitc.models.taps import marking

__all__ = ["Call", "PerImage", "Recording", "Size", "Value", "named_outputs", "record"]

_BATCHES: Final = (2, 3)
_SAME: Final = frozenset(
    (
        torch.ops.aten.alias.default,
        torch.ops.aten.detach.default,
        torch.ops.aten.detach_.default,
        torch.ops.aten.lift_fresh.default,
    )
)
"""Operators that hand on the tensor that they are given."""

_OWN: Final = "vitc"
_HINT: Final = "A model for vitc is built of the layers of vitc.nn and plain torch operators."


@dataclass(frozen=True)
class PerImage:
    """A size that is so many times the number of images."""

    count: int


Size = int | PerImage


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the network.

    Attributes:
        shape: Its sizes.
        dtype: Its type.
        name: Of an input, a parameter or a buffer; else empty.
        data: What a parameter, a buffer or a constant holds; else None.
    """

    shape: tuple[Size, ...]
    dtype: torch.dtype
    name: str = ""
    data: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Call:
    """An operator and what it was given.

    Attributes:
        operator: The operator; one that works in place stands here as its twin that does not.
        arguments: With a `Value` for each tensor and a `PerImage` for a size that grows.
        keywords: The same.
        results: What it made.
    """

    operator: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Recording:
    """A network as calls in the order in which it made them.

    Attributes:
        inputs: Named as the network's forward method names them; a single one is ``input``.
        outputs: By name; of a mapping its keys, a single one is ``logits``.
        calls: Those that the outputs depend on.
    """

    inputs: tuple[Value, ...]
    outputs: dict[str, Value]
    calls: tuple[Call, ...]


@dataclass(eq=False)
class _Noted:
    operator: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    result: Any


@dataclass(eq=False)
class _Run:
    inputs: list[Tensor]
    outputs: dict[str, Tensor]
    calls: list[_Noted]


class _Notebook(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Noted] = []
        self._shapes = Shapes()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, the default, imports the compiler of torch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = self._shapes(func, args, kwargs or {})
        self.calls.append(_Noted(func, tuple(args), dict(kwargs or {}), result))
        return result


def record(model: nn.Module, example: Tensor | Sequence[Tensor]) -> Recording:
    """Note what a model in inference form computes.

    Args:
        model: Its parameters are read, not changed.
        example: An input, or several, of which only types and sizes count; images are the first
            axis of each.

    Raises:
        VitcError: If what it computes depends on the data of its input, or not on each image alone,
            or if it changes a tensor in place that it also reads under another name.
    """
    examples = [example] if isinstance(example, Tensor) else list(example)
    runs = [_run(model, examples, batch) for batch in _BATCHES]
    return _Link(model, runs).recording()


def _run(model: nn.Module, examples: Iterable[Tensor], batch: int) -> _Run:
    notebook = _Notebook()
    try:
        inputs: list[Tensor] = [
            Dataless(torch.empty(batch, *one.shape[1:], dtype=one.dtype, device="meta"))
            for one in examples
        ]
        with torch.inference_mode(), without_fast_paths(), marking(), notebook:
            result = model(*inputs)
    except VitcError:
        raise
    except Exception as error:  # whatever its own code raises
        first = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise VitcError(f"The model could not be traced: {first}", _HINT) from error
    return _Run(inputs, named_outputs(result), notebook.calls)


def named_outputs(result: Any) -> dict[str, Tensor]:
    """What a network returned, by the names that a file gives it; see `Recording.outputs`.

    Raises:
        VitcError: If it is nothing that a file holds.
    """
    if isinstance(result, Tensor):
        return {"logits": result}
    if isinstance(result, dict):
        named = {str(name): value for name, value in result.items()}
    elif isinstance(result, tuple | list):
        named = {f"output_{index}": value for index, value in enumerate(result)}
    else:
        named = {"": result}
    for value in named.values():
        if not isinstance(value, Tensor):
            raise VitcError(
                f"The model returns a {type(value).__name__}, which no file holds.",
                "Return a tensor, a tuple of some, or a dictionary of some.",
            )
    return named


@dataclass(eq=False)
class _Link:
    """Reads two runs side by side."""

    model: nn.Module
    runs: list[_Run]
    _known: dict[int, Value] = field(default_factory=dict)
    _sharing: dict[int, list[int]] = field(default_factory=dict)
    _stale: dict[int, str] = field(default_factory=dict)
    _kept: list[Tensor] = field(default_factory=list)

    def recording(self) -> Recording:
        one, other = self.runs
        parameters = (*self.model.named_parameters(), *self.model.named_buffers())
        for name, tensor in reversed(parameters):
            self._bind((tensor,), Value(tuple(tensor.shape), tensor.dtype, name, tensor.detach()))
        names = _input_names(self.model, len(one.inputs))
        for name, *pair in zip(names, one.inputs, other.inputs, strict=True):
            self._bind(pair, self._value(pair, name))
        inputs = tuple(self._known[id(tensor)] for tensor in one.inputs)
        if len(one.calls) != len(other.calls):
            raise _depends_on_batch("Which operators the model calls")
        pairs = zip(one.calls, other.calls, strict=True)
        calls = [call for pair in pairs for call in self._call(*pair)]
        outputs = {
            name: self._tensor((tensor, other.outputs[name]))
            for name, tensor in one.outputs.items()
        }
        return Recording(inputs, outputs, _needed(calls, outputs.values()))

    def _call(self, one: _Noted, other: _Noted) -> list[Call]:
        operator = one.operator
        if operator is not other.operator:
            raise _depends_on_batch("Which operators the model calls")
        pairs = list(zip(leaves(one.result), leaves(other.result), strict=True))
        if not all(isinstance(tensor, Tensor) for pair in pairs for tensor in pair):
            return []  # a size or a device, which the next call has as a number
        given = one.arguments, one.keywords
        others = other.arguments, other.keywords
        if mapped(lambda _: None, given) != mapped(lambda _: None, others):
            raise _depends_on_batch(f"What {operator} is given")
        rest = iter(leaves(others))
        arguments, keywords = mapped(lambda leaf: self._leaf((leaf, next(rest)), operator), given)
        noted = leaves((arguments, keywords))
        if operator in _SAME:
            self._bind(pairs[0], noted[0])
            return []
        if operator._schema.is_mutable:
            operator = _out_of_place(operator)
            for each in (one, other):
                self._outdate(each.arguments[0], each.operator)
        elif pairs[0][0] is leaves(given)[0]:
            return []  # a cast to the type that it has
        fixed = _evaluated(operator, arguments, keywords)
        values = [self._value(pair) for pair in pairs]
        if fixed is not None:
            values = [replace(value, data=data) for value, data in zip(values, fixed, strict=True)]
        if operator.namespace == _OWN:
            _check_image_axis(operator, noted, values[0])
        for pair, value in zip(pairs, values, strict=True):
            self._bind(pair, value)
        return [] if fixed is not None else [Call(operator, arguments, keywords, tuple(values))]

    def _leaf(self, pair: Sequence[Any], operator: Any) -> Any:
        one, other = pair
        if isinstance(one, Tensor):
            return self._tensor(pair)
        if type(one) is type(other) and one == other:
            return one
        if type(one) is int and type(other) is int:
            return _size(one, other)
        raise _depends_on_batch(f"What {operator} is given")

    def _tensor(self, pair: Sequence[Any]) -> Value:
        values = [self._known.get(id(tensor)) for tensor in pair]
        if values[0] is not values[1]:
            raise _depends_on_batch("What the model's operators read")
        for tensor in pair:
            if id(tensor) in self._stale:
                raise VitcError(
                    f"The model reads a tensor after {self._stale[id(tensor)]} changed it under "
                    "another name.",
                    "Write that step without changing a tensor in place.",
                )
        if values[0] is None:
            if isinstance(pair[0], Dataless):
                raise VitcError("The model reads a tensor that no operator made.", _HINT)
            constant = Value(tuple(pair[0].shape), pair[0].dtype, data=pair[0].detach().clone())
            self._bind(pair, constant)
            return constant
        return values[0]

    def _value(self, pair: Sequence[Tensor], name: str = "") -> Value:
        one, other = pair
        if one.dim() != other.dim() or one.dtype != other.dtype:
            raise _depends_on_batch("What the model's operators make")
        shape = tuple(_size(*sizes) for sizes in zip(one.shape, other.shape, strict=True))
        return Value(shape, one.dtype, name)

    def _bind(self, tensors: Iterable[Tensor], value: Value) -> None:
        for tensor in tensors:
            self._known[id(tensor)] = value
            self._stale.pop(id(tensor), None)
            self._kept.append(tensor)  # or another tensor could get its number
            sharing = self._sharing.setdefault(storage(tensor), [])
            if id(tensor) not in sharing:
                sharing.append(id(tensor))

    def _outdate(self, changed: Any, operator: Any) -> None:
        """What shares memory with a tensor that changes is no longer what was noted."""
        value = self._known.get(id(changed))
        if value is None or value.data is not None:
            raise VitcError(
                f"The model changes its own parameters or constants while it runs ({operator}).",
                "A network in inference form leaves them as they are.",
            )
        for shared in self._sharing[storage(changed)]:
            self._stale[shared] = str(operator)


def _size(one: int, other: int) -> Size:
    if one == other:
        return one
    count, rest = divmod(one, _BATCHES[0])
    if rest or count * _BATCHES[1] != other:
        raise _depends_on_batch("A size of the model")
    return PerImage(count)


def _check_image_axis(operator: Any, given: Sequence[Any], value: Value) -> None:
    """Refuse a tap or a binary operator whose first axis is not the image."""
    first = value.shape[0] if value.shape else None
    if first == PerImage(1) and PerImage(1) not in value.shape[1:]:
        return
    name = next((leaf for leaf in given if isinstance(leaf, str)), "")
    what = f"The value tapped as {name}" if name else f"What {operator} makes"
    sizes = ", ".join(
        str(size) if isinstance(size, int) else "B" if size.count == 1 else f"{size.count} * B"
        for size in value.shape
    )
    raise VitcError(
        f"{what} has shape [{sizes}] for B images, wanted the images alone on its first axis.",
        "Keep groups as an axis of their own, [B, groups, tokens, channels]; the layers of vitc.nn "
        "take them there.",
    )


def _depends_on_batch(what: str) -> VitcError:
    return VitcError(
        f"{what} depends on how many images there are, other than in proportion.",
        "A network for vitc computes each image by itself, the first axis counts them.",
    )


def _out_of_place(operator: Any) -> Any:
    """The twin of an operator that changes its first argument; it makes a new tensor."""
    name, overload = operator._schema.name.partition("::")[2], operator._overloadname
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    twin = None if packet is None else getattr(packet, overload, None)
    if operator.namespace != "aten" or not name.endswith("_") or twin is None:
        raise VitcError(
            f"The model changes a tensor in place ({operator}).",
            "Write that step without changing a tensor in place.",
        )
    return twin


def _evaluated(operator: Any, arguments: Any, keywords: Any) -> list[Tensor] | None:
    """What an operator makes of constants alone; parameters stay what they are in the file."""
    for leaf in leaves((arguments, keywords)):
        if isinstance(leaf, PerImage):
            return None
        if isinstance(leaf, Value) and (leaf.data is None or leaf.name):
            return None
    held, named = mapped(
        lambda leaf: leaf.data if isinstance(leaf, Value) else leaf, (arguments, keywords)
    )
    return leaves(operator(*held, **named))


def _needed(calls: Sequence[Call], outputs: Iterable[Value]) -> tuple[Call, ...]:
    wanted = set(outputs)
    kept: list[Call] = []
    for call in reversed(calls):
        if wanted.isdisjoint(call.results):
            continue
        kept.append(call)
        given = leaves((call.arguments, call.keywords))
        wanted |= {leaf for leaf in given if isinstance(leaf, Value)}
    return tuple(reversed(kept))


def _input_names(model: nn.Module, count: int) -> list[str]:
    if count == 1:
        return ["input"]
    return list(inspect.signature(model.forward).parameters)[:count]
