#!/usr/bin/env python3
"""Writes what PyTorch computes with a checkpoint of yours, for `deixis import ... --verify reference.safetensors`.

    python export_reference.py --timm swin_base_patch4_window7_224 --swin-file swin.pth \
        --bert bert-base-uncased/ --image-size 224 --out reference.safetensors

Needs torch, timm, transformers and safetensors; --timm or --bert may be left out. Without --swin-file timm's own
pretrained weights are taken. The picture and the words are drawn with --seed.
"""
import argparse

import torch
from safetensors.torch import load_file, save_file


def vision(name, file, size, window, generator):
    import timm

    options = {"window_size": window} if window else {}
    model = timm.create_model(name, pretrained=file is None, num_classes=0, img_size=size, **options).eval()
    if file:
        state = load_file(file) if file.endswith(".safetensors") else torch.load(file, map_location="cpu", weights_only=True)
        for wrapper in ("model", "state_dict"):
            state = state.get(wrapper, state)
        lost = model.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")}, strict=False)
        if any(not k.startswith("head.") for k in lost.missing_keys):
            raise SystemExit(f"{file}: lacks {lost.missing_keys[:3]}")
    image = torch.randn(1, 3, size, size, generator=generator)
    x, out = model.patch_embed(image), {"vision.image": image}
    for i, stage in enumerate(model.layers):
        x = stage(x)
        out[f"vision.level.{i}"] = x
    return out


def text(folder, length, generator):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.randint(5, model.config.vocab_size, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length // 2:] = 0
    ids[mask == 0] = model.config.pad_token_id
    return {"text.input_ids": ids, "text.attention_mask": mask, "text.hidden": model(ids, attention_mask=mask)[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--timm", help="name of timm's model")
    p.add_argument("--swin-file", help="its checkpoint, .safetensors or .pth")
    p.add_argument("--window", type=int, help="window size, where it is not the model's own")
    p.add_argument("--bert", help="Hugging Face folder")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--tokens", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    if not a.timm and not a.bert:
        p.error("give --timm, --bert or both")
    generator, out = torch.Generator().manual_seed(a.seed), {}
    with torch.no_grad():
        if a.timm:
            out |= vision(a.timm, a.swin_file, a.image_size, a.window, generator)
        if a.bert:
            out |= text(a.bert, a.tokens, generator)
    save_file({k: v.contiguous() for k, v in out.items()}, a.out)
    print("\n".join(f"{k} {tuple(v.shape)}" for k, v in out.items()))


if __name__ == "__main__":
    main()
