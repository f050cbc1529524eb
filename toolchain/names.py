"""Names that users write, and the nearest known one to a name that stands for nothing.

The command line asks here before it imports a framework, so that a slip is answered at once; the
tables of what the names stand for ask here too, so that a name is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Final

from vitc.errors import VitcError

__all__ = [
    "BASELINES",
    "BRANCHES",
    "DATA",
    "DEVICES",
    "FORMATS",
    "GLYPHS",
    "INTERPOLATIONS",
    "MASKINGS",
    "MERGES",
    "NORMS",
    "PRECISIONS",
    "PREDICTED",
    "PRESETS",
    "PRETRAININGS",
    "PROCESSORS",
    "RECIPES",
    "RETRIEVAL_MODES",
    "SCENES",
    "SCHEMES",
    "TASKS",
    "TOWERS",
    "Names",
    "absent",
    "check_device",
    "did_you_mean",
    "optional",
]

_MOST_BESIDE: Final = 10_000


@dataclass(frozen=True)
class Names:
    """What one kind of thing may be called.

    Attributes:
        kind: What the names stand for, in the singular.
        known: The names.
        more: Where they are explained; empty if nowhere.
    """

    kind: str
    known: tuple[str, ...]
    more: str = ""

    def check(self, name: str) -> str:
        """The name, if it is known.

        Raises:
            VitcError: If it is not; the nearest one is named, and all are listed.
        """
        if name not in self.known:
            raise self.unknown(name)
        return name

    def complete(self, start: str) -> list[str]:
        """The names that begin as it was typed, for a shell."""
        return [name for name in self.known if name.startswith(start)]

    def unknown(self, name: str, nearest: str | None = None) -> VitcError:
        """The error for a name that is not known.

        Args:
            name: As it was written.
            nearest: What was probably meant; None for the nearest known name.
        """
        guess = did_you_mean(name, self.known) if not nearest else f": did you mean {nearest}?"
        more = f"; {self.more}" if self.more else ""
        return VitcError(
            f"There is no {self.kind} {name!r}{guess}", f"Known: {', '.join(self.known)}{more}."
        )


PRESETS: Final = Names(
    "preset",
    (
        "deit-tiny",
        "deit-small",
        "deit-base",
        "micro",
        "mini",
        "swin-tiny",
        "micro-swin",
        "pvt-tiny",
        "micro-pvt",
        "nest-tiny",
        "micro-nest",
    ),
    "see `vitc models`",
)
"""Keys of `vitc.models.PRESETS`."""

PRECISIONS: Final = Names("mixed precision", ("no", "bf16"))
"""What products of training may be computed in."""

RECIPES: Final = Names("recipe", ("joint", "decoupled"), "see docs/training.md")
"""Keys of `vitc.training.recipes.RECIPES`."""

RETRIEVAL_MODES: Final = Names("mode", ("base", "inflate", "fast"), "see docs/retrieval.md")
"""Keys of `vitc.models.retrieval.modes.MODES`."""

SCHEMES: Final = Names("binarization scheme", ("bibert", "recu", "bit"))
"""Keys of `vitc.models.schemes.SCHEMES`."""

MERGES: Final = Names("merging", ("float", "binary"))
"""What is computed between stages (`vitc.models.architectures.staged.MERGES`)."""

NORMS: Final = Names("norm", ("batch", "layer"))
"""What the norms of a residual stream may be (`vitc.models.config.NORMS`)."""

FORMATS: Final = Names("format", ("packed", "int8", "float"))
"""What the binary operators of an exported file are made of."""

EMBEDDINGS: Final = Names("embedding", ("fp32", "int15", "int8"))
"""What the weights of a patch embedding are (`vitc.models.embedding`)."""

ENDS: Final = Names("form of the ends", ("fp32", "int8"))
"""What the products of floats of a network are in a file (`vitc.models.ends`)."""

INTERPOLATIONS: Final = Names("interpolation", ("bicubic", "bilinear", "nearest"))
"""How pictures are resized (`vitc.models.preprocessing`)."""

PRETRAININGS: Final = Names("method", ("dmjd", "mae"))
"""Keys of `vitc.training.dmjd.options.METHODS`."""

MASKINGS: Final = Names("masking", ("block", "random"))
"""What is masked of an image: blocks of 2 x 2 tokens, or single tokens."""

PREDICTED: Final = Names("target", ("hog", "pixels", "teacher"))
"""What a pre-training predicts of a token (`vitc.training.dmjd.target_kinds`)."""

BASELINES: Final = Names("baseline", ("onnxruntime", "onnxruntime-int8", "packed", "int8", "none"))
"""Keys of `vitc.bench.baselines.BASELINES`, and ``none``."""

PROCESSORS: Final = Names(
    "model of a processor", ("cortex-a72", "cortex-a76", "neoverse-n1", "sapphire-rapids")
)
"""Keys of `vitc.bench.estimate.PROCESSORS`."""

DEVICES: Final = Names("device", ("local", "qemu", "ssh://", "adb://", "rpc://"))
"""What a device is or begins with (`vitc.devices.table`)."""

DATA: Final = "digits"
"""The data that come with vitc; other data are a folder."""

TASKS: Final = Names("task", ("detection", "segmentation"), "see docs/tasks.md")
"""What a network may give maps of the image for (`vitc.training.tasks.train.OBJECTIVES`)."""

BRANCHES: Final = ("classes", "boxes", "centreness")
"""What a detector has a map of at each level; an output is called ``BRANCH_STRIDE``."""

TOWERS: Final = Names("tower", ("dense", "depthwise", "pointwise"))
"""Inner layers of a detection head (`vitc.models.architectures.tasks.TOWERS`)."""

SCENES: Final = (DATA, "digits-marked")
"""Scenes of digits that come with vitc (`vitc.training.tasks.scenes`)."""


GLYPHS: Final = "glyphs"
"""The pictures with captions that come with vitc; others are a folder."""


def optional(names: Names) -> Callable[[str | None], str | None]:
    """What checks an option that may be left away."""
    return lambda name: None if name is None else names.check(name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or a full stop."""
    names = {entry.lower(): entry for entry in known}
    near = get_close_matches(name.lower(), names, 1)
    return f": did you mean {names[near[0]]}?" if near else "."


def absent(path: Path, what: str, hint: str) -> VitcError:
    """The error for a path that leads nowhere, with the nearest name beside it.

    Args:
        path: What a user named.
        what: What should be there, such as ``artefact folder``.
        hint: The next step.
    """
    if path.is_symlink():
        return VitcError(f"{path} is a link to {path.readlink()}, which is not there.", hint)
    try:
        beside = [str(entry) for entry in islice(path.parent.iterdir(), _MOST_BESIDE)]
    except OSError:
        return VitcError(f"There is no {what} {path}: there is no folder {path.parent}.", hint)
    return VitcError(f"There is no {what} {path}{did_you_mean(str(path), beside)}", hint)


def check_device(text: str) -> str:
    """The device, if it is of a known kind; whether its address is one shows when it is parsed.

    Raises:
        VitcError: If it is not.
    """
    kind, separator, _ = text.partition("://")
    if kind + separator not in DEVICES.known:
        head, _, rest = text.partition(":")
        urls = {known.removesuffix("://"): known for known in DEVICES.known}
        near = get_close_matches(head, urls, 1)
        guess = f"{urls[near[0]]}{rest.lstrip('/')}" if near and rest else "".join(near)
        raise DEVICES.unknown(text, guess)
    return text
