"""What a rule is: how one type of operator becomes steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Op, Use
from vitc.compiler.plan import Buffer, Port
from vitc.targets.isa import Isa

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Rule"]


class Rule(ABC):
    """One type of operator. Rules have no state."""

    again: ClassVar[bool] = False
    """Whether it is done once for every form that its readers ask for, being cheap."""

    def form(self, op: Op, isa: Isa) -> Form:
        """The form that it writes where no reader asks for one."""
        del isa
        return floats_of(op.output)

    def offers(self, op: Op, form: Form, isa: Isa) -> bool:
        """Whether it can write a form."""
        return form == self.form(op, isa)

    def unread(self, op: Op) -> list[int]:
        """Numbers of inputs that are floats in an order that no kernel of it reads."""
        del op
        return []

    @abstractmethod
    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """The forms in which it reads, given the form that it writes.

        Raises:
            VitcError: If it cannot read something in any form.
        """

    @abstractmethod
    def build(self, op: Op, form: Form, emission: Emission) -> Buffer | Port:
        """Append its steps, and return the buffer of its value, or the port that it is written to.

        Raises:
            VitcError: If no kernel does what it does.
        """
