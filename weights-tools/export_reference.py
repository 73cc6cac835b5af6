#!/usr/bin/env python3
"""Writes what PyTorch computes with a checkpoint of yours, for `deixis import ... --verify reference.safetensors`.

    python export_reference.py --timm swin_base_patch4_window7_224 --swin-file swin.pth \
        --bert bert-base-uncased/ --image-size 224 --out reference.safetensors

Needs torch, timm, transformers and safetensors; --timm (or --hf-swin) or --bert may be left out. --swin-file takes
timm's names of any version, Microsoft's and Detectron2's; without it timm's own pretrained weights are taken. Where
--window is not the checkpoint's, position tables are resized as `deixis import --window` does. All is computed in
fp32, whatever the checkpoint holds. The picture and the words are drawn with --seed.
"""
import argparse
import re

import torch
from safetensors.torch import load_file, save_file

TABLE = "relative_position_bias_table"
BUFFERS = ("relative_position_index", "attn_mask")


def swin_state(file):
    """A checkpoint's tensors by the names of timm 0.9 and later, without heads and buffers."""
    state = load_file(file) if file.endswith(".safetensors") else torch.load(file, map_location="cpu", weights_only=True)
    for wrapper in ("model", "state_dict"):
        state = state.get(wrapper, state)
    if "patch_embed.proj.weight" not in state:
        for prefix in ("module.", "backbone."):
            if prefix + "patch_embed.proj.weight" in state:
                state = {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}
    state = {k: v for k, v in state.items() if not k.startswith("head.") and not k.endswith(BUFFERS)}
    if any(k.startswith("layers.0.downsample.") for k in state):  # at its stage's end, as everywhere but in timm 0.9
        state = {re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", k): v
                 for k, v in state.items()}
    return state


def resized(table, rows):
    """A (offsets, heads) table of a square window for another one, as Microsoft's fine-tuning does."""
    old, new = round(len(table) ** 0.5), round(rows ** 0.5)
    grid = table.T.reshape(1, -1, old, old)
    grid = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.reshape(-1, rows).T


def vision(name, file, size, window, generator):
    import timm

    options = {"window_size": window} if window else {}
    model = timm.create_model(name, num_classes=0, img_size=size, **options).eval()
    state = swin_state(file) if file else timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    wanted = model.state_dict()
    given = {}
    for key, like in wanted.items():
        if key.startswith("norm."):  # behind the last stage, and not part of what is compared
            continue
        if key not in state:
            raise SystemExit(f"{file or name}: has no {key}; is it a {name}?")
        value = state[key].float()
        if key.endswith(TABLE) and value.shape != like.shape:
            value = resized(value, len(like))
        if value.shape != like.shape:
            raise SystemExit(f"{file or name}: {key} is {tuple(value.shape)}, and {tuple(like.shape)} in {name}")
        given[key] = value
    model.load_state_dict(given, strict=False)
    image = torch.randn(1, 3, size, size, generator=generator)
    x, out = model.patch_embed(image), {"vision.image": image}
    for i, stage in enumerate(model.layers):
        x = stage(x)
        out[f"vision.level.{i}"] = x
    return out


def hugging_face_vision(folder, size, generator):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).float().eval()
    levels = []
    for stage in model.encoder.layers:  # what leaves its last block, before the next stage's downsampling
        stage.blocks[-1].register_forward_hook(lambda _, __, y: levels.append(y[0] if isinstance(y, tuple) else y))
    image = torch.randn(1, 3, size, size, generator=generator)
    model(image)
    out, side = {"vision.image": image}, -(-size // 4)
    for i, level in enumerate(levels):
        out[f"vision.level.{i}"] = level.reshape(1, side, side, -1)
        side = -(-side // 2)
    return out


def text(folder, length, generator):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).float().eval()
    ids = torch.randint(5, model.config.vocab_size, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length // 2:] = 0
    ids[mask == 0] = model.config.pad_token_id
    return {"text.input_ids": ids, "text.attention_mask": mask, "text.hidden": model(ids, attention_mask=mask)[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    eyes = p.add_mutually_exclusive_group()
    eyes.add_argument("--timm", help="name of timm's model")
    eyes.add_argument("--hf-swin", help="Hugging Face folder of a Swin, of its own window")
    p.add_argument("--swin-file", help="checkpoint of --timm, .safetensors or PyTorch's")
    p.add_argument("--window", type=int, help="window size of --timm, where it is not the model's own")
    p.add_argument("--bert", help="Hugging Face folder")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--tokens", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    if not a.timm and not a.hf_swin and not a.bert:
        p.error("give --timm, --hf-swin or --bert")
    if not a.timm and (a.swin_file or a.window):
        p.error("--swin-file and --window go with --timm")
    if a.tokens < 2:
        p.error("--tokens: give 2 or more")
    generator, out = torch.Generator().manual_seed(a.seed), {}
    with torch.no_grad():
        if a.timm:
            out |= vision(a.timm, a.swin_file, a.image_size, a.window, generator)
        if a.hf_swin:
            out |= hugging_face_vision(a.hf_swin, a.image_size, generator)
        if a.bert:
            out |= text(a.bert, a.tokens, generator)
    save_file({k: v.contiguous() for k, v in out.items()}, a.out)
    print("\n".join(f"{k} {tuple(v.shape)}" for k, v in out.items()))


if __name__ == "__main__":
    main()
