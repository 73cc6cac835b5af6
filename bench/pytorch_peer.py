"""Times PyTorch on what Deixis is timed on: the other half of `deixis bench`, and a bench of its own.

    python bench/pytorch_peer.py serve                      answers `deixis bench` (peer_protocol.py)
    python bench/pytorch_peer.py step --config small        one training step in its own process: time, peak memory
    python bench/pytorch_peer.py mask --folder DIR          reads a model and a picture, writes its mask
    python bench/pytorch_peer.py guide --device cuda --config swin-b --images 16 --share 4 --size 224
                                       --out FILE           guide training step: eager and compiled, P 4, 8, 16, memory
    python bench/pytorch_peer.py installed                  packages that this needs, and their size

Needs torch, timm and transformers. The network is peer_network.py's, the operations are peer_operations.py's. The
optimiser is PyTorch's quickest, the fused AdamW, unless --no-fused is given.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import sys

import peer_protocol

# Asked for by name where they are needed: `installed` shouldn't wait for imports.
DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
MASK_INPUTS = ("model.pt", "picture.png")
PACKAGES = ("torch", "timm", "transformers")


def waiter(device):
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def amp(device, dtype):
    import torch

    return torch.autocast(device, getattr(torch, DTYPES[dtype]), enabled=dtype != "f32")


def trainer(model, loss, device, dtype, fused=True):
    """A function that makes one step: loss, backward, clipping, AdamW; in fp16 with loss scaling."""
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02, fused=fused or None)
    scaler = torch.amp.GradScaler(device, enabled=dtype == "f16")

    def step():
        optimiser.zero_grad()
        with amp(device, dtype):
            value = loss()
        scaler.scale(value).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()

    return step


def guide_config(task):
    import peer_network

    c = dict(peer_network.CONFIGS[task["config"]])
    c.update({k: task[k] for k in ("images", "share", "size", "tokens") if task.get(k)})
    return c


def guide_step(task):
    import peer_network

    device, c = task["device"], guide_config(task)
    model = peer_network.Peer(c, regions=task.get("regions", 8)).to(device)
    image, ids, present, masks, none = (x.to(device) for x in peer_network.batch(c))
    forward = compiled_model(model) if task.get("compiled") else model
    return trainer(model, lambda: peer_network.loss_of(forward(image, ids, present), masks, none), device,
                   task.get("dtype", "f32"), task.get("fused", True)), len(ids)


def compiled_model(model):
    import torch

    return torch.compile(model)


def classifier_step(task):
    import torch

    import peer_network

    device, c = task["device"], guide_config(task)
    model = peer_network.Classifier(c).to(device)
    image = torch.randn(c["images"], 3, c["size"], c["size"], device=device)
    label = torch.arange(c["images"], device=device)
    forward = compiled_model(model) if task.get("compiled") else model
    return trainer(model, lambda: torch.nn.functional.cross_entropy(forward(image), label), device,
                   task.get("dtype", "f32")), c["images"]


def forward_only(task):
    """Inference of the guide model, of Swin alone, or of BERT alone. Half types are the whole model's: autocast would
    round every weight again at each call."""
    import torch

    import peer_network

    device, c = task["device"], guide_config(task)
    image, ids, present, _, _ = (x.to(device) for x in peer_network.batch(c))
    if task["kind"] == "guide":
        model, inputs = peer_network.Peer(c), (image, ids, present)
    elif task["kind"] == "swin":
        model, inputs = peer_network.vision(c), (image,)
    else:
        model, inputs = peer_network.text(c), (ids, present)
    dtype = getattr(torch, DTYPES[task.get("dtype", "f32")])
    model = model.to(device, dtype).eval()
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    run = compiled_model(model) if task.get("compiled") else model
    if task["kind"] == "swin":
        run = lambda x: peer_network.stages(model, x)  # noqa: E731
        run = torch.compile(run) if task.get("compiled") else run

    def call():
        with torch.inference_mode():
            return run(*inputs)

    return call


def prepare(task, device):
    import torch

    import peer_operations

    task = dict(task, device=device, torch_dtype=getattr(torch, DTYPES[task.get("dtype", "f32")]))
    kind = task["kind"]
    if kind == "adamw":
        call = peer_operations.adamw(task)
    elif kind == "gradient_norm":
        call = peer_operations.gradient_norm(task)
    elif kind == "guide_step":
        call, _ = guide_step(task)
    elif kind == "classifier_step":
        call, _ = classifier_step(task)
    elif kind in ("guide", "swin", "bert"):
        call = forward_only(task)
    else:
        call = peer_operations.make(task)

    def facts():
        return {"peak_device_mib": torch.cuda.max_memory_allocated() / 2**20} if device == "cuda" else {}

    if device == "cuda":
        torch.cuda.empty_cache()  # what the work before left belongs to the engine too
        torch.cuda.reset_peak_memory_stats()
    return peer_protocol.Work(call, waiter(device), facts)


def serve(args):
    import timm
    import torch
    import transformers

    hello = {"torch": torch.__version__, "timm": timm.__version__, "transformers": transformers.__version__}
    if args.device == "cuda":
        hello["gpu"] = torch.cuda.get_device_name()
    # Memory that PyTorch keeps for later is the engine's until then.
    dropped = torch.cuda.empty_cache if args.device == "cuda" else lambda: None
    peer_protocol.serve(hello, lambda task: prepare(task, args.device), dropped)


def step(args):
    make = classifier_step if args.classifier else guide_step
    call, count = make({"device": args.device, "config": args.config, "images": args.images, "share": args.share,
                        "size": args.size, "dtype": args.dtype, "fused": args.fused})
    t = peer_protocol.seconds(call, args.steps, wait=waiter(args.device))
    return {"config": args.config, "seconds_per_step": t, "per_second": count / t,
            "peak_resident_mib": peer_protocol.peak_resident_mib()}


def mask(args):
    """From nothing to the first mask, as `deixis predict` does it: weights and picture are files."""
    import numpy
    import torch
    from PIL import Image

    import peer_network

    c = dict(peer_network.CONFIGS["small"], images=1, share=1)
    files = [os.path.join(args.folder, name) for name in (*MASK_INPUTS, "mask.png")]
    if args.make:
        os.makedirs(args.folder, exist_ok=True)
        torch.save(peer_network.Peer(c).state_dict(), files[0])
        Image.fromarray(numpy.zeros((c["size"], c["size"], 3), numpy.uint8)).save(files[1])
        return {}
    model = peer_network.Peer(c).eval()
    model.load_state_dict(torch.load(files[0], weights_only=True))
    picture = torch.from_numpy(numpy.asarray(Image.open(files[1]).convert("RGB")).copy())
    with torch.inference_mode():
        ids = torch.randint(3, 60, (1, c["tokens"]))
        found = model(picture.permute(2, 0, 1)[None].float() / 255, ids, torch.ones_like(ids))[0]
    Image.fromarray((found[0] > 0).numpy()).save(files[2])
    return {"peak_resident_mib": peer_protocol.peak_resident_mib()}


def guide(args):
    """The guide's training step: eager and compiled, for each number of regions."""
    import torch

    rows = []
    for regions in args.regions:
        for compiled in (False, True) if args.compile else (False,):
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            call, count = guide_step({"device": args.device, "config": args.config, "images": args.images,
                                      "share": args.share, "size": args.size, "dtype": args.dtype,
                                      "regions": regions, "compiled": compiled, "fused": args.fused})
            t = peer_protocol.seconds(call, args.steps, wait=waiter(args.device))
            row = {"regions": regions, "compiled": compiled, "seconds_per_step": t, "expressions_per_second": count / t,
                   "peak_resident_mib": peer_protocol.peak_resident_mib()}
            if args.device == "cuda":
                row["peak_device_mib"] = torch.cuda.max_memory_allocated() / 2**20
            rows.append(row)
            del call
            torch.compiler.reset()
    return {"config": args.config, "images": args.images, "share": args.share, "dtype": args.dtype, "rows": rows}


