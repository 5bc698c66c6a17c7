"""Show-o as a backbone: one transformer that draws by masked decoding and answers from the same codes."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PhiForCausalLM, PreTrainedTokenizerBase
from transformers.models.phi.modeling_phi import PhiDecoderLayer

from unirl.backbones.files import locate
from unirl.backbones.showo import checkpoint as files
from unirl.backbones.showo.answering import Answering
from unirl.backbones.showo.magvit import Magvit
from unirl.backbones.showo.transformer import Prefix, Transformer
from unirl.decoding.masked import choose_steps, sample_masked
from unirl.errors import UserError
from unirl.functional.relaxation import straight_through
from unirl.types import Images, ImageSampling


class Showo(Answering):
    """Show-o (arXiv 2408.12528) at any size, in the public checkpoints' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "showlab/show-o-512x512".
        image_tokenizer: Where the MAGVIT-v2 is, if not where the checkpoint says.
        llm_model_path: Where the text model's config and tokenizer are, if not where the checkpoint says.
        max_text_len: Longest prompt in tokens, if not as the checkpoint says (128).
    """

    transformer: Transformer
    image_tokenizer: Magvit
    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        checkpoint: str,
        image_tokenizer: str | None = None,
        llm_model_path: str | None = None,
        max_text_len: int | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        given = {"image_tokenizer": image_tokenizer, "llm_model_path": llm_model_path, "max_text_len": max_text_len}
        self.overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            config = files.public_config(self.checkpoint, self.overrides)
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
        self.transformer = Transformer(phi, config)
        self.image_tokenizer = magvit.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Showo":
        super().train(mode)
        if hasattr(self, "image_tokenizer"):
            self.image_tokenizer.eval()  # frozen in UniRL
        return self

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (PhiDecoderLayer,)

    # --- drawing ---

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        prefix = self._prompt_prefix(prompts, sampling.guidance)
        blank = torch.zeros(len(prompts), self.config.num_vq_tokens, dtype=torch.long, device=self.transformer.device)
        draw = sample_masked(self._guided_logits(prefix, sampling.guidance), blank, sampling, generator)
        steps = {"steps": draw.steps}
        return Images(draw.codes, actions=draw.codes, log_probs=draw.log_probs, memory=steps)

    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        chosen = choose_steps(sampling.steps, scored, generator, self.transformer.device)
        logits, where = self._decision_logits(prompts, images, chosen, sampling.guidance)
        drawn = images.codes[where].unsqueeze(-1)
        log_probs = (logits.float() / sampling.temperature).log_softmax(-1).gather(-1, drawn).squeeze(-1)
        return torch.zeros(where.shape, device=logits.device).masked_scatter(where, log_probs), where

    def relax(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        first = max(1, sampling.steps - (steps or sampling.steps) + 1)
        chosen = torch.arange(first, sampling.steps + 1, device=self.transformer.device)
        logits, where = self._decision_logits(prompts, images, chosen, sampling.guidance)
        relaxed = straight_through(logits.float() / sampling.temperature, images.codes[where], temperature, generator)
        hard = F.one_hot(images.codes, self.config.codebook_size).to(relaxed.dtype)
        return dataclasses.replace(images, soft=hard.masked_scatter(where.unsqueeze(-1), relaxed))

    def _prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Each distinct prompt once, then as many rows as there are samples; the unguided ones follow."""
        different = list(dict.fromkeys(prompts))
        texts = self.tokenizer([*different, ""] if guidance else different, add_special_tokens=False)["input_ids"]
        index = [different.index(prompt) for prompt in prompts] + [len(different)] * (len(prompts) if guidance else 0)
        prefix = self.transformer.prompt_prefix(texts, self.tokenizer.eos_token_id)
        return prefix.rows(torch.tensor(index, device=self.transformer.device))

    def _guided_logits(self, prefix: Prefix, guidance: float) -> Callable[[Tensor, Tensor], Tensor]:
        def logits(codes: Tensor, known: Tensor) -> Tensor:
            if not guidance:
                return self.transformer.code_logits(self.transformer.image_hidden(prefix, codes, known))
            twice = self.transformer.image_hidden(prefix, codes.repeat(2, 1), known.repeat(2, 1))
            return self.transformer.code_logits(_guide(twice, guidance))

        return logits

    def _decision_logits(
        self, prompts: Sequence[str], images: Images, chosen: Tensor, guidance: float
    ) -> tuple[Tensor, Tensor]:
        """Logits (M, K) of the codes fixed in the chosen steps, each in its own step's context, and where (B, N)."""
        steps, (batch, length) = images.memory["steps"], images.codes.shape
        where = torch.isin(steps, chosen)
        known = (steps[None] < chosen[:, None, None]).flatten(0, 1)  # (steps x B, N)
        codes = images.codes.repeat(len(chosen), 1)
        prefix = self._prompt_prefix(prompts, guidance)
        half = torch.arange(batch, device=steps.device).repeat(len(chosen))
        index = torch.cat((half, half + batch)) if guidance else half
        doubled = 2 if guidance else 1
        hidden = self.transformer.image_hidden(prefix.rows(index), codes.repeat(doubled, 1), known.repeat(doubled, 1))
        hidden = hidden.view(doubled, len(chosen), batch, length, -1)
        row, column = where.nonzero(as_tuple=True)
        slot = torch.searchsorted(chosen, steps[row, column])
        decided = hidden[:, slot, row, column]  # (1 or 2, M, D)
        return self.transformer.code_logits(_guide(decided, guidance) if guidance else decided).flatten(0, 1), where

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


def _guide(hidden: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, `(1 + w) * cond - w * uncond`; the first half of the rows is conditional.

    Guiding hidden states guides the logits: the head is affine and the two weights add up to 1. It costs half as much.
    """
    cond, uncond = hidden.float().chunk(2)
    return ((1 + guidance) * cond - guidance * uncond).to(hidden.dtype)
