"""How far fp32 may be from the float64 reference: an error carried beside every tensor of its run.

A dispatch mode sees each operator of the run. By a rule of that operator it works out the
root-mean-square error that fp32 rounding leaves in each element of what it makes: what its inputs
bring along, times the derivative, and what the operator itself rounds. Errors are taken for
independent, so squares add up. A tensor without an error is exact: an input, a parameter, an
integer, a value of the candidate that the reference goes on with.

The bound is `LAMBDA` times that. A rounding is at most ``u = 2^-24`` of what is rounded and is
counted as that; evenly spread, its square is a third of it on average. So a sum of independent
roundings exceeds the bound with a probability below ``2 exp(-3 / 2 LAMBDA^2) < 1e-23`` (Hoeffding;
Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput.
2019).

A sum may be taken in any order, by any engine, so a partial sum counts as the largest that any
order meets: of n terms whose absolute values add up to T, ``(T + |y|) / 2``.

Integers are exact, and so is a mask, which is decided by integers in every stage.

Most errors are those of values whose signs are taken, and are wanted only where a bit differs. So
an error is worked out when it is asked for.

An operator without a rule is computed by those that torch makes it of; one that changes a tensor in
place, by its twin that does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

import vitc.models.ops  # noqa: F401  (registers the operators of the dialect)
from vitc.errors import VitcError
from vitc.exporter.leaves import leaves
from vitc.verify.decomposed import lies_alike, parts_of, without_change
from vitc.verify.winograd import may_be_filtered, winograd_rounding

__all__ = ["LAMBDA", "Origin", "RoundingErrors"]

LAMBDA: Final = 6.0
"""How many root-mean-square errors a bound is."""

_UNIT: Final = 2.0**-24
_LARGEST_EXACT: Final = 2**24
_NARROW: Final = (torch.bool, torch.uint8, torch.int8, torch.int16)
"""Types of integers that a float holds whatever they are."""
_TINY: Final = 2.0**-126
"""What a result that is flushed to zero loses."""

_aten, _own, _prims = torch.ops.aten, torch.ops.vitc, torch.ops.prims
_PAD: Final = _aten.constant_pad_nd.default


class _Error:
    """The error of one tensor, worked out when it is asked for.

    Args:
        work: Works it out, once those that it is made of are known.
        made_of: Those.
    """

    def __init__(self, work: Callable[[], Tensor], made_of: Sequence[_Error]) -> None:
        self._work: Callable[[], Tensor] | None = work
        self._made_of = made_of
        self._value: Tensor | None = None

    def value(self) -> Tensor:
        """The error; a chain of many does without recursion."""
        waiting = [self]
        while waiting:
            last = waiting[-1]
            unknown = [error for error in last._made_of if error._value is None]
            waiting += unknown
            if unknown:
                continue
            waiting.pop()
            if last._work is not None:
                last._value, last._work, last._made_of = last._work(), None, ()
        if self._value is None:
            raise RuntimeError("an error that nothing works out")
        return self._value


@dataclass(frozen=True, eq=False)
class Origin:
    """Where bits or codes come from.

    Attributes:
        pre: The values whose signs were taken, or that were rounded, in the shape of those.
    """

    pre: Tensor
    _error: Callable[[], Tensor] | None

    @property
    def rms(self) -> Tensor | None:
        """Error of `pre`; None if it is exact."""
        return None if self._error is None else self._error()

    @property
    def bound(self) -> Tensor | None:
        """Largest error of `pre`; None if it is exact."""
        rms = self.rms
        return None if rms is None else rms * LAMBDA


class RoundingErrors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries errors beside tensors, inside its `with` block, while gradients are off.

    Raises:
        VitcError: By an operator on floats that has no rule; it is named, and the layer it is in.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._errors: Any = WeakIdKeyDictionary()
        self._origins: Any = WeakIdKeyDictionary()
        self._viewed: Any = WeakIdKeyDictionary()
        self._paused = False
        self._waiting = 0
        self._tap = ""
        self._whole = ""
        """The operator whose parts are computed."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, the default, imports the compiler of torch

    @contextmanager
    def paused(self, tap: str) -> Iterator[None]:
        """What is computed in the `with` block, at this tap, is no part of the network."""
        before, self._paused, self._tap = self._paused, True, tap
        try:
            yield
        finally:
            self._paused = before

    def rms(self, value: Tensor) -> Tensor | None:
        """Root-mean-square error of each element; None if the tensor is exact."""
        error: _Error | None = self._errors.get(value)
        return None if error is None else self._worked_out(error)

    def bound(self, value: Tensor) -> Tensor | None:
        """Largest error of each element; None if the tensor is exact."""
        rms = self.rms(value)
        return None if rms is None else rms * LAMBDA

    def origin(self, bits: Tensor) -> Origin | None:
        """Where bits or codes come from; None of bits that are no signs of floats, as a mask's."""
        found: Origin | None = self._origins.get(bits)
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        keywords = kwargs or {}
        if self._paused:
            return func(*args, **keywords)
        if func._schema.is_mutable:
            return self._in_place(func, args, keywords)
        given = [leaf for leaf in leaves((args, keywords)) if isinstance(leaf, Tensor)]
        result = func(*args, **keywords)
        results = [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]
        if func.is_view:
            self._viewed.update((tensor, True) for tensor in (*given, *results))
        if func is _own.binarize.default:
            self._origins[result] = self._origin(args[0], self._errors.get(args[0]))
        elif func is _own.quantize.default:
            self._origins[result] = self._quantized(*args)
        elif func is _aten.as_strided.default and lies_alike(args[0], results[0]):
            self._views(_aten.view.default, (args[0], args[1]), {}, results)
        elif func in _VIEWS and (func is not _PAD or _in_fp32(args, keywords)):
            self._views(func, args, keywords, results)
        elif func is not _own.softmax_mask.default and not (
            self._is_exact(func, given, results)
            and (func not in _RULES or _in_fp32(args, keywords))
        ):
            rule = _RULES.get(func)
            if rule is not _where and any(
                leaf.dtype is torch.bool and leaf in self._errors for leaf in given
            ):
                # A comparison that rounding could turn may choose between values, and no more.
                raise self._without_a_rule(func)
            if rule is None:
                parts = parts_of(func)
                if parts is None:
                    raise self._without_a_rule(func)
                return self._by_parts(func, parts, args, keywords)
            if rule is _cast and not results[0].is_floating_point():
                raise VitcError(
                    f"There is no rule for the rounding of floats that become {results[0].dtype}.",
                    "Binarize them, or leave them floats.",
                )
            made = results[0].detach()  # the tensor itself would keep its own error alive
            self._await(
                results[0],
                partial(rule, self, made, *args, **keywords),
                [self._errors[leaf] for leaf in given if leaf in self._errors],
            )
        return result

    def _by_parts(self, func: Any, parts: Callable[..., Any], args: Any, keywords: Any) -> Any:
        """What an operator makes, computed by others."""
        before = self._whole
        self._whole = before or str(func)
        try:
            with self:
                return parts(*args, **keywords)
        finally:
            self._whole = before

    def _without_a_rule(self, func: Any) -> VitcError:
        return VitcError(
            f"There is no rule for the rounding of {self._whole or func} {self._place()}.",
            "Add one to toolchain/verify/bounds.py.",
        )

    def _in_place(self, func: Any, args: Any, keywords: Any) -> Any:
        """What changes a tensor: its twin's result and error take the place of the tensor's."""
        changed: Any = args[0] if args else None
        self._settle()
        if func is _aten.as_strided_.default:
            before = changed.detach()
            if lies_alike(func(*args, **keywords), before):
                return changed
        inputs = (leaf for leaf in leaves((args, keywords)) if isinstance(leaf, Tensor))
        known = any(each in self._errors or each in self._origins for each in inputs)
        if not known and isinstance(changed, Tensor) and not changed.is_floating_point():
            return func(*args, **keywords)  # integers of no float, which are exact before and after
        twin = without_change(func)
        if twin is None or not isinstance(changed, Tensor):
            raise self._without_a_rule(func)
        if changed in self._viewed:
            raise VitcError(
                f"The model changes a tensor in place ({func}, {self._place()}) of which it has "
                "other views.",
                "Write that step without changing a tensor in place.",
            )
        before = changed.clone()
        for notes in (self._errors, self._origins):
            if changed in notes:
                notes[before] = notes.pop(changed)
        with self:
            made = twin(before, *args[1:], **keywords)
        changed.copy_(made)
        for notes in (self._errors, self._origins):
            if made in notes:
                notes[changed] = notes[made]
        return changed

    def _await(
        self, value: Tensor, work: Callable[[], Tensor], made_of: Sequence[_Error]
    ) -> None:
        self._errors[value] = _Error(work, made_of)
        self._waiting += value.nbytes
        if self._waiting > _WAITING:
            self._settle()

    def _settle(self) -> None:
        """Work out what waits, and so let go of the values that it waits with."""
        for error in reversed(list(self._errors.values())):
            self._worked_out(error)
        self._waiting = 0

    @torch.no_grad()
    def _worked_out(self, error: _Error) -> Tensor:
        before, self._paused = self._paused, True
        try:
            return error.value()
        finally:
            self._paused = before

    def _origin(self, pre: Tensor, error: _Error | None) -> Origin:
        return Origin(pre, None if error is None else partial(self._worked_out, error))

    def _quantized(self, x: Tensor, scale: float, zero: int) -> Origin:
        before = self._errors.get(x)
        codes = x / scale + zero

        def work() -> Tensor:
            brought = None if before is None else self._worked_out(before) / scale
            return _hypot(brought, _rounding(codes - zero))

        return Origin(codes, work)

    def _is_exact(self, func: Any, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
        """Whether an operator rounds nothing and has nothing that was rounded."""
        if any(tensor in self._errors for tensor in inputs):
            return False
        floats = [tensor for tensor in results if tensor.is_floating_point()]
        if floats and func is _aten._to_copy.default and not inputs[0].is_floating_point():
            return not _beyond_fp32(inputs[0])
        return not floats or not inputs or func in _EXACT

    def _views(self, func: Any, args: Any, keywords: Any, results: Sequence[Tensor]) -> None:
        """What moves values moves their errors, and the values that bits come from."""
        source = args[0]
        parts = list(source) if isinstance(source, list | tuple) else [source]
        if any(part in self._errors for part in parts):
            made_of = [self._errors[part] for part in parts if part in self._errors]
            moved = _Moved(self, func, parts, args, keywords)
            for index, made in enumerate(results):
                self._await(made, partial(moved, index), made_of)
        elif all(part in self._origins for part in parts):
            origins: list[Origin] = [self._origins[part] for part in parts]
            pre = _moved(func, [each.pre for each in origins], args, keywords)
            late = _MovedOrigins(func, origins, args, keywords)
            for index, (made, own) in enumerate(zip(results, pre, strict=True)):
                self._origins[made] = Origin(own, partial(late, index))

    def _place(self) -> str:
        return f"behind the tap {self._tap}" if self._tap else "before the first tap"


_WAITING: Final = 2**28
"""Bytes of values that may wait for their errors."""


class _Moved:
    """The errors of what an operator moved; it moves all of them when one is asked for."""

    def __init__(
        self, errors: RoundingErrors, func: Any, parts: Sequence[Tensor], args: Any, keywords: Any
    ) -> None:
        self._given = errors, func, parts, args, keywords
        self._made: list[Tensor] = []

    def __call__(self, index: int) -> Tensor:
        if not self._made:
            errors, func, parts, args, keywords = self._given
            given = [_or_zero(errors.rms(part), part) for part in parts]
            self._made = _moved(func, given, *_of_errors(func, args, keywords))
        return self._made[index]


class _MovedOrigins:
    """Likewise of values that bits come from."""

    def __init__(self, func: Any, origins: Sequence[Origin], args: Any, keywords: Any) -> None:
        self._given = func, origins, args, keywords
        self._made: list[Tensor] = []

    def __call__(self, index: int) -> Tensor:
        if not self._made:
            func, origins, args, keywords = self._given
            given = [_or_zero(each.rms, each.pre) for each in origins]
            self._made = _moved(func, given, *_of_errors(func, args, keywords))
        return self._made[index]


def _or_zero(rms: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.float64) if rms is None else rms


def _of_errors(func: Any, args: Any, keywords: Any) -> tuple[Any, Any]:
    """What errors are moved by: none stand around padded values."""
    return (args[:2], {}) if func is _PAD else (args, keywords)


def _in_fp32(args: Any, keywords: Any) -> bool:
    """Whether fp32 has all numbers that an operator is given."""
    numbers = (leaf for leaf in leaves((args, keywords)) if isinstance(leaf, float))
    return all(math.isinf(each) or float(np.float32(each)) == each for each in numbers)


def _moved(func: Any, parts: Sequence[Tensor], args: Any, keywords: Any) -> list[Tensor]:
    given: Any = list(parts) if isinstance(args[0], list | tuple) else parts[0]
    if func in _RESHAPES:  # errors may lie in memory in another order than their values
        return [given.reshape(args[1])]
    return leaves(func(given, *args[1:], **keywords))


Rule = Callable[..., Tensor]
"""Called with the errors, the result and the operator's arguments; returns the result's error."""


def _rounding(value: Tensor) -> Tensor:
    return value.abs().mul_(_UNIT).add_(_TINY)


def _hypot(*errors: Tensor | float | None) -> Tensor:
    tensors = sorted(
        (error for error in errors if isinstance(error, Tensor)), key=Tensor.numel, reverse=True
    )
    total = tensors[0].square()
    for error in tensors[1:]:
        broadcast = np.broadcast_shapes(total.shape, error.shape) != total.shape
        total = torch.addcmul(total, error, error) if broadcast else total.addcmul_(error, error)
    numbers = sum(error**2 for error in errors if isinstance(error, float))
    return (total.add_(numbers) if numbers else total).sqrt_()


def _absolute(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) else abs(value)


def _of(errors: RoundingErrors, value: Any) -> Tensor | None:
    return errors.rms(value) if isinstance(value, Tensor) else None


def _times(rms: Tensor | None, factor: Any) -> Tensor | None:
    return None if rms is None else rms * _absolute(factor)


def _summation(terms: int, absolute: Tensor, result: Tensor) -> Tensor:
    """What adding up rounds; `absolute` is the sum of the terms' absolute values."""
    size = 0.5 * _UNIT * math.sqrt(terms)
    return (result.abs() + absolute).mul_(size).add_(_TINY * terms)


def _plus(sign: int) -> Rule:
    def rule(errors: RoundingErrors, y: Tensor, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
        # An engine that adds constants up beforehand rounds the largest of three, not the sum.
        rounded = _largest(a, b, alpha, y).mul_(_UNIT).add_(_TINY)
        own, other = _of(errors, a), _times(_of(errors, b), alpha)
        if a is b and own is not None:
            return _hypot(own * abs(1 + sign * alpha), rounded)
        return _hypot(own, other, rounded)

    return rule


def _largest(a: Any, b: Any, alpha: float, y: Tensor) -> Tensor:
    """The largest absolute value of a, alpha b and y, in a tensor of its own in y's shape."""
    largest = y.double().abs()
    for part, factor in ((a, 1), (b, abs(alpha))):
        size = torch.as_tensor(_absolute(part), dtype=torch.float64)
        torch.maximum(largest, size if factor == 1 else size * factor, out=largest)
    return largest


def _mul(errors: RoundingErrors, y: Tensor, a: Any, b: Any) -> Tensor:
    if a is b:
        return _hypot(_times(_of(errors, a), 2 * a), _rounding(y))
    return _hypot(_times(_of(errors, a), b), _times(_of(errors, b), a), _rounding(y))


def _div(errors: RoundingErrors, y: Tensor, a: Any, b: Any) -> Tensor:
    own, other = _of(errors, a), _of(errors, b)
    return _hypot(
        None if own is None else own / _absolute(b),
        None if other is None else other * (y / b).abs(),
        _rounding(y),
    )


def _product(errors: RoundingErrors, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _sum_of_products(errors, y, a, b, torch.matmul, a.shape[-1])


def _sum_of_products(
    errors: RoundingErrors,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    contract: Callable[[Tensor, Tensor], Tensor],
    terms: int,
    bias: Tensor | None = None,
) -> Tensor:
    absolute = contract(a.abs(), b.abs())
    if bias is not None:
        absolute, terms = absolute + bias.abs(), terms + 1
    own, other = errors.rms(a), errors.rms(b)
    return _hypot(
        None if own is None else torch.sqrt(contract(own**2, b**2)),
        None if other is None else torch.sqrt(contract(a**2, other**2)),
        None if bias is None else errors.rms(bias),
        _summation(terms + 1, absolute, y),
    )


def _addmm(
    errors: RoundingErrors, y: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any
) -> Tensor:
    return _sum_of_products(errors, y, a, b, torch.matmul, a.shape[-1], bias)


def _convolution(
    errors: RoundingErrors, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> Tensor:
    def contract(a: Tensor, b: Tensor) -> Tensor:
        made: Tensor = _aten.convolution.default(a, b, None, *rest)
        return made

    transposed = bool(rest[3])
    terms = weight[0].numel() if not transposed else weight.numel() // weight.shape[1]
    wide = None if bias is None else bias.reshape(-1, *[1] * (y.dim() - 2))
    summed = _sum_of_products(errors, y, x, weight, contract, terms, wide)
    if not may_be_filtered(weight, *rest):
        return summed
    own, other = errors.rms(x), errors.rms(weight)
    filtered = _hypot(
        None if own is None else torch.sqrt(contract(own**2, weight**2)),
        None if other is None else torch.sqrt(contract(x**2, other**2)),
        winograd_rounding(x, weight, rest[1]),
        _rounding(y),
    )
    # Whichever form an engine takes.
    return torch.maximum(summed, filtered)


def _batch_norm(
    errors: RoundingErrors,
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    *rest: Any,
) -> Tensor:
    def wide(row: Tensor) -> Tensor:
        return row.reshape(-1, *[1] * (x.dim() - 2))

    if mean is None or variance is None or (len(rest) > 2 and rest[0]):
        axes = (0, *range(2, x.dim()))
        first, second = (None if row is None else wide(row) for row in (weight, bias))
        return _normalized(errors, y, x, axes, first, second, rest[-1])
    gain = wide(torch.rsqrt(variance + rest[-1]) * (1.0 if weight is None else weight)).abs()
    offset = 0.0 if bias is None else wide(bias).abs()
    # Scale and shift may be folded: root, scale, shift (2), product and sum round.
    terms = (x.abs() + wide(mean).abs()) * gain + offset
    return _hypot(_times(errors.rms(x), gain), _rounding(terms) * math.sqrt(6), gain * _TINY)


def _layer_norm(
    errors: RoundingErrors,
    y: Tensor,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
) -> Tensor:
    return _normalized(errors, y, x, tuple(range(-len(shape), 0)), weight, bias, epsilon)


def _normalized(
    errors: RoundingErrors,
    y: Tensor,
    x: Tensor,
    axes: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
) -> Tensor:
    n = math.prod(x.shape[axis] for axis in axes)
    mean = x.mean(axes, keepdim=True)
    scale = torch.rsqrt(x.var(axes, correction=0, keepdim=True) + epsilon)
    unit = (x - mean) * scale
    summed = _UNIT * math.sqrt(n)
    brought = errors.rms(x)
    spread = None
    if brought is not None:
        both = (brought**2).mean(axes, keepdim=True) / n
        along = unit.abs() * torch.sqrt(((unit * brought) ** 2).mean(axes, keepdim=True) / n)
        spread = _hypot(brought, torch.sqrt(both), along)
    inner = _hypot(
        spread,
        x.abs().mean(axes, keepdim=True) * summed,
        _rounding(torch.maximum(x.abs(), mean.abs())),
    )
    gain = 1.0 if weight is None else weight.abs()
    return _hypot(
        inner * scale * gain,
        unit.abs() * gain * (summed + 4 * _UNIT),
        _rounding(y),
        None if bias is None else _rounding(bias),
    )


def _softmax(errors: RoundingErrors, p: Tensor, x: Tensor, axis: int, *_: Any) -> Tensor:
    rms = errors.rms(x)
    far = (x.amax(axis, keepdim=True) - x).clamp(max=128) * _UNIT
    summed = 4 * _UNIT + _UNIT * math.sqrt(x.shape[axis])
    inner = _hypot(rms, far, summed)
    common = torch.sqrt(((p * inner) ** 2).sum(axis, keepdim=True))
    return _hypot(p * inner, p * common) + _TINY


def _mean(
    errors: RoundingErrors,
    y: Tensor,
    x: Tensor,
    axes: Sequence[int] | None = None,
    keep: bool = False,
    **_: Any,
) -> Tensor:
    n = x.numel() // max(y.numel(), 1)
    return _hypot(_sum(errors, y * n, x, axes, keep) / n, _rounding(y))


def _sum(
    errors: RoundingErrors,
    y: Tensor,
    x: Tensor,
    axes: Sequence[int] | None = None,
    keep: bool = False,
    **_: Any,
) -> Tensor:
    along = list(axes) if axes else list(range(x.dim()))
    rms = errors.rms(x)
    return _hypot(
        None if rms is None else torch.sqrt((rms**2).sum(along, keep)),
        _summation(x.numel() // max(y.numel(), 1), x.abs().sum(along, keep), y),
    )


def _largest_of(
    errors: RoundingErrors, _y: Tensor, x: Tensor, axes: Any = (), keep: bool = False
) -> Tensor:
    along = [axes] if isinstance(axes, int) else list(axes) or list(range(x.dim()))
    rms = _or_zero(errors.rms(x), x)
    return torch.sqrt((rms**2).sum(along, keep))


def _max_pool(
    errors: RoundingErrors,
    _y: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Tensor:
    worst: Tensor = _aten.max_pool2d_with_indices.default(
        _or_zero(errors.rms(x), x), kernel, stride, padding, dilation, ceil
    )[0]
    return worst * math.sqrt(math.prod(list(kernel) * (2 // len(kernel))))


def _adaptive_max_pool(errors: RoundingErrors, y: Tensor, x: Tensor, *size: Any) -> Tensor:
    # A window begins and ends within a pixel of its share.
    sides = zip(x.shape[-2:], y.shape[-2:], strict=True)
    most = math.prod(-(-n // out) + 1 for n, out in sides)
    worst: Tensor = _aten.adaptive_max_pool2d.default(_or_zero(errors.rms(x), x), *size)[0]
    return worst * math.sqrt(most)


def _avg_pool(errors: RoundingErrors, y: Tensor, x: Tensor, kernel: Any, *rest: Any) -> Tensor:
    n = math.prod(list(kernel) * (2 // len(kernel)))
    squares = _aten.avg_pool2d.default(_or_zero(errors.rms(x), x) ** 2, kernel, *rest)
    absolute = _aten.avg_pool2d.default(x.abs(), kernel, *rest)
    return _hypot(torch.sqrt(squares), _summation(n + 1, absolute, y))


def _prelu(errors: RoundingErrors, y: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    rms = _or_zero(errors.rms(x), x)
    steep = slope.abs().expand_as(x)
    # Where the error could carry x across zero, the larger of both slopes.
    certain = x.abs() > LAMBDA * rms
    factor = torch.where(certain & (x >= 0), 1.0, steep)
    factor = torch.where(certain, factor, steep.clamp(min=1))
    return _hypot(rms * factor, _rounding(y))


def _relu(errors: RoundingErrors, _y: Tensor, x: Tensor) -> Tensor:
    rms = _or_zero(errors.rms(x), x)
    return torch.where(x > -LAMBDA * rms, rms, 0.0)


def _leaky(errors: RoundingErrors, y: Tensor, x: Tensor, slope: float = 0.01) -> Tensor:
    return _prelu(errors, y, x, torch.tensor(slope, dtype=torch.float64))


def _clamp(errors: RoundingErrors, y: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    # The ends are rounded to fp32 once.
    return _hypot(_or_zero(errors.rms(x), x), _rounding(y))


def _padded(errors: RoundingErrors, y: Tensor, x: Tensor, *rest: Any) -> Tensor:
    around: Tensor = _PAD(_or_zero(errors.rms(x), x), rest[0])
    return _hypot(around, _rounding(y))


def _compared(errors: RoundingErrors, y: Tensor, a: Any, b: Any) -> Tensor:
    """1 where an error could turn a comparison, else 0."""
    own, other = (_of(errors, value) for value in (a, b))
    error = _hypot(own, other, _rounding(torch.as_tensor(b, dtype=torch.float64)))
    close: Tensor = (a - b).abs() <= LAMBDA * error
    return close.to(torch.float64).expand_as(y)


def _lipschitz(errors: RoundingErrors, _y: Tensor, x: Tensor, *_: Any) -> Tensor:
    """Of what moves no value further than its input was moved, and rounds nothing."""
    return _or_zero(errors.rms(x), x)


def _either(errors: RoundingErrors, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _hypot(_or_zero(errors.rms(a), a), _or_zero(errors.rms(b), b)).expand_as(y)


def _where(errors: RoundingErrors, y: Tensor, condition: Tensor, a: Any, b: Any) -> Tensor:
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    own, other = (_or_zero(errors.rms(value), value) for value in (a, b))
    chosen = torch.where(condition, own, other)
    turned = errors.rms(condition)
    if turned is not None:
        either = torch.maximum(own, other) + (a - b).abs() / LAMBDA
        chosen = torch.where(turned > 0, either, chosen)
    # A number in it may be rounded to fp32.
    return _hypot(chosen, _rounding(y))


def _smooth(derivative: Callable[[Tensor, Tensor], Tensor], roundings: float = 4.0) -> Rule:
    """Of an elementwise function; its engines are within so many roundings of the truth."""

    def rule(errors: RoundingErrors, y: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
        brought = _times(errors.rms(x), derivative(x, y))
        return _hypot(brought, _rounding(y) * roundings)

    return rule


def _sigmoid(errors: RoundingErrors, y: Tensor, x: Tensor, **_: Any) -> Tensor:
    # 1/2 + p(x)/q(x), as some engines have it, leaves an error of 1/2 where little is left of y.
    return _hypot(_times(errors.rms(x), y * (1 - y)), _rounding(y.clamp(min=0.5)) * 4)


def _silu(errors: RoundingErrors, _y: Tensor, x: Tensor) -> Tensor:
    # x sigmoid(x), of which see above.
    share = torch.sigmoid(x).clamp(min=0.5)
    return _hypot(_times(errors.rms(x), 1.1), _rounding(x * share) * 4)


def _gelu(errors: RoundingErrors, _y: Tensor, x: Tensor, **_: Any) -> Tensor:
    # x/2 (1 + erf): the sum of 1 and nearly -1 leaves an error of x, whatever is left of y.
    return _hypot(_times(errors.rms(x), 1.13), _rounding(x) * 4)


def _exp_less_one(errors: RoundingErrors, y: Tensor, x: Tensor) -> Tensor:
    # exp(x) - 1, as most engines have it, leaves an error of 1.
    return _hypot(_times(errors.rms(x), y + 1), _rounding(y.abs().clamp(min=1)) * 4)


def _log_of_more_than_one(errors: RoundingErrors, y: Tensor, x: Tensor) -> Tensor:
    # log(1 + x) likewise.
    return _hypot(_times(errors.rms(x), 1 / (1 + x)), _rounding(y.abs().clamp(min=1)) * 4)


def _variance(
    errors: RoundingErrors,
    y: Tensor,
    x: Tensor,
    axes: Sequence[int] | None = None,
    correction: float | None = None,
    keepdim: bool = False,
    **_: Any,
) -> Tensor:
    along = list(axes) if axes else list(range(x.dim()))
    n = math.prod(x.shape[axis] for axis in along)
    divided = max(n - (1 if correction is None else correction), 1)
    mean = x.mean(along, keepdim=True)
    far = (x - mean).abs()
    rounded = _hypot(
        errors.rms(x),
        _rounding(torch.maximum(x.abs(), mean.abs())),
        x.abs().mean(along, keepdim=True) * (_UNIT * math.sqrt(n)),
    )
    brought = torch.sqrt(((2 * far * rounded) ** 2).sum(along, keepdim)) / divided
    return _hypot(brought, _summation(n + 3, y, y))


def _bilinear(
    errors: RoundingErrors, _y: Tensor, x: Tensor, size: Sequence[int], *rest: Any
) -> Tensor:
    def resized(picture: Tensor) -> Tensor:
        made: Tensor = _aten.upsample_bilinear2d.default(picture, size, *rest)
        return made

    # A place along a side of so many pixels is rounded, and with it the shares of its neighbours.
    places = 2 * _UNIT * max(*x.shape[-2:], *size)
    brought = _or_zero(errors.rms(x), x)
    # Shares are at most 1, so the sum of their squares times squares is at most that of these.
    return _hypot(torch.sqrt(resized(brought**2)), resized(x.abs()) * (places + 4 * _UNIT))


def _power(errors: RoundingErrors, y: Tensor, x: Tensor, exponent: float) -> Tensor:
    slope = exponent * x.pow(exponent - 1)
    return _hypot(_times(errors.rms(x), slope), _rounding(y) * (4 + abs(exponent)))


def _beyond_fp32(integers: Tensor) -> bool:
    """Whether some integers have more bits than a float."""
    if integers.dtype in _NARROW or not integers.numel():
        return False
    least, most = integers.aminmax()
    return max(-int(least), int(most)) > _LARGEST_EXACT


def _cast(errors: RoundingErrors, y: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    own = _or_zero(errors.rms(x), x)
    if x.is_floating_point():
        return own
    return torch.where(y.abs() > _LARGEST_EXACT, _rounding(y), own)


_RULES: Final[Mapping[Any, Rule]] = MappingProxyType(
    {
        **dict.fromkeys((_aten.add.Tensor, _aten.add.Scalar, _prims.add.default), _plus(1)),
        **dict.fromkeys((_aten.sub.Tensor, _aten.sub.Scalar, _prims.sub.default), _plus(-1)),
        **dict.fromkeys((_aten.mul.Tensor, _aten.mul.Scalar, _prims.mul.default), _mul),
        **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar, _prims.div.default), _div),
        _aten.mm.default: _product,
        _aten.bmm.default: _product,
        _aten.addmm.default: _addmm,
        _aten.baddbmm.default: _addmm,
        _aten.convolution.default: _convolution,
        _aten.native_batch_norm.default: _batch_norm,
        _aten._native_batch_norm_legit_no_training.default: _batch_norm,
        _aten.native_layer_norm.default: _layer_norm,
        _aten._softmax.default: _softmax,
        _aten._safe_softmax.default: _softmax,
        _aten.mean.default: _mean,
        _aten.mean.dim: _mean,
        _aten.sum.default: _sum,
        _aten.sum.dim_IntList: _sum,
        _prims.sum.default: _sum,
        _aten.amax.default: _largest_of,
        _aten.amin.default: _largest_of,
        _aten.max_pool2d_with_indices.default: _max_pool,
        _aten.avg_pool2d.default: _avg_pool,
        _aten.adaptive_max_pool2d.default: _adaptive_max_pool,
        _aten._prelu_kernel.default: _prelu,
        _aten.relu.default: _relu,
        _aten.neg.default: _lipschitz,
        _aten.abs.default: _lipschitz,
        _aten.clamp.default: _clamp,
        _aten.clamp_min.default: _clamp,
        _aten.clamp_max.default: _clamp,
        _aten.hardtanh.default: _clamp,
        _aten.leaky_relu.default: _leaky,
        _PAD: _padded,
        _aten.maximum.default: _either,
        _aten.minimum.default: _either,
        _aten.where.self: _where,
        _prims.where.default: _where,
        **{
            getattr(getattr(_aten, name), overload): _compared
            for name in ("gt", "ge", "lt", "le")
            for overload in ("Scalar", "Tensor")
        },
        _aten._to_copy.default: _cast,
        _aten.exp.default: _smooth(lambda _, y: y),
        _aten.erf.default: _smooth(lambda x, _: torch.exp(-x * x) * 1.13),
        _aten.sin.default: _smooth(lambda x, _: x.cos()),
        _aten.cos.default: _smooth(lambda x, _: x.sin()),
        _aten.tanh.default: _smooth(lambda _, y: 1 - y * y),
        _aten.sigmoid.default: _sigmoid,
        _aten.silu.default: _silu,
        _aten.expm1.default: _exp_less_one,
        _aten.log1p.default: _log_of_more_than_one,
        _aten.var.correction: _variance,
        _prims.var.default: _variance,
        _aten.upsample_bilinear2d.default: _bilinear,
        _aten.sqrt.default: _smooth(lambda _, y: 0.5 / y, 1.0),
        _aten.rsqrt.default: _smooth(lambda x, y: 0.5 * y / x, 2.0),
        _aten.reciprocal.default: _smooth(lambda _, y: y * y, 1.0),
        _aten.log.default: _smooth(lambda x, _: 1 / x),
        _aten.gelu.default: _gelu,
        _aten.pow.Tensor_Scalar: _power,
    }
)

_RESHAPES: Final = frozenset((_aten.view.default, _aten._unsafe_view.default))

_VIEWS: Final = _RESHAPES | frozenset(
    (
        _aten.alias.default,
        _aten.cat.default,
        _aten.clone.default,
        _PAD,
        _aten.detach.default,
        _aten.expand.default,
        _aten.flip.default,
        _aten.index.Tensor,
        _aten.index_select.default,
        _aten.permute.default,
        _aten.roll.default,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.split.Tensor,
        _aten.split_with_sizes.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.stack.default,
        _aten.t.default,
        _aten.transpose.int,
        _aten.unbind.int,
        _aten.unfold.default,
        _aten.unsqueeze.default,
        _aten.upsample_nearest2d.default,
        _aten._upsample_nearest_exact2d.default,
        _prims.broadcast_in_dim.default,
        _own.tap.default,
    )
)
"""Operators that move values, or repeat them, and compute nothing."""

_EXACT: Final = frozenset(
    (
        _aten._to_copy.default,
        _aten.relu.default,
        _aten.neg.default,
        _aten.abs.default,
        _aten.clamp.default,
        _aten.hardtanh.default,
        _aten.maximum.default,
        _aten.minimum.default,
        _aten.where.self,
        _aten.amax.default,
        _aten.amin.default,
        _aten.max_pool2d_with_indices.default,
        _aten.embedding.default,
        _aten.full_like.default,
        _aten.zeros_like.default,
        _aten.ones_like.default,
        _aten.lift_fresh.default,
        _aten.detach_.default,
        _aten.empty_like.default,
    )
)
"""Operators on floats that round nothing."""
