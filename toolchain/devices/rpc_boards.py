"""The process that asks a tracker for its boards: ``python -m vitc.devices.rpc_boards HOST PORT``.

Its last line of output is JSON: [kind, host, port] of each.
"""

from __future__ import annotations

import json
import sys

from vitc.devices.tvm_runtime import choose_runtime

__all__: list[str] = []


def _main(host: str, port: int) -> int:
    choose_runtime()
    from tvm import rpc

    listed = rpc.connect_tracker(host, port).summary()["server_info"]
    boards = [[entry["key"].partition(":")[2], *entry["addr"]] for entry in listed]
    sys.stdout.write(json.dumps(boards) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], int(sys.argv[2])))
