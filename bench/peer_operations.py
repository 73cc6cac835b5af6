"""Single operations in PyTorch, as Deixis' BenchCases names them. Layouts are the engine's: channels last, qkv packed.

A maker returns what the operation takes and the function itself: shapes of floating operands, which get a gradient where
one is asked for, and tensors, which get none.
"""
import itertools

import timm.layers as layers
import timm.models.swin_transformer as swin
import torch
from torch.nn import functional as F


def _linear(t):
    shapes = [(t["m"], t["k"]), (t["n"], t["k"]), (t["n"],)]
    if t["gelu"]:
        return shapes, lambda x, w, b: F.gelu(F.linear(x, w, b))
    return shapes, F.linear


def _softmax(t):
    return [(t["rows"], t["columns"])], lambda x: x.softmax(-1)


def _layer_norm(t):
    n = t["columns"]
    return [(t["rows"], n), (n,), (n,)], lambda x, w, b: F.layer_norm(x, (n,), w, b)


def _gelu(t):
    return [(t["rows"], t["columns"])], F.gelu


def _bias_residual(t):
    return [(t["rows"], t["columns"]), (t["rows"], t["columns"]), (t["columns"],)], lambda x, r, b: x + r + b


def _attend(t):
    """softmax(q kT / sqrt(d) + bias) v: fused, or with "unfused" as the calls that it is made of."""
    if not t.get("unfused"):
        return F.scaled_dot_product_attention

    def attend(q, k, v, attn_mask=None):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return scores.softmax(-1) @ v

    return attend


def _window_bias(t, device, dtype):
    """timm's index of the table and mask of the shifted windows."""
    block = swin.SwinTransformerBlock(t["channels"], (t["side"], t["side"]), t["heads"], window_size=t["window"],
                                      shift_size=t["shift"], always_partition=False, dynamic_mask=False).to(device)
    mask = block.attn_mask
    return block, block.attn.relative_position_index.reshape(-1), None if mask is None else mask.to(dtype)


def _window_attention(t):
    """From the packed map: roll, partition, attention with bias and mask, reverse, roll."""
    b, side, c, heads, w, shift = (t[k] for k in ("batch", "side", "channels", "heads", "window", "shift"))
    _, index, mask = _window_bias(t, t["device"], t["torch_dtype"])
    n, attend = w * w, _attend(t)

    def run(qkv, table):
        if shift:
            qkv = torch.roll(qkv, (-shift, -shift), (1, 2))
        x = swin.window_partition(qkv, (w, w)).view(-1, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        bias = table[index].view(n, n, heads).permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask.repeat(b, 1, 1)[:, None]
        y = attend(x[0], x[1], x[2], attn_mask=bias)
        y = swin.window_reverse(y.transpose(1, 2).reshape(-1, w, w, c), (w, w), side, side)
        return torch.roll(y, (shift, shift), (1, 2)) if shift else y

    return [(b, side, side, 3 * c), ((2 * w - 1) ** 2, heads)], run


def _window_block(t):
    """timm's own attention of a block: roll, partition, qkv, attention, projection, reverse, roll."""
    block, _, _ = _window_bias(t, t["device"], t["torch_dtype"])
    names = ["attn.qkv.weight", "attn.qkv.bias", "attn.relative_position_bias_table", "attn.proj.weight",
             "attn.proj.bias"]
    b, side, c = t["batch"], t["side"], t["channels"]
    buffers = {k: v.to(t["torch_dtype"]) if v.is_floating_point() else v for k, v in block.named_buffers()}

    class Attend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x):
            return self.block._attn(x)

    attend = Attend()
    shapes = [(b, side, side, c)] + [tuple(block.get_parameter(n).shape) for n in names]

    def run(x, *weights):
        state = {"block." + n: w for n, w in zip(names, weights)}
        state.update({"block." + k: v for k, v in buffers.items()})
        return torch.func.functional_call(attend, state, (x,))

    return shapes, run


def lengths(count, longest, shortest):
    """Tokens of each phrase: the longest, two between and the shortest, in turns."""
    return [max(1, int(longest * (1 - (1 - shortest) * (i % 4) / 3) + 0.5)) for i in range(count)]


