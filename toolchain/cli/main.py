"""The `vitc` program: its commands in the order of the way from checkpoint to device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer

from vitc.cli.bench import bench
from vitc.cli.check import check
from vitc.cli.claims import release_claims
from vitc.cli.command import add_command
from vitc.cli.compile import compile_
from vitc.cli.demo import demo
from vitc.cli.device import app as device
from vitc.cli.doctor import doctor
from vitc.cli.errors import guarded
from vitc.cli.export import export
from vitc.cli.index import app as index
from vitc.cli.inspect import inspect
from vitc.cli.models import models
from vitc.cli.new import new
from vitc.cli.output import Loudness, set_loudness
from vitc.cli.package import package
from vitc.cli.pretrain import pretrain
from vitc.cli.probe import probe
from vitc.cli.retrieve import app as retrieve
from vitc.cli.run import run
from vitc.cli.search import search
from vitc.cli.signals import interruptible
from vitc.cli.streams import prepare_streams, quiet_libraries
from vitc.cli.targets import targets
from vitc.cli.train import train
from vitc.cli.tune import tune
from vitc.errors import VitcError

__all__ = ["app", "main"]

app = typer.Typer(
    name="vitc",
    help="Compile binarized vision transformers to small native libraries, and prove that the "
    "numbers did not change.",
    epilog="Exit codes: 0 fine, 1 an explained error, 2 wrong usage, 3 a check that does not hold.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Click's own form of help wraps at any width; rich's boxes cut the names of options.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vitc {version('vitc')}")
        raise typer.Exit


_ANYWHERE: Final = frozenset({"doctor", "models", "targets"})
"""Commands that need no current folder."""


@app.callback()
def _root(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() says the same
    except OSError as error:
        # Where it does not exist, PyTorch's libraries end the process.
        if context.invoked_subcommand not in _ANYWHERE:
            raise VitcError(
                "The current folder was deleted.", "Change to a folder that exists."
            ) from error


_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "new": new,
    "pretrain": pretrain,
    "train": train,
    "probe": probe,
    "export": export,
    "compile": compile_,
    "run": run,
    "check": check,
    "bench": bench,
    "tune": tune,
    "inspect": inspect,
    "package": package,
    "search": search,
    "targets": targets,
    "models": models,
    "doctor": doctor,
    "demo": demo,
}

_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "new": ("train",),
    "pretrain": ("train",),
    "train": ("train",),
    "probe": ("train",),
    "export": ("train",),
    "compile": ("compile",),
    "tune": ("compile",),
    "demo": ("train", "compile"),
}
"""Extras of commands that can do nothing without; others say what they lack where they lack it."""


for _name, _command in _COMMANDS.items():
    add_command(app, _name, _command, needs=_NEEDS.get(_name, ()))
for _group in (retrieve, index, device):
    app.add_typer(_group)


def main() -> None:
    """Entry point of the `vitc` program."""
    prepare_streams()
    quiet_libraries()
    set_loudness(Loudness.USUAL)
    # PyTorch makes this folder when it is imported, in the temporary one, where nobody sweeps it;
    # vitc lets it compile nothing. A folder that there is already is made by nobody.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", sys.prefix)
    # Threads that wait for one another by spinning take the cores from whatever runs beside them:
    # ONNX Runtime, the compiler, other programs. An export took twice the processor time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with interruptible():
        try:
            sys.exit(guarded(app))
        finally:
            release_claims()


if __name__ == "__main__":
    main()
