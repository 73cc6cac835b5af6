"""Writes the files of this folder: python make.py. See README.md."""
import collections
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent

types = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
         "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"]
state = collections.OrderedDict((t, torch.arange(6.0).reshape(2, 3).to(getattr(torch, t))) for t in types)
state["flags"] = torch.tensor([True, False, True])
state["tied"] = state["float32"]
state["parameter"] = torch.nn.Parameter(torch.arange(6.0))
state["attributed"] = torch.nn.Parameter(torch.arange(6.0))
state["attributed"].note = "kept with the tensor"
state["turned"] = torch.arange(24.0).reshape(4, 3, 2).permute(2, 1, 0)  # of shape (2, 3, 4)
state["spread"] = torch.arange(1.0, 2.0).expand(3)  # one element, seen three times
whole = {
    "state_dict": collections.OrderedDict((f"module.{k}", v) for k, v in state.items()),
    "epoch": 7, "best": np.float64(0.5), "size": torch.Size([1, 2]), "device": torch.device("cpu"),
    "milestones": collections.Counter([3, 3, 5]), "counts": collections.defaultdict(int, a=1),
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]},
    "big": 1 << 80, "none": None, "set": {1, 2},
}
torch.save(whole, HERE / "torch_types.pth")
old = {k: v for k, v in state.items() if not k.startswith(("uint16", "uint32", "uint64", "float8"))}
torch.save({"model": old}, HERE / "torch_types_legacy.pth", _use_new_zipfile_serialization=False)

arrays = {t: np.arange(6).reshape(2, 3).astype(t) for t in
          ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", ">f8", ">f4", ">i2"]}
arrays["flags"] = np.array([True, False, True])
arrays["columns"] = np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4))
arrays["scalar"] = np.array(4, "f4")
arrays["empty"] = np.zeros((0, 3), "f4")
for protocol in (2, 3, 4, 5):
    with open(HERE / f"numpy_{protocol}.pkl", "wb") as f:
        pickle.dump({"model": arrays, "__author__": "third_party", "matching_heuristics": True}, f, protocol=protocol)
np.savez(HERE / "arrays.npz", **arrays)
np.savez_compressed(HERE / "arrays_deflated.npz", **arrays)
np.save(HERE / "columns.npy", arrays["columns"])
with open(HERE / "version3.npy", "wb") as f:
    np.lib.format.write_array(f, arrays["f4"], version=(3, 0))
with open(HERE / "version2.npy", "wb") as f:
    np.lib.format.write_array(f, arrays[">f4"], version=(2, 0))
np.save(HERE / "objects.npy", np.array([None, 1], object))

every = {t: torch.arange(6).to(getattr(torch, t)) for t in ["bfloat16", "uint16", "uint32", "uint64", "complex64"]}
every["bool"] = torch.ones(16, dtype=torch.bool)
for t in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"):
    every[t] = torch.arange(16, dtype=torch.uint8).view(getattr(torch, t))  # by their bits
save_file(every, HERE / "torch_types.safetensors")
