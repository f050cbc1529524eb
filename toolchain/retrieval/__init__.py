"""Search among images that were encoded once: the index file, and its scan."""
