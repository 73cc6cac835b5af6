"""Single operations in PyTorch, as Deixis' BenchCases names them. Layouts are the engine's: channels last, qkv packed."""
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


def _window_bias(t, device, dtype):
    """timm's index of the table and mask of the shifted windows."""
    block = swin.SwinTransformerBlock(t["channels"], (t["side"], t["side"]), t["heads"], window_size=t["window"],
                                      shift_size=t["shift"], always_partition=False, dynamic_mask=False).to(device)
    mask = block.attn_mask
    return block, block.attn.relative_position_index.reshape(-1), None if mask is None else mask.to(dtype)


def _window_attention(t):
    """From the packed map: roll, partition, scaled_dot_product_attention with bias and mask, reverse, roll."""
    b, side, c, heads, w, shift = (t[k] for k in ("batch", "side", "channels", "heads", "window", "shift"))
    _, index, mask = _window_bias(t, t["device"], t["torch_dtype"])
    n = w * w

    def run(qkv, table):
        if shift:
            qkv = torch.roll(qkv, (-shift, -shift), (1, 2))
        x = swin.window_partition(qkv, (w, w)).view(-1, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        bias = table[index].view(n, n, heads).permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask.repeat(b, 1, 1)[:, None]
        y = F.scaled_dot_product_attention(x[0], x[1], x[2], attn_mask=bias)
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


def _self_attention(t):
    b, n, c, heads = t["batch"], t["tokens"], t["channels"], t["heads"]
    present = torch.ones(b, 1, 1, n, dtype=torch.bool, device=t["device"]) if t["masked"] else None

    def run(qkv):
        q, k, v = qkv.view(b, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=present).transpose(1, 2).reshape(b, n, c)

    return [(b, n, 3 * c)], run


def _cross_attention(t):
    b, queries, keys, c, heads = (t[k] for k in ("batch", "queries", "keys", "channels", "heads"))
    present = torch.ones(b, 1, 1, keys, dtype=torch.bool, device=t["device"])

    def run(x, kv):
        q = x.view(b, queries, heads, c // heads).transpose(1, 2)
        k, v = kv.view(b, keys, 2, heads, c // heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=present).transpose(1, 2).reshape(b, queries, c)

    return [(b, queries, c), (b, keys, 2 * c)], run


def _region_attention(t):
    b, regions, pixels, d = t["batch"], t["regions"], t["pixels"], t["channels"]

    def run(q, k, v):  # the map is wanted too, so no scaled_dot_product_attention
        weights = (q @ k.mT * d ** -0.5).softmax(-1)
        return weights @ v

    return [(b, regions, d), (b, pixels, d), (b, pixels, d)], run


def _conv2d(t):
    b, side, c, out = t["batch"], t["side"], t["channels"], t["out"]

    def run(x, w):  # a channels-last map seen as PyTorch's order, which costs nothing
        return F.conv2d(x.permute(0, 3, 1, 2), w, padding=1)

    return [(b, side, side, c), (out, c, 3, 3)], run


def _mask_loss(t):
    b, low, high = t["batch"], t["low"], t["high"]
    masks = (torch.rand(b, high, high, device=t["device"]) > 0.5).float()

    def run(x):
        z = F.interpolate(x[:, None].float(), size=(high, high), mode="bilinear", align_corners=False)[:, 0]
        p = z.sigmoid()
        overlap = (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)
        return F.binary_cross_entropy_with_logits(z, masks, reduction="none").mean((1, 2)) + 1 - overlap

    return [(b, low, low)], run


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
    return [(t["vocab"], t["channels"])], lambda table: F.embedding(ids, table)


def _merge_gather(t):
    b, side, c = t["batch"], t["side"], t["channels"]

    def run(x):
        x = x.view(b, side // 2, 2, side // 2, 2, c).permute(0, 1, 3, 4, 2, 5)
        return x.reshape(b, side // 2, side // 2, 4 * c)

    return [(b, side, side, c)], run


def _dropout(t):
    return [(t["rows"], t["columns"])], lambda x: F.dropout(x, 0.1)


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
          "embedding": _embedding, "merge_gather": _merge_gather, "dropout": _dropout, "gru_cell": _gru_cell}


def make(task):
    """A function without arguments that does the operation, with its backward where the task asks for it."""
    shapes, run = MAKERS[task["kind"]](task)
    if task.get("compiled"):
        run = torch.compile(run)
    backward = task["backward"]
    leaves = [torch.randn(*s, device=task["device"]).mul_(0.5 if len(s) > 1 else 1).to(task["torch_dtype"])
              .requires_grad_(backward) for s in shapes]
    if not backward:
        def forward():
            with torch.inference_mode():
                return run(*leaves)
        return forward
    up = torch.full_like(run(*leaves), 0.5)
    return lambda: torch.autograd.grad(run(*leaves), leaves, up)


def adamw(task):
    """One step of torch.optim.AdamW over tensors of those shapes."""
    parameters = [torch.nn.Parameter(torch.randn(*s, device=task["device"])) for s in task["shapes"]]
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimiser = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.02, fused=task["fused"] or None)
    return optimiser.step
