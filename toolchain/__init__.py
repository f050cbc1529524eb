"""vitc."""
