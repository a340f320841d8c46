"""A small GPT over characters, of torch's own layers."""

# B batch, T characters, V vocabulary, D width

import torch
from torch import Tensor, nn


class CharacterGPT(nn.Module):
    """length: the most characters that it sees at once."""

    def __init__(self, width: int, depth: int, length: int, vocabulary: int = 97) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, characters_BT: Tensor) -> Tensor:
        """Characters of shape (B, T) to logits of shape (B, V, T), as torch's losses want them."""
        length, device = characters_BT.shape[1], characters_BT.device
        x_BTD = self.characters(characters_BT) + self.places(torch.arange(length, device=device))
        mask_TT = nn.Transformer.generate_square_subsequent_mask(length, device=device)
        logits_BTV: Tensor = self.head(self.norm(self.blocks(x_BTD, mask=mask_TT, is_causal=True)))
        return logits_BTV.transpose(1, 2)
