"""What every command has: how loud it is, an example, and the extras that it asks for first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from vitc.cli.examples import epilog
from vitc.cli.output import Loudness, set_loudness
from vitc.extras import need

__all__ = ["add_command"]

_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
_Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say every step, and where an error comes from.")
]


def add_command(
    app: typer.Typer,
    words: str,
    command: Callable[..., None],
    *,
    short_help: str | None = None,
    needs: tuple[str, ...] = (),
) -> None:
    """Enter a command into a program.

    Args:
        app: The program, or a group of it.
        words: As it is typed, behind ``vitc``.
        command: What it does.
        short_help: One line for the list of commands; by default the first of its docstring, whole.
        needs: Extras without which it can do nothing.
    """

    @wraps(command)
    def checked(*arguments: Any, quiet: bool, verbose: bool, **options: Any) -> None:
        set_loudness(Loudness.of(quiet=quiet, verbose=verbose))
        need(f"`vitc {words}`", *needs)
        command(*arguments, **options)

    # Typer reads the options of a command from its signature.
    own = inspect.signature(command, eval_str=True)
    more = {"quiet": _Quiet, "verbose": _Verbose}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in more.items()
    ]
    checked.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), *added]
    )
    checked.__annotations__ = {**command.__annotations__, **more}
    name = words.rpartition(" ")[2]
    # Whole: click cuts what it takes out of a docstring.
    first = (command.__doc__ or "").partition("\n")[0]
    app.command(name, short_help=short_help or first, epilog=epilog(words))(checked)
