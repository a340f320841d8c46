"""A small GPT: decoder blocks with causal attention."""

# B batch, T characters, V vocabulary, D width, H heads

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, length, width = x_BTD.shape
        q, k, v = (
            part.reshape(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x_BTD)).chunk(3, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        mixed_BTD: Tensor = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return mixed_BTD


class SmallGPT(nn.Module):
    def __init__(
        self, width: int, depth: int, heads: int = 4, vocabulary: int = 13, length: int = 10
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, characters_BT: Tensor) -> Tensor:
        """Characters of shape (B, T) to logits of shape (B, V, T), as torch's losses want them."""
        places_T = torch.arange(characters_BT.shape[1], device=characters_BT.device)
        x_BTD = self.characters(characters_BT) + self.places(places_T)
        logits_BTV: Tensor = self.head(self.norm(self.blocks(x_BTD)))
        return logits_BTV.transpose(1, 2)
