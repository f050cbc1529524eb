"""ONNX file to artefact."""
