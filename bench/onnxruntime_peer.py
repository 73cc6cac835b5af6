"""Runs the guide model that Deixis exported in ONNX Runtime on the CPU, for `deixis bench` (peer_protocol.py).

    python bench/onnxruntime_peer.py serve --threads 2

A task is {"kind": "onnx", "file": model, "image": raw float32, "ids": raw int64, "pictures": I, "phrases": B,
"size": pixels, "tokens": T, "mask": where the answer's logits go as raw float32}; needs numpy and onnxruntime.
"""
import argparse
import functools
import sys

import peer_protocol

try:
    import numpy
    import onnxruntime
except ModuleNotFoundError as e:
    print(f"onnxruntime_peer.py: {sys.executable} lacks {e.name}: pip install {e.name}", file=sys.stderr)
    sys.exit(2)


@functools.lru_cache(maxsize=1)
def session(file, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def prepare(task, threads):
    if task["kind"] != "onnx":
        raise ValueError(f"unknown kind {task['kind']!r}")
    run = session(task["file"], threads)
    pictures, phrases, size, tokens = (task[k] for k in ("pictures", "phrases", "size", "tokens"))
    one = numpy.fromfile(task["image"], numpy.float32).reshape(1, 3, size, size)
    image = numpy.ascontiguousarray(numpy.repeat(one, pictures, 0))
    ids = numpy.fromfile(task["ids"], numpy.int64).reshape(-1, tokens)[:phrases]
    inputs = {"image": image, "input_ids": ids, "attention_mask": numpy.ones_like(ids)}
    run.run(["mask"], inputs)[0].tofile(task["mask"])
    return peer_protocol.Work(lambda: run.run(None, inputs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["serve"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    arguments = parser.parse_args()
    peer_protocol.serve({"onnxruntime": onnxruntime.__version__},
                        lambda task: prepare(task, arguments.threads))
