"""A complete backbone with a few thousand weights in plain PyTorch: an example, and a model for tests."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional.gumbel import straight_through
from unirl.sampling.autoregressive import guide, sample_inverse_cdf, sample_uniforms
from unirl.sampling.kv_cache import pad_right
from unirl.sampling.text import sample_text
from unirl.types import Answers, AnswerSampling, Images, ImageSampling

END_TOKEN = 0
"""The end-of-text token, which is also the first input token of an answer."""
ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789"
NUM_BUCKETS = 64
CODE_SIZE = 4
"""Height and width of a code, in pixels."""


class ResidualBlock(nn.Module):
    """The repeated layer, applied to each row independently."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Output (..., D) of rows (..., D)."""
        return rows + torch.tanh(self.linear(self.norm(rows)))


class TextEncoder(nn.Module):
    """Mean of the embeddings of hashed words; an empty text is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_BUCKETS, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of B texts."""
        counts = torch.zeros(len(texts), NUM_BUCKETS, dtype=torch.float32)
        for row, text in zip(counts, texts, strict=True):
            for word in text.split():
                row[crc32(word.encode()) % NUM_BUCKETS] += 1
        weights = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return weights.to(self.embedding.weight) @ self.embedding.weight


class CharacterModel(nn.Module):
    """Token embeddings and language-model head of answers, with one token per character."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET) + 1, width)
        self.head = nn.Linear(width, len(ALPHABET) + 1)

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of token ids (B, T)."""
        return ["".join(ALPHABET[i - 1] for i in row if i != END_TOKEN).strip() for row in ids.tolist()]

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of texts, each (B, T).

        Raises:
            UserError: a text has a character that is not in the alphabet.
        """
        for text in texts:
            if unknown := set(text) - set(ALPHABET):
                raise UserError(f"answer {text!r} has the character {min(unknown)!r}; use a-z, 0-9 and spaces")
        ids, mask = pad_right(
            [[*(ALPHABET.index(character) + 1 for character in text), END_TOKEN] for text in texts], END_TOKEN
        )
        return ids.to(self.head.weight.device), mask.to(self.head.weight.device)


class Palette(nn.Module):
    """The image tokenizer: each code is a square of one color."""

    def __init__(self, codebook_size: int, side: int) -> None:
        super().__init__()
        self.side, self.image_size = side, side * CODE_SIZE
        self.colors = nn.Parameter(torch.rand(codebook_size, 3, dtype=torch.float32))

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of one-hot or soft codes (B, N, K)."""
        squares = (codes @ self.colors).mT.unflatten(2, (self.side, self.side))
        return F.interpolate(squares, scale_factor=CODE_SIZE).clamp(0, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes (B, N) of the nearest colors of pixels (B, 3, H, W)."""
        squares = F.avg_pool2d(pixels, CODE_SIZE).flatten(2).mT
        return torch.cdist(squares, self.colors.expand(len(pixels), -1, -1)).argmin(-1)


class TinyBackbone(Backbone):
    """Samples image codes one after another, and answers one character after another.

    Args:
        checkpoint: A folder that `save_pretrained` wrote; None starts from random weights.
        codebook_size: Number of image codes.
        side: Height and width of an image, in codes.
        width: Size of the hidden states.
        seed: Seed of the random weights.

    Example:
        >>> model = TinyBackbone()
        >>> model.build()
        >>> images = model.sample_images(["a red circle"], ImageSampling(), torch.Generator().manual_seed(0))
        >>> tuple(images.codes.shape), tuple(model.decode(images).shape)
        ((1, 4), (1, 3, 8, 8))
    """

    def __init__(
        self, checkpoint: str | None = None, codebook_size: int = 8, side: int = 2, width: int = 16, seed: int = 0
    ) -> None:
        super().__init__()
        self.checkpoint, self.seed = checkpoint, seed
        self.codebook_size, self.side, self.width = codebook_size, side, width

    @override
    def build(self, meta: bool = False) -> None:
        if hasattr(self, "layers"):
            return
        if self.checkpoint is not None:
            self._read_config(Path(self.checkpoint) / "config.json")
        with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
            torch.manual_seed(self.seed)
            self._create_modules()
        if self.checkpoint is not None and not meta:
            self.load_state_dict(load_file(Path(self.checkpoint) / "model.safetensors"))

    def _read_config(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"checkpoint: {path} does not exist; give a folder that save_pretrained wrote")
        config = json.loads(path.read_text())
        self.codebook_size, self.side, self.width = config["codebook_size"], config["side"], config["width"]

    def _create_modules(self) -> None:
        length = self.side**2
        self.text_encoder, self.characters = TextEncoder(self.width), CharacterModel(self.width)
        self.code_embedding = nn.Embedding(self.codebook_size + 1, self.width)  # the last row is the start token
        self.position_embedding = nn.Embedding(length, self.width)
        self.layers = nn.ModuleList(ResidualBlock(self.width) for _ in range(2))
        self.code_head = nn.Linear(self.width, self.codebook_size)
        self.image_projection = nn.Linear(length * self.width, self.width)
        self.image_tokenizer = Palette(self.codebook_size, self.side).requires_grad_(False)

    @property
    @override
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (ResidualBlock,)

    # --- generation ---

    @torch.no_grad()
    @override
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        length, device = self.side**2, self.position_embedding.weight.device
        uniforms = sample_uniforms(length, len(prompts), generator, device)
        texts = self.text_encoder(prompts)  # once: its copy to the device would wait in every step
        codes = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
        log_probs = torch.zeros(len(prompts), length, dtype=torch.float32, device=device)
        for i in range(length):
            logits = self._code_logits(texts, codes, sampling.guidance)[:, i]
            codes[:, i], log_probs[:, i] = sample_inverse_cdf(logits, sampling.temperature, uniforms[i])
        return Images(codes, actions=codes, log_probs=log_probs)

    @override
    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        logits = self.code_logits(prompts, images.codes, sampling.guidance) / (sampling.temperature or 1.0)
        log_probs = logits.float().log_softmax(-1).gather(-1, images.codes.unsqueeze(-1)).squeeze(-1)
        return log_probs, torch.ones_like(log_probs, dtype=torch.bool)

    @override
    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        first = max(0, images.codes.shape[1] - (steps or images.codes.shape[1]))
        logits = self.code_logits(prompts, images.codes, sampling.guidance)[:, first:] / (sampling.temperature or 1.0)
        relaxed = straight_through(logits, images.codes[:, first:], temperature, generator)
        hard = F.one_hot(images.codes[:, :first], self.codebook_size).to(relaxed.dtype)
        return dataclasses.replace(images, soft=torch.cat((hard, relaxed), 1), pixels=None)

    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        """Next-code logits (B, N, K) for codes (B, N), with gradient."""
        return self._code_logits(self.text_encoder(prompts), codes, guidance)

    def _code_logits(self, texts: Tensor, codes: Tensor, guidance: float) -> Tensor:
        start = torch.full_like(codes[:, :1], self.codebook_size)
        inputs = self.code_embedding(torch.cat((start, codes[:, :-1]), 1)) + self.position_embedding.weight
        cond = self.code_head(self._run_layers(inputs + texts[:, None]))
        return guide(cond, self.code_head(self._run_layers(inputs)), guidance) if guidance else cond

    def _run_layers(self, rows: Tensor) -> Tensor:
        for layer in self.layers:
            rows = layer(rows)
        return rows

    # --- pixels ---

    @override
    def decode(self, images: Images) -> Tensor:
        codes = F.one_hot(images.codes, self.codebook_size).float() if images.soft is None else images.soft
        return self.image_tokenizer.decode(codes)

    @torch.no_grad()
    @override
    def encode(self, pixels: Tensor) -> Images:
        size = self.image_tokenizer.image_size
        if pixels.shape[1:] != (3, size, size):
            raise UserError(f"images of shape {tuple(pixels.shape[1:])}; expected (3, {size}, {size})")
        return Images(self.image_tokenizer.encode(pixels), pixels=pixels)

    # --- understanding ---

    @torch.no_grad()
    @override
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        context = self._context(images, questions)
        start = torch.full((len(questions),), END_TOKEN, device=context.device)
        logits = self._token_logits(context, start)
        ids, mask, log_probs = sample_text(
            lambda token: self._token_logits(context, token), logits, sampling, END_TOKEN, generator
        )
        return Answers(ids, mask, self.characters.decode(ids), log_probs)

    @override
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        ids, mask = self.characters.encode(texts)
        return Answers(ids, mask, list(texts))

    @override
    def answer_lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text) + 1 for text in texts]

    @override
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        inputs = F.pad(answers.ids[:, :-1], (1, 0), value=END_TOKEN)
        logits = self._token_logits(self._context(images, questions)[:, None], inputs)
        return logits.float().log_softmax(-1).gather(-1, answers.ids.unsqueeze(-1)).squeeze(-1) * answers.mask

    def _context(self, images: Images, questions: Sequence[str]) -> Tensor:
        """Sums (Q, D) of the image and question embeddings of Q questions."""
        per_image, remainder = divmod(len(questions), len(images))
        if remainder:
            raise UserError(f"{len(questions)} questions about {len(images)} images; expected a multiple")
        table = self.code_embedding.weight[:-1]
        codes = table[images.codes] if images.soft is None else images.soft @ table
        embedded = self.image_projection((codes + self.position_embedding.weight).flatten(1))
        return embedded.repeat_interleave(per_image, 0) + self.text_encoder(questions)

    def _token_logits(self, context: Tensor, tokens: Tensor) -> Tensor:
        return self.characters.head(self._run_layers(context + self.characters.embedding(tokens)))

    # --- checkpoints ---

    @classmethod
    @override
    def from_pretrained(cls, path_or_id: str) -> "TinyBackbone":
        backbone = cls(path_or_id)
        backbone.build()
        return backbone

    @override
    def save_pretrained(self, path: str | Path) -> None:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"codebook_size": self.codebook_size, "side": self.side, "width": self.width}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors", {"format": "pt"})
        self.sampling_config.save_pretrained(folder)
