"""Phase 5: a rule for every operator, and a form for every value.

Each operator has the rule of its type. Backward, readers ask and writers serve: what an operator is
asked for decides what it asks for in turn. It writes the first form that it can of those that its
readers ask for; where they disagree, floats are binarized again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vitc.compiler.form import Form
from vitc.compiler.graph import Graph, Op, Value, refused
from vitc.compiler.rules import RULES
from vitc.compiler.rules.rule import Rule
from vitc.dialect.ops import DOMAIN
from vitc.errors import VitcError
from vitc.targets.isa import Isa

__all__ = ["Choice", "choose", "describe"]

_NAMED = 5


@dataclass(frozen=True)
class Choice:
    """How an operator is computed.

    Attributes:
        rule: What builds its steps.
        form: What they write.
        others: What they are done again for, since readers disagree.
    """

    rule: Rule
    form: Form
    others: tuple[Form, ...] = ()


def choose(graph: Graph, isa: Isa) -> dict[Op, Choice]:
    """Choose rules and forms for the operators that lead to an output.

    Raises:
        VitcError: If an operator has no rule, none of the forms that its readers ask for can be
            written, or a binary product leads to no output.
    """
    rules = {op: _rule(op) for op in _needed(graph)}
    asked: dict[Value, list[Form]] = {}
    choices: dict[Op, Choice] = {}
    for op, rule in reversed(rules.items()):
        wanted = asked.get(op.output, [])
        form = _written(op, rule, wanted, isa)
        if rule.again and op.output.taps and form.back(op.output.shape) is None:
            # Some rows only, which no trace can show.
            form = rule.form(op, isa)
        others = [other for other in wanted if other != form and rule.offers(op, other, isa)]
        choices[op] = Choice(rule, form, tuple(others) if rule.again else ())
        for use, asks in rule.asks(op, form, isa):
            forms = asked.setdefault(use.value, [])
            if asks not in forms:
                forms.append(asks)
    return {op: choices[op] for op in rules}


def _needed(graph: Graph) -> list[Op]:
    """The operators that lead to an output.

    Raises:
        VitcError: If an operator of the dialect does not.
    """
    wanted = {use.value for use in graph.outputs.values()}
    needed, lost = list[Op](), list[Op]()
    for op in reversed(graph.ops):
        if op.output in wanted:
            wanted.update(use.value for use in op.uses)
            needed.insert(0, op)
        elif op.domain == DOMAIN:
            lost.insert(0, op)
    if lost:
        named = ", ".join(map(str, lost[:_NAMED]))
        raise VitcError(
            f"{len(lost)} binary operators have no kernel, since they lead to no output: {named}.",
            "A part of the graph does not lead to the logits; export the model again.",
        )
    return needed


def _rule(op: Op) -> Rule:
    rule = RULES.get((op.domain, op.kind))
    if rule is None:
        raise refused(op, f"no kernel computes {op.kind} here")
    return rule


def _written(op: Op, rule: Rule, asked: list[Form], isa: Isa) -> Form:
    if not asked:
        return rule.form(op, isa)
    for form in asked:
        if rule.offers(op, form, isa):
            return form
    if op.kind == "Pad":
        instead = "pad the floats before they are binarized, with 1 for a bit of 1"
        raise refused(op, f"bits are not padded: {instead}")
    raise refused(op, f"no kernel writes it as {asked[0]}, which a reader asks for")


def describe(choices: Mapping[Op, Choice]) -> str:
    """Return one line an operator, for `--dump-ir`."""
    return "".join(
        f"{type(choice.rule).__name__:24s} {choice.form!s:32s} {op.output.tap}\n"
        for op, choice in choices.items()
    )
