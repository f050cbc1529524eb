from tests.cli.conftest import vitc

__all__ = ["vitc"]
