"""Offline jobs: the only code that needs torch and transformers to make a model rather than to serve one."""

# Before anything here loads ONNX Runtime.
import shared  # noqa: F401
