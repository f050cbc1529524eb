"""Names of layers, which are the first part of the names of their taps."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn

from vitc.errors import VitcError

__all__ = ["Named", "Settled", "settle_names"]


class Named(nn.Module):
    """A layer that taps values.

    Args:
        name: Of its taps, or their first part; empty for the name of the module in the network,
            which `settle_names` finds.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name


class Settled(Named):
    """A layer with constants that follow from its parameters, computed when it is frozen."""

    @abstractmethod
    def settle(self) -> None:
        """Compute them; parameters do not change after that."""


def settle_names(model: nn.Module) -> None:
    """Give each layer without a name that of its module.

    Raises:
        VitcError: If two layers have one name.
    """
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, Named):
            continue
        module.name = module.name or path or type(module).__name__
        if module.name in found:
            raise VitcError(
                f"Two layers are named {module.name}: {found[module.name]} and {path}.",
                "Give each a name of its own, or none: then it has that of its module.",
            )
        found[module.name] = path
