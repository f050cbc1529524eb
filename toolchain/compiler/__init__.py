"""ONNX file to artefact: lowering, memory planning, code generation and linking."""

from vitc.compiler.compile import MAX_BATCH, compile_model

__all__ = ["MAX_BATCH", "compile_model"]
