"""Emu3's modules as the rows that somebody reads: text and codes over one language model and one head."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Emu3ForConditionalGeneration

from unirl.backbones.llama import LlamaRows
from unirl.sampling.autoregressive import guide
from unirl_emu3.layout import Layout


class Transformer(LlamaRows):
    """transformers' Emu3; computes only rows and head columns that somebody reads.

    Args:
        emu3: The model.
        layout: Where codes are in its vocabulary, and how they lie in a sequence.
        gradient_checkpointing: Keep little for the gradient, and compute it again.
    """

    def __init__(self, emu3: Emu3ForConditionalGeneration, layout: Layout, gradient_checkpointing: bool = True) -> None:
        super().__init__(gradient_checkpointing)
        self.emu3, self.layout = emu3, layout

    @property
    def language_model(self) -> Any:
        return self.parts.text_model

    @property
    def device(self) -> torch.device:
        return self.emu3.lm_head.weight.device

    @property
    def parts(self) -> Any:
        return self.emu3.model

    def embed(self, ids: Tensor) -> Tensor:
        return self.language_model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embeddings of integer codes (...), or of mixtures of codes (..., K)."""
        if codes.is_floating_point():
            table = self.language_model.embed_tokens.weight[self.layout.columns]
            return codes.to(table.dtype) @ table
        return self.embed(codes + self.layout.first)

    def end_of_line(self, rows: int) -> Tensor:
        """What the model is given after each line of codes. (rows, D)"""
        return self.embed(torch.full((rows,), self.layout.end_of_line, device=self.device))

    def lines(self, codes: Tensor) -> Tensor:
        """Embeddings of a whole picture, each line closed. (B, N) or (B, N, K) -> (B, H * (W + 1), D)"""
        embeds = self.embed_codes(codes)
        rows = embeds.unflatten(1, (self.layout.height, self.layout.width))
        ends = self.end_of_line(1).expand(*rows.shape[:2], 1, -1)
        return torch.cat((rows, ends), 2).flatten(1, 2)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits over the whole vocabulary. (..., V)"""
        return self.emu3.lm_head(hidden)

    def code_logits(self, hidden: Tensor, guidance: float = 0.0) -> Tensor:
        """Logits over the image codes alone. (B, ..., K)

        The head is linear, so guiding what enters it guides the logits, at half the cost.

        Args:
            hidden: Hidden states; under guidance those of the prompts, followed by as many of the negative prompt.
            guidance: w of `(1 + w) * cond - w * uncond`.
        """
        if guidance:
            cond, uncond = hidden.chunk(2)
            hidden = guide(cond, uncond, guidance).to(hidden.dtype)
        return F.linear(hidden, self.emu3.lm_head.weight[self.layout.columns])

    def read(self, pixels: Tensor) -> Tensor:
        """Codes (B, N) of normalised pictures (B, 3, H, W)."""
        vq, sizes = self.parts.vqmodel, [pixels.shape[2:]] * len(pixels)
        return torch.stack(vq.encode(pixels, torch.tensor(sizes)).image_tokens).flatten(1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pictures of integer codes (B, N) or of mixtures of codes (B, N, K); (B, 3, H, W), normalised."""
        vq = self.parts.vqmodel
        grid = codes.unflatten(1, (self.layout.height, self.layout.width))
        if not codes.is_floating_point():
            return vq.decode(grid)
        entries = (grid @ vq.quantize.embedding.weight).permute(0, 3, 1, 2).unsqueeze(2)  # (B, D, 1, H, W)
        frames = vq.decoder(vq.post_quant_conv(entries).transpose(1, 2), entries.transpose(1, 2))
        return frames.unflatten(0, (len(codes), -1))[:, 0]  # it paints a short film of each; the first is the picture
