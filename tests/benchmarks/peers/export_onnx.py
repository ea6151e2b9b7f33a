"""Run by a peer's interpreter: export_onnx.py WEIGHTS OUT fp32|int8 writes a model folder with an ONNX graph.

Optimum traces the graph and ONNX Runtime's dynamic quantisation makes it int8: what an Infinity user would do.
"""

import shutil
import sys
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer


def export(weights: Path, out: Path, precision: str) -> None:
    ORTModelForFeatureExtraction.from_pretrained(weights, export=True).save_pretrained(out)
    AutoTokenizer.from_pretrained(weights).save_pretrained(out)
    shutil.copytree(weights / "1_Pooling", out / "1_Pooling", dirs_exist_ok=True)
    if precision == "int8":
        whole = out / "model.onnx"
        # Infinity takes the file with this word in its name.
        quantize_dynamic(whole, out / "model_quantized.onnx", per_channel=True, weight_type=QuantType.QInt8)
        whole.unlink()


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
