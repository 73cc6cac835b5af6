"""Times PyTorch on what Deixis is timed on, and prints JSON: the other half of `deixis bench`.

    python bench/pytorch_peer.py step [--config small|swin-t] [--steps 20] [--threads 2]
    python bench/pytorch_peer.py ops  [--threads 2]
    python bench/pytorch_peer.py infer [--phrases 1] [--bf16]

Needs torch, timm and transformers. The network is the one that src/main/java/org/deixis/model/gres builds, written with
PyTorch's own layers; weights are random, since speed does not depend on them.
"""
import argparse
import json
import statistics
import time

import timm.models.swin_transformer as swin
import torch
import transformers
from torch import nn
from torch.nn import functional as F

CONFIGS = {
    "small": dict(size=96, images=8, share=4, tokens=10, width=96, mask=64, groups=32,
                  vision=dict(embed_dim=32, depths=(1, 1, 2, 1), num_heads=(2, 4, 8, 16), window_size=6),
                  text=dict(vocab_size=64, hidden_size=128, num_hidden_layers=1, num_attention_heads=4,
                            intermediate_size=512, max_position_embeddings=32)),
    "swin-t": dict(size=224, images=4, share=1, tokens=20, width=256, mask=128, groups=32,
                   vision=dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7),
                   text=dict()),
    "swin-b": dict(size=224, images=1, share=1, tokens=20, width=512, mask=256, groups=32,
                   vision=dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=7),
                   text=dict()),
}


class Fuse(nn.Module):
    """Pixels read words; the answer multiplies a gate of the pixel."""

    def __init__(self, width):
        super().__init__()
        self.read = nn.MultiheadAttention(width, 8, batch_first=True)
        self.gate, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, z, words, hidden):
        answer, _ = self.read(z, words, words, key_padding_mask=hidden, need_weights=False)
        return self.norm(z + F.gelu(self.gate(z)) * answer)


class Regions(nn.Module):
    """One layer of region-image and region-language attention."""

    def __init__(self, width, count):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, count, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.among = nn.MultiheadAttention(width, 8, batch_first=True)
        self.to_words = nn.MultiheadAttention(width, 8, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, pixels, before, words, hidden):
        q = self.queries.expand(len(pixels), -1, -1) + (0 if before is None else before)
        weights = (q @ self.key(pixels).mT * q.shape[-1] ** -0.5).softmax(-1)
        r = self.norms[0]((0 if before is None else before) + weights @ self.value(pixels))
        own = self.among(r, r, r, need_weights=False)[0]
        text = self.to_words(r, words, words, key_padding_mask=hidden, need_weights=False)[0]
        return self.norms[1](r + self.mix(torch.cat((r, own, text), -1)))


class Peer(nn.Module):
    def __init__(self, c, regions=8, layers=3):
        super().__init__()
        self.eyes = swin.SwinTransformer(img_size=c["size"], num_classes=0, drop_path_rate=0.0, **c["vision"])
        self.reader = transformers.BertModel(transformers.BertConfig(
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **c["text"]), add_pooling_layer=False)
        d = c["width"]
        self.words = nn.Linear(self.reader.config.hidden_size, d)
        self.sides = nn.ModuleList(nn.Linear(c["vision"]["embed_dim"] << i, d) for i in range(4))
        self.fuse = nn.ModuleList(Fuse(d) for _ in range(3))
        self.features = nn.Sequential(nn.Conv2d(d, c["mask"], 3, padding=1, bias=False),
                                      nn.GroupNorm(c["groups"], c["mask"]), nn.ReLU())
        self.layers = nn.ModuleList(Regions(d, regions) for _ in range(layers))
        self.score = nn.Linear(d, 1)
        self.filters = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, c["mask"]))
        self.none = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 1))
        self.evidence = nn.Linear(1, 1)

    def forward(self, image, ids, present):
        share = len(ids) // len(image)
        x, maps = self.eyes.patch_embed(image), []
        for stage in self.eyes.layers:
            x = stage(x)
            maps.append(x)
        words = self.words(self.reader(ids, attention_mask=present).last_hidden_state)
        hidden = present == 0
        levels, coarse = {}, None
        for i in (3, 2, 1, 0):
            y = self.sides[i](maps[i]).permute(0, 3, 1, 2).repeat_interleave(share, 0)
            if coarse is not None:
                y = y + F.interpolate(coarse, size=y.shape[2:], mode="bilinear", align_corners=False)
            if i < 3:
                b, d, h, w = y.shape
                y = self.fuse[i](y.flatten(2).mT, words, hidden).mT.reshape(b, d, h, w)
            levels[i] = coarse = y
        regions = None
        for n, layer in enumerate(self.layers):
            regions = layer(levels[3 - n % 3].flatten(2).mT, regions, words, hidden)
        scores = self.score(regions)
        target = (scores.sigmoid() * self.filters(regions)).sum(1)
        mask = torch.einsum("bc,bchw->bhw", target, self.features(levels[0]))
        none = self.none(regions.mean(1)) + self.evidence(mask.detach().amax((1, 2))[:, None])
        return mask, scores.squeeze(-1), none.squeeze(-1)