def installed(_):
    """The packages that the peer's imports need, theirs included, and the size of their files."""
    seen, left = {}, list(PACKAGES)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in seen:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement of another platform
        files = [package.locate_file(f) for f in package.files or ()]
        seen[name] = sum(os.path.getsize(f) for f in files if os.path.isfile(f))
        left += [re.match(r"[\w.-]+", r)[0] for r in package.requires or () if "extra ==" not in r]
    return {"packages": len(seen), "mib": sum(seen.values()) / 2**20}


def missing(device):
    """What an entry point needs and this Python or machine lacks, in one line; None where there is nothing."""
    names = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if names:
        return f"{sys.executable} lacks {', '.join(names)}: pip install {' '.join(names)}"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA device: check nvidia-smi"
        return f"--device cuda: PyTorch {torch.__version__} {why}; or give --device cpu"
    return None


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["serve", "step", "mask", "guide", "installed"])
    parser.add_argument("--config", default="small", choices=["tiny", "small", "swin-t", "swin-b"])
    parser.add_argument("--classifier", action="store_true", help="step: Swin with classes instead of the guide model")
    parser.add_argument("--images", type=int, help="pictures of a batch; by default the configuration's")
    parser.add_argument("--share", type=int, help="expressions of a picture")
    parser.add_argument("--size", type=int, help="side of the pictures in pixels")
    parser.add_argument("--regions", type=int, nargs="+", default=[4, 8, 16], choices=[4, 8, 16],
                        help="guide: numbers of regions")
    parser.add_argument("--dtype", default="f32", choices=sorted(DTYPES), help="by autocast, with loss scaling in f16")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--folder", help="mask: where model.pt and picture.png are, and mask.png goes")
    parser.add_argument("--make", action="store_true", help="mask: only writes a random model and a picture there")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-fused", dest="fused", action="store_false", help="PyTorch's default AdamW")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="guide: eager only")
    parser.add_argument("--out", help="where the answer goes; by default stdout")
    args = parser.parse_args()
    if args.what == "mask" and not args.folder:
        parser.error("mask: --folder is missing; say where model.pt and picture.png are")
    if args.what == "mask" and not args.make:
        for name in MASK_INPUTS:
            if not os.path.isfile(os.path.join(args.folder, name)):
                parser.error(f"mask: no {name} in {args.folder}; first mask --make --folder {args.folder}")
    for name in ("images", "share", "size", "steps", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: give at least 1")
    if args.what != "installed" and (lacks := missing(args.device)):
        parser.error(lacks)
    if args.what == "installed":
        answer = installed(args)
    else:
        import torch

        torch.set_num_threads(args.threads)
        torch.manual_seed(1)
        if args.what == "serve":
            serve(args)
            return
        answer = dict({"step": step, "mask": mask, "guide": guide}[args.what](args), torch=torch.__version__,
                      threads=args.threads, device=args.device)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(answer, file, indent=1)
    else:
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
