"""`vitc device`: offer this machine, or a farm of machines, as `rpc://` devices."""

from __future__ import annotations

from typing import Annotated

import typer

from vitc.cli.command import add_command
from vitc.cli.output import Output

__all__ = ["app"]

app = typer.Typer(
    name="device",
    help="Offer this machine, or a farm of machines, as rpc:// devices.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Host = Annotated[str, typer.Option("--host", help="Address to bind to.")]
_Expose = Annotated[
    bool,
    typer.Option(
        "--expose",
        help="Allow a --host that others reach. Dangerous: whoever reaches the port can run any "
        "code as this user; there is no password and no encryption.",
    ),
]


def serve(
    port: Annotated[int, typer.Option("--port", help="Port to bind to.")] = 9090,
    key: Annotated[str, typer.Option("--key", help="Kind of device, such as rpi4.")] = "",
    tracker: Annotated[
        str | None, typer.Option("--tracker", metavar="HOST:PORT", help="Register with a tracker.")
    ] = None,
    host: _Host = "127.0.0.1",
    expose: _Expose = False,
) -> None:
    """Start a TVM RPC server, bound to this machine, and print the ssh tunnel to use."""
    from vitc.devices.serve import ServeOptions
    from vitc.devices.serve import serve as serve_rpc

    options = ServeOptions(host=host, port=port, key=key, tracker=tracker, expose=expose)
    serve_rpc(options, Output().copyable)


def tracker(
    port: Annotated[int, typer.Option("--port", help="Port to bind to.")] = 9190,
    host: _Host = "127.0.0.1",
    expose: _Expose = False,
) -> None:
    """Start a TVM RPC tracker, bound to this machine, which hands out the boards of a farm."""
    from vitc.devices.serve import TrackerOptions, track

    track(TrackerOptions(host=host, port=port, expose=expose), Output().copyable)


add_command(app, "device serve", serve)
add_command(app, "device tracker", tracker)
