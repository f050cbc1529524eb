"""What a small installation leaves out: the extras of vitc, their packages, and what needs them.

``pip install vitc`` runs and times artefacts with NumPy; PyTorch, ONNX and TVM come with extras of
pyproject.toml, of which this table has the modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from vitc.errors import VitcError

__all__ = ["EXTRAS", "MissingExtraError", "absent_modules", "explained", "install", "need"]

_ONNX: Final = ("onnx", "onnx_ir", "onnxruntime")
_SEARCH: Final = ("joblib", "tokenizers")

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "onnx": _ONNX,
        "search": _SEARCH,
        "farm": ("tvm", "tornado"),
        "compile": ("tvm", "ziglang", *_ONNX),
        "train": (
            "torch",
            "accelerate",
            "matplotlib",
            "onnxscript",
            "pycocotools",
            "safetensors",
            "sklearn",
            *_ONNX,
            *_SEARCH,
        ),
    }
)
"""Modules of each extra, the smallest extra first."""

_CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"

_LISTED: Final = 3


class MissingExtraError(VitcError, ImportError):
    """Something needs a part of vitc that is not installed."""


def need(what: str, *extras: str, hint: str = "") -> None:
    """Refuse what needs extras that are not installed, before anything is imported or written.

    Args:
        what: Of the sentence "WHAT needs ..".
        extras: Keys of `EXTRAS`.
        hint: What else could be done than to install them.

    Raises:
        MissingExtraError: If a module of them is not there.
    """
    missing = absent_modules(*extras)
    if missing:
        raise _missing(what, extras, missing, hint)


def absent_modules(*extras: str) -> list[str]:
    """Modules of extras that are not installed."""
    wanted = dict.fromkeys(module for extra in extras for module in EXTRAS[extra])
    return [module for module in wanted if find_spec(module) is None]


def explained(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The explanation of a failed import, if what is missing comes with an extra."""
    name = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return _missing("This", (extra,), [name], "")
    return None


def install(*extras: str) -> str:
    """The command that installs extras."""
    index = f" --extra-index-url {_CPU_INDEX}" if "train" in extras else ""
    return f"python -m pip install 'vitc[{','.join(extras)}]'{index}"


def _missing(
    what: str, extras: tuple[str, ...], modules: list[str], hint: str
) -> MissingExtraError:
    listed = ", ".join(modules[:_LISTED])
    if len(modules) > _LISTED:
        listed += f" and {len(modules) - _LISTED} more"
    are = "is" if len(modules) == 1 else "are"
    return MissingExtraError(
        f"{what} needs vitc[{','.join(extras)}]: {listed} {are} not installed.",
        f"{install(*extras)}{f'; {hint}' if hint else ''}",
    )
