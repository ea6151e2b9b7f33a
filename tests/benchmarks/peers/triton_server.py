"""Run by a peer's interpreter: an encoder behind Triton's dynamic batcher, until it is ended."""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tokenizers import Tokenizer

MAX_BATCH = 64


def encoder(graph, tokenizer_file, max_tokens, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(tokenizer_file)
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding()
    typed = any(node.name == "token_type_ids" for node in session.get_inputs())

    @batch
    def infer(text):
        found = tokenizer.encode_batch([row[0].decode() for row in text])
        feeds = {
            "input_ids": np.array([one.ids for one in found], np.int64),
            "attention_mask": np.array([one.attention_mask for one in found], np.int64),
        }
        if typed:
            feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
        return {"vector": session.run(["sentence_embedding"], feeds)[0]}

    return infer


def main():
    name, graph, tokenizer_file, max_tokens, threads, http, grpc, metrics = sys.argv[1:]
    infer = encoder(graph, tokenizer_file, int(max_tokens), int(threads))
    ports = TritonConfig(
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        http_port=int(http),
        grpc_port=int(grpc),
        metrics_port=int(metrics),
    )
    with Triton(config=ports) as server:
        server.bind(
            model_name=name,
            infer_func=infer,
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="vector", dtype=np.float32, shape=(-1,))],
            # No delay: as Aisle does, it takes what waits as soon as it is free.
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        server.serve()


if __name__ == "__main__":
    main()
