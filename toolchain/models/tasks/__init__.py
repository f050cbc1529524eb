"""Networks that give maps of an image: boxes, and classes of pixels."""
