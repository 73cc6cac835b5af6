"""The guide model written with PyTorch's own layers, as src/main/java/org/deixis/model/gres builds it: what
pytorch_peer.py times. Weights are random, since speed does not depend on them."""
import timm.models.swin_transformer as swin
import torch
import transformers
from torch import nn
from torch.nn import functional as F

CONFIGS = {
    "tiny": dict(size=64, images=2, share=2, tokens=6, width=32, mask=16, groups=4,
                 vision=dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=4),
                 text=dict(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=64, max_position_embeddings=32)),
    "small": dict(size=96, images=8, share=4, tokens=10, width=96, mask=64, groups=32,
                  vision=dict(embed_dim=32, depths=(1, 1, 2, 1), num_heads=(2, 4, 8, 16), window_size=6),
                  text=dict(vocab_size=64, hidden_size=128, num_hidden_layers=1, num_attention_heads=4,
                            intermediate_size=512, max_position_embeddings=32)),
    "swin-t": dict(size=224, images=4, share=1, tokens=20, width=512, mask=256, groups=32,
                   vision=dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7),
                   text=dict()),
    "swin-b": dict(size=224, images=1, share=1, tokens=20, width=512, mask=256, groups=32,
                   vision=dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=7),
                   text=dict()),
}


def vision(c):
    return swin.SwinTransformer(img_size=c["size"], num_classes=0, drop_path_rate=0.0, **c["vision"])


def text(c):
    return transformers.BertModel(transformers.BertConfig(
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **c["text"]), add_pooling_layer=False)


def stages(eyes, image):
    """The maps of all stages, channels last, without the final norm."""
    x, maps = eyes.patch_embed(image), []
    for stage in eyes.layers:
        x = stage(x)
        maps.append(x)
    return maps


class Classifier(nn.Module):
    """Swin, the mean over the last map, and classes."""

    def __init__(self, c, classes=1000):
        super().__init__()
        self.eyes = vision(c)
        self.head = nn.Linear(c["vision"]["embed_dim"] << 3, classes)

    def forward(self, image):
        return self.head(stages(self.eyes, image)[-1].mean((1, 2)))


class Fuse(nn.Module):
    """Pixels read words; the answer multiplies a gate of the pixel."""

    def __init__(self, width):
        super().__init__()
        self.read = nn.MultiheadAttention(width, 8, batch_first=True)
        self.gate, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, z, words, hidden):
        answer, _ = self.read(z, words, words, key_padding_mask=hidden, need_weights=False)
        return self.norm(z + F.gelu(self.gate(z)) * answer)


# Rows and columns of P regions.
GRIDS = {4: (2, 2), 8: (2, 4), 16: (4, 4)}


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
        self.eyes, self.reader = vision(c), text(c)
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
        maps = stages(self.eyes, image)
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
    """Pictures, token ids, which of them are there, masks, and which phrases name nothing."""
    g = torch.Generator().manual_seed(seed)
    expressions = c["images"] * c["share"]
    image = torch.randn(c["images"], 3, c["size"], c["size"], generator=g)
    ids = torch.randint(3, 60, (expressions, c["tokens"]), generator=g)
    masks = (torch.rand(expressions, c["size"], c["size"], generator=g) > 0.8).float()
    return image, ids, torch.ones_like(ids), masks, (torch.rand(expressions, generator=g) > 0.75).float()


def loss_of(out, masks, none, dice=1.0):
    mask, scores, no_target = out
    z = F.interpolate(mask[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    cells = F.adaptive_avg_pool2d(masks[:, None], GRIDS[scores.shape[1]]).flatten(1)
    p = z.sigmoid()
    overlap = (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)
    bce = F.binary_cross_entropy_with_logits
    return bce(z, masks) + 0.5 * bce(scores, cells) + bce(no_target, none) + dice * (1 - overlap).mean()
