"""The layers that binarized transformers are built of; `vitc.nn` is their public face."""