def _self_attention(t):
    b, n, c, heads = t["batch"], t["tokens"], t["channels"], t["heads"]
    attend, present = _attend(t), None
    if "shortest" in t:
        ends = torch.tensor(lengths(b, n, t["shortest"]), device=t["device"])
        present = (torch.arange(n, device=t["device"]) < ends[:, None])[:, None, None]

    def run(qkv):
        q, k, v = qkv.view(b, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        return attend(q, k, v, attn_mask=present).transpose(1, 2).reshape(b, n, c)

    return [(b, n, 3 * c)], run


def _cross_attention(t):
    b, queries, keys, c, heads = (t[k] for k in ("batch", "queries", "keys", "channels", "heads"))
    attend = _attend(t)

    def run(x, kv, present):
        q = x.view(b, queries, heads, c // heads).transpose(1, 2)
        k, v = kv.view(b, keys, 2, heads, c // heads).permute(2, 0, 3, 1, 4)
        return attend(q, k, v, attn_mask=present).transpose(1, 2).reshape(b, queries, c)

    return [(b, queries, c), (b, keys, 2 * c), torch.ones(b, 1, 1, keys, dtype=torch.bool, device=t["device"])], run


def _region_attention(t):
    b, regions, pixels, d = t["batch"], t["regions"], t["pixels"], t["channels"]
    shapes = [(b, regions, d), (b, pixels, d), (b, pixels, d)]
    if t.get("without_map"):
        return shapes, F.scaled_dot_product_attention

    def run(q, k, v):  # the map is wanted too, so no scaled_dot_product_attention
        weights = (q @ k.mT * d ** -0.5).softmax(-1)
        return weights @ v

    return shapes, run


def _conv2d(t):
    b, side, c, out = t["batch"], t["side"], t["channels"], t["out"]

    def run(x, w):  # a channels-last map seen as PyTorch's order, which costs nothing
        return F.conv2d(x.permute(0, 3, 1, 2), w, padding=1)

    return [(b, side, side, c), (out, c, 3, 3)], run


def _mask_loss(t):
    b, low, high = t["batch"], t["low"], t["high"]

    def run(x, masks):
        z = F.interpolate(x[:, None].float(), size=(high, high), mode="bilinear", align_corners=False)[:, 0]
        p = z.sigmoid()
        overlap = (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)
        return F.binary_cross_entropy_with_logits(z, masks, reduction="none").mean((1, 2)) + 1 - overlap

    return [(b, low, low), (torch.rand(b, high, high, device=t["device"]) > 0.5).float()], run


def _binary_loss(t):
    shape = (t["rows"], t["columns"])
    targets = (torch.rand(*shape, device=t["device"]) > 0.5).float()
    return [shape, targets], lambda x, y: F.binary_cross_entropy_with_logits(x.float(), y, reduction="none")


def _cross_entropy(t):
    targets = torch.randint(0, t["classes"], (t["rows"],), device=t["device"])
    return [(t["rows"], t["classes"]), targets], lambda x, y: F.cross_entropy(x.float(), y)


def _upsample_add(t):
    images, share, side, c = t["images"], t["share"], t["side"], t["channels"]

    def run(x, coarse):
        up = F.interpolate(coarse.permute(0, 3, 1, 2), size=(side, side), mode="bilinear", align_corners=False)
        return x.repeat_interleave(share, 0) + up.permute(0, 2, 3, 1)

    return [(images, side, side, c), (images * share, side // 2, side // 2, c)], run


def _add_layer_norm(t):
    n = t["columns"]
    return [(t["rows"], n), (t["rows"], n), (n,), (n,)], lambda x, r, w, b: F.layer_norm(x + r, (n,), w, b)


def _group_norm(t):
    b, side, c = t["batch"], t["side"], t["channels"]

    def run(x, w, bias):
        return F.group_norm(x.permute(0, 3, 1, 2), t["groups"], w, bias).permute(0, 2, 3, 1)

    return [(b, side, side, c), (c,), (c,)], run


def _embedding(t):
    ids = torch.randint(0, t["vocab"], (t["tokens"],), device=t["device"])
    return [(t["vocab"], t["channels"]), ids], lambda table, rows: F.embedding(rows, table)


def _merge_gather(t):
    b, side, c = t["batch"], t["side"], t["channels"]

    def run(x):
        x = x.view(b, side // 2, 2, side // 2, 2, c).permute(0, 1, 3, 4, 2, 5)
        return x.reshape(b, side // 2, side // 2, 4 * c)

    return [(b, side, side, c)], run


def _dropout(t):
    return [(t["rows"], t["columns"])], lambda x: F.dropout(x, 0.1)


def _drop_path(t):
    b, side, c = t["batch"], t["side"], t["channels"]
    return [(b, side, side, c)], lambda x: layers.drop_path(x, 0.1, True)


def _patch_gather(t):
    """Bytes to normalised values, and these to rows of 4 x 4 pixels."""
    b, side, device, dtype = t["batch"], t["side"], t["device"], t["torch_dtype"]
    picture = torch.randint(0, 256, (b, side, side, 3), dtype=torch.uint8, device=device)
    mean, std = (torch.tensor(v, device=device) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def run(x):
        x = ((x.float() / 255 - mean) / std).to(dtype).view(b, side // 4, 4, side // 4, 4, 3)
        return x.permute(0, 1, 3, 5, 2, 4).reshape(b, side // 4, side // 4, 48)

    return [picture], run


def _resize(t):
    b, low, side, c = t["batch"], t["low"], t["side"], t["channels"]

    def run(x):
        y = F.interpolate(x.permute(0, 3, 1, 2), size=(side, side), mode="bilinear", align_corners=False)
        return y.permute(0, 2, 3, 1)

    return [(b, low, low, c)], run


def _region_pool(t):
    b, side, grid = t["batch"], t["side"], (t["rows"], t["columns"])
    masks = (torch.rand(b, side, side, device=t["device"]) > 0.5).to(torch.uint8)
    return [masks], lambda x: F.adaptive_avg_pool2d(x.float()[:, None], grid).flatten(1)


def _reduce_rows(t):
    return [(t["rows"], t["columns"])], lambda x: x.mean(-1)


def _reduce_columns(t):
    return [(t["rows"], t["columns"])], lambda x: x.sum(0)


def _gru_cell(t):
    b, n = t["batch"], t["hidden"]

    def run(gi, gh, h):  # the gates alone: products with the weights are linear's
        ri, zi, ni = gi.chunk(3, 1)
        rh, zh, nh = gh.chunk(3, 1)
        z = (zi + zh).sigmoid()
        return (1 - z) * (ni + (ri + rh).sigmoid() * nh).tanh() + z * h

    return [(b, 3 * n), (b, 3 * n), (b, n)], run


MAKERS = {"linear": _linear, "softmax": _softmax, "layer_norm": _layer_norm, "gelu": _gelu,
          "bias_residual": _bias_residual, "window_attention": _window_attention, "window_block": _window_block,
          "self_attention": _self_attention, "cross_attention": _cross_attention,
          "region_attention": _region_attention, "conv2d": _conv2d, "mask_loss": _mask_loss,
          "upsample_add": _upsample_add, "add_layer_norm": _add_layer_norm, "group_norm": _group_norm,
          "embedding": _embedding, "merge_gather": _merge_gather, "dropout": _dropout, "gru_cell": _gru_cell,
          "binary_loss": _binary_loss, "cross_entropy": _cross_entropy, "drop_path": _drop_path,
          "patch_gather": _patch_gather, "resize": _resize, "region_pool": _region_pool,
          "reduce_rows": _reduce_rows, "reduce_columns": _reduce_columns}


def make(task):
    """A function without arguments that does the operation, with its backward where the task asks for it.

    Of "sets" sets of operands calls take turns, and what a call makes lives until its set's next turn: so no cache holds
    what a call reads or writes.
    """
    takes, run = MAKERS[task["kind"]](task)
    if task.get("compiled"):
        run = torch.compile(run)
    backward = task["backward"]

    def operand(of):
        if torch.is_tensor(of):
            return of.clone()
        drawn = torch.randn(*of, device=task["device"]).mul_(0.5 if len(of) > 1 else 1)
        return drawn.to(task["torch_dtype"]).requires_grad_(backward)

    sets = [[operand(of) for of in takes] for _ in range(task.get("sets", 1))]
    made, turns = [None] * len(sets), itertools.cycle(range(len(sets)))
    if not backward:
        def forward():
            i = next(turns)
            made[i] = None
            with torch.inference_mode():
                made[i] = run(*sets[i])
        return forward
    leaves = [[x for x in operands if x.requires_grad] for operands in sets]
    up = [torch.full_like(run(*operands), 0.5) for operands in sets]

    def both():
        i = next(turns)
        made[i] = None
        y = run(*sets[i])
        made[i] = y, torch.autograd.grad(y, leaves[i], up[i])
    return both


def gradient_norm(task):
    """The global norm of gradients of those shapes, as clip_grad_norm_ takes it."""
    gradients = [torch.full(s, 1e-3, device=task["device"], dtype=task["torch_dtype"]) for s in task["shapes"]]
    return lambda: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def adamw(task):
    """One step of torch.optim.AdamW over tensors of those shapes."""
    parameters = [torch.nn.Parameter(torch.randn(*s, device=task["device"])) for s in task["shapes"]]
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimiser = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.02, fused=task["fused"] or None)
    return optimiser.step
