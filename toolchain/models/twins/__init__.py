"""Full-precision twins of the architectures: what a user would run instead, and learn from."""
