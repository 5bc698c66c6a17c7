"""Show-o as a backbone: one transformer that draws by masked decoding and answers from the same codes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PhiForCausalLM
from transformers.models.phi.modeling_phi import PhiDecoderLayer

from unirl.backbones.files import locate
from unirl.backbones.showo import checkpoint as files
from unirl.backbones.showo.answering import Answering
from unirl.backbones.showo.drawing import Drawing
from unirl.backbones.showo.magvit import Magvit
from unirl.backbones.showo.transformer import Transformer
from unirl.errors import UserError
from unirl.types import Images


class Showo(Drawing, Answering):
    """Show-o (arXiv 2408.12528) at any size, in the public checkpoints' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "showlab/show-o-512x512".
        image_tokenizer: Where the MAGVIT-v2 is, if not where the checkpoint says.
        llm_model_path: Where the text model's config and tokenizer are, if not where the checkpoint says.
        max_text_len: Longest prompt in tokens, if not as the checkpoint says (128).
        recompute: Keep little for the gradient, and compute it again: far less memory, a third more time.
    """

    image_tokenizer: Magvit

    def __init__(
        self,
        checkpoint: str,
        image_tokenizer: str | None = None,
        llm_model_path: str | None = None,
        max_text_len: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint, self.recompute = checkpoint, recompute
        given = {"image_tokenizer": image_tokenizer, "llm_model_path": llm_model_path, "max_text_len": max_text_len}
        self.overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            config = files.sizes(self.checkpoint, self.overrides)
            with torch.device("meta"):
                self._assemble(files.phi(config, config.llm), Magvit(config.magvit), config)
            return
        folder = locate(self.checkpoint)
        config = files.read_config(folder, self.overrides)
        magvit = files.load_image_tokenizer(locate(config.image_tokenizer, inside=folder), config.codebook_size)
        self.tokenizer = files.load_tokenizer(folder, config)
        self._assemble(files.load_text_model(folder, config), magvit, config)

    def _assemble(self, phi: PhiForCausalLM, magvit: Magvit, config: files.ShowoConfig) -> None:
        self.config = config
        self.transformer = Transformer(phi, config, self.recompute)
        self.image_tokenizer = magvit.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Showo":
        super().train(mode)
        if hasattr(self, "image_tokenizer"):
            self.image_tokenizer.eval()  # frozen in UniRL
        return self

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (PhiDecoderLayer,)

    # --- pixels ---

    def decode(self, images: Images) -> Tensor:
        side = self.config.side
        if images.soft is not None:
            pixels = self.image_tokenizer.decode_soft(images.soft.view(len(images), side, side, -1))
        else:
            pixels = self.image_tokenizer.decode(images.codes.view(len(images), side, side))
        return ((pixels + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        size = self.config.side * self.image_tokenizer.config.stride
        if pixels.shape[1:] != (3, size, size):
            raise UserError(f"pictures of shape {tuple(pixels.shape[1:])}; this checkpoint sees (3, {size}, {size})")
        return Images(self.image_tokenizer.encode(pixels * 2 - 1).flatten(1), pixels=pixels)

    # --- checkpoints ---

    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "Showo":
        backbone = cls(path_or_id)
        backbone.build()
        return backbone

    def save_pretrained(self, path: str | Path) -> None:
        files.save(Path(path), self.config, self.transformer.phi, self.image_tokenizer, self.tokenizer)
