"""``python -m vitc`` is the `vitc` program."""

from __future__ import annotations

from vitc.cli.main import main

if __name__ == "__main__":
    main()