def batch(c, seed=1):
    g = torch.Generator().manual_seed(seed)
    expressions = c["images"] * c["share"]
    image = torch.randn(c["images"], 3, c["size"], c["size"], generator=g)
    ids = torch.randint(3, 60, (expressions, c["tokens"]), generator=g)
    masks = (torch.rand(expressions, c["size"], c["size"], generator=g) > 0.8).float()
    return image, ids, torch.ones_like(ids), masks, (torch.rand(expressions, generator=g) > 0.75).float()


def loss_of(out, masks, none, dice=1.0):
    mask, scores, no_target = out
    z = F.interpolate(mask[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    cells = F.adaptive_avg_pool2d(masks[:, None], (2, 4)).flatten(1)
    p = z.sigmoid()
    overlap = (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)
    bce = F.binary_cross_entropy_with_logits
    return bce(z, masks) + 0.5 * bce(scores, cells) + bce(no_target, none) + dice * (1 - overlap).mean()


def seconds(work, rounds, warm=3):
    for _ in range(warm):
        work()
    times = []
    for _ in range(rounds):
        t = time.perf_counter()
        work()
        times.append(time.perf_counter() - t)
    return statistics.median(times)


def peak_resident_mib():
    """Of this program alone: getrusage's maximum would include the parent's memory at the fork."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def step(args):
    c = CONFIGS[args.config]
    model = Peer(c)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02, fused=args.fused)
    image, ids, present, masks, none = batch(c)

    def work():
        optimiser.zero_grad()
        loss_of(model(image, ids, present), masks, none).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    t = seconds(work, args.steps)
    return {"config": args.config, "seconds_per_step": t, "expressions_per_second": len(ids) / t,
            "peak_resident_mib": peak_resident_mib()}


def infer(args):
    c = dict(CONFIGS[args.config], share=args.phrases, images=1)
    model = Peer(c).eval()
    image, ids, present, _, _ = batch(c)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        t = seconds(lambda: model(image, ids, present), args.steps)
    return {"config": args.config, "phrases": args.phrases, "bf16": args.bf16, "seconds": t}


def ops(args):
    def both(name, rows, f, *shapes):
        leaves = [torch.randn(*s, requires_grad=True) for s in shapes]
        y = f(*leaves)
        up = torch.randn_like(y)
        with torch.no_grad():
            forward = seconds(lambda: f(*leaves), args.steps)
        whole = seconds(lambda: torch.autograd.grad(f(*leaves), leaves, up), args.steps)
        return {"op": name, "elements": rows, "forward_s": forward, "forward_backward_s": whole}

    rows = []
    for r, n in ((3136, 128), (196, 512), (18432, 96)):
        rows.append(both(f"layer_norm {r}x{n}", r * n, lambda x, w, b: F.layer_norm(x, (x.shape[1],), w, b), (r, n), (n,), (n,)))
        rows.append(both(f"gelu {r}x{n}", r * n, F.gelu, (r, n)))
    rows.append(both("softmax 12544x49", 12544 * 49, lambda x: x.softmax(-1), (12544, 49)))
    for m, n, k in ((3136, 384, 128), (196, 1536, 512), (18432, 96, 96)):
        rows.append(both(f"linear {m}x{n}x{k}", 2 * m * n * k, F.linear, (m, k), (n, k), (n,)))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "ops", "infer"])
    parser.add_argument("--config", default="small", choices=sorted(CONFIGS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--phrases", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW instead of its default one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    print(json.dumps({"torch": torch.__version__, "threads": arguments.threads,
                      arguments.what: {"step": step, "ops": ops, "infer": infer}[arguments.what](arguments)}))
