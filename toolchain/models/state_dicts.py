"""Finding a network's tensors in what a training program has saved.

Programs put the state dict into a container (``state_dict``, ``model_state_dict``, ``net``, ..) and
wrap the network, which puts prefixes before its names: ``module.`` (parallel training, averaged
models), ``_orig_mod.`` (torch.compile), ``model.`` (Lightning), any of them nested. No list of such
words is ever whole, so both are told by a tensor that every network of an architecture has (its
entry names it): whatever stands before its name stands before all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from vitc.errors import VitcError
from vitc.models import architectures

__all__ = ["StateDict", "find_state_dict", "unwrapped"]

_WRAPPERS: Final = frozenset(
    ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
)
"""Parts of a name that wrappers of PyTorch put in, at the front or around one layer."""

_COUNTERS: Final = frozenset(("total_ops", "total_params", "n_averaged"))
"""Tensors that a profiler (thop) or an averaged model keeps beside those of the network."""

_USUAL: Final = "state_dict"
_EMA_WORDS: Final = ("ema", "averaged", "swa")
_DEEPEST: Final = 3
_LISTED: Final = 12
_ALONE: Final = "Save the state dict of one network alone with torch.save, or as .safetensors."


@dataclass(frozen=True)
class StateDict:
    """The tensors of a network.

    Attributes:
        tensors: By the names that the network gives them; what does not belong to it keeps its own.
        notes: Sentences about what was taken, and what was left.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def find_state_dict(
    content: object, *, ema: bool = False, anchors: Sequence[str] | None = None
) -> StateDict:
    """Find the tensors in the content of a file.

    Args:
        content: What torch.load gave.
        ema: Whether to take the moving average of the weights.
        anchors: Tensors of which every network has one, the longest name first; None for those of
            the architectures.

    Raises:
        VitcError: If there are none, or those of several networks; what was found is named. The
            message begins with the verb.
    """
    known = architectures.anchors() if anchors is None else anchors
    found = dict(_holding(content, set(), known))
    chosen = {
        place: value
        for place, value in found.items()
        if any(_averaged(f"{place}.{prefix}") == ema for prefix in _prefixes(value, known))
    }
    if not chosen and not ema:
        # Averages alone: whoever saved them keeps no other weights.
        chosen = found
    if not chosen and not ema and isinstance(content, Mapping):
        # Tensors of another network, which are reported when their shapes are looked at.
        inner = content.get(_USUAL, content)
        chosen = {_USUAL if inner is not content else "": inner}
    if len(chosen) > 1 and _USUAL in chosen:
        chosen = {_USUAL: chosen[_USUAL]}
    if len(chosen) > 1:
        raise VitcError(f"holds several networks: {_listing(chosen)}.", _ALONE)
    if not chosen or not isinstance(next(iter(chosen.values())), Mapping):
        held = _listing(content) if isinstance(content, Mapping) else ""
        raise VitcError(
            f"has no {_USUAL}{'_ema' if ema else ''}; it holds {held or type(content).__name__}.",
            "Load it without the EMA option." if ema else "Name a checkpoint of the network.",
        )
    ((place, taken),) = chosen.items()
    strangers = [str(name) for name, value in taken.items() if not isinstance(value, Tensor)]
    if strangers:
        raise VitcError(
            f"has a state dict with entries that are no tensors: {_listing(sorted(strangers))}.",
            "Name a checkpoint of the network.",
        )
    # Parameters come with a gradient's history, which no copy of a model can have.
    tensors = {str(name): value.detach() for name, value in taken.items()}
    notes = [f"{place} was taken"] if place else []
    notes += [f"the file also has {other}, which was left" for other in found if other != place]
    bare = unwrapped(tensors, ema=ema and not _averaged(place), anchors=known)
    return StateDict(bare.tensors, (*notes, *bare.notes))


def unwrapped(
    tensors: Mapping[str, Tensor], *, ema: bool = False, anchors: Sequence[str] | None = None
) -> StateDict:
    """The same tensors without what wrappers have put before and into their names.

    Args:
        tensors: A state dict.
        ema: Whether to take the moving average, if networks of several prefixes are in it.
        anchors: As in `find_state_dict`.

    Raises:
        VitcError: If there are several networks in it; the message begins with the verb.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = _without_wrappers(name)
        if short in plain:
            raise VitcError(f"has two tensors that are {short}, one of them as {name}.", _ALONE)
        plain[short] = tensor
    prefixes = _prefixes(plain, architectures.anchors() if anchors is None else anchors)
    wanted = prefixes
    if len(prefixes) > 1:
        wanted = [prefix for prefix in prefixes if _averaged(prefix) == ema]
    if prefixes and len(wanted) != 1:
        listed = _listing(prefix or "(none)" for prefix in prefixes)
        raise VitcError(f"holds several networks, with the prefixes {listed}.", _ALONE)
    prefix = wanted[0] if wanted else ""
    others = [other for other in prefixes if other and other != prefix]
    counters: set[str] = set()
    left: set[str] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        last = name.rpartition(".")[2]
        other = next((p for p in others if name.startswith(p)), None)
        if last in _COUNTERS:
            counters.add(last)
        elif other is not None:
            left.add(other)
        else:
            kept[name.removeprefix(prefix)] = tensor
    notes = [f"the prefix {prefix} was taken off"] if prefix else []
    notes += [f"the tensors of {other} were left" for other in sorted(left)]
    notes += [f"{_listing(sorted(counters))} were left"] if counters else []
    return StateDict(kept, tuple(notes))


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(tensors: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """What stands before the names of each network among tensors, wrappers aside."""
    found: dict[str, None] = {}
    for name in tensors:
        short = _without_wrappers(str(name))
        anchor = next((each for each in known if f".{short}".endswith(f".{each}")), None)
        if anchor is not None:
            found[short.removesuffix(anchor)] = None
    return list(found)


def _averaged(place: str) -> bool:
    """Whether a key or a prefix says that what it holds is a moving average."""
    parts = place.lower().replace(".", "_").split("_")
    return any(word in parts for word in _EMA_WORDS)


def _holding(
    content: object, seen: set[int], known: Sequence[str], place: str = ""
) -> Iterator[tuple[str, Any]]:
    """Mappings that hold the tensors of a network, by the path of their keys.

    Each is looked into once: a file of a few bytes can hold one in a million places.
    """
    if not isinstance(content, Mapping) or id(content) in seen or place.count(".") > _DEEPEST:
        return
    seen.add(id(content))
    tensors = {name: None for name, value in content.items() if isinstance(value, Tensor)}
    if _prefixes(tensors, known):
        yield place, content
        return
    for key, value in content.items():
        yield from _holding(value, seen, known, f"{place}.{key}" if place else str(key))


def _listing(names: Any) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
