"""The smallest backbone that keeps the whole contract: a few thousand weights in plain PyTorch."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional.gumbel import straight_through
from unirl.sampling.autoregressive import guide, sample_inverse_cdf, sample_uniforms
from unirl.sampling.kv_cache import pad_right
from unirl.sampling.text import sample_text
from unirl.types import Answers, AnswerSampling, Images, ImageSampling

END = 0
"""The end-of-text id, which also begins an answer."""
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789"
BUCKETS = 64
PIXELS = 4
"""Side of a code's square, in pixels."""


class Layer(nn.Module):
    """The repeated block: each row by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return rows + torch.tanh(self.inner(self.norm(rows)))


class Words(nn.Module):
    """Texts as means of their words, which share a few buckets; an empty text is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BUCKETS, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of B texts."""
        counts = torch.zeros(len(texts), BUCKETS)
        for row, text in zip(counts, texts, strict=True):
            for word in text.split():
                row[crc32(word.encode()) % BUCKETS] += 1
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return shares.to(self.embedding.weight) @ self.embedding.weight


class Letters(nn.Module):
    """Answers, letter by letter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, width)
        self.head = nn.Linear(width, len(LETTERS) + 1)

    def read(self, ids: Tensor) -> list[str]:
        """Texts of ids (B, T)."""
        return ["".join(LETTERS[i - 1] for i in row if i != END).strip() for row in ids.tolist()]

    def write(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (B, T), of texts.

        Raises:
            UserError: a letter that the model does not know.
        """
        for text in texts:
            if strange := set(text) - set(LETTERS):
                raise UserError(f"answer {text!r} has {min(strange)!r}; this model writes a-z, 0-9 and blanks")
        ids, mask = pad_right([[*(LETTERS.index(letter) + 1 for letter in text), END] for text in texts], END)
        return ids.to(self.head.weight.device), mask.to(self.head.weight.device)


class Palette(nn.Module):
    """The image tokenizer: a code is a square of one color."""

    def __init__(self, codes: int, side: int) -> None:
        super().__init__()
        self.side, self.size = side, side * PIXELS
        self.colors = nn.Parameter(torch.rand(codes, 3))

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of one-hot or soft codes (B, N, K)."""
        squares = (codes @ self.colors).mT.unflatten(2, (self.side, self.side))
        return F.interpolate(squares, scale_factor=PIXELS).clamp(0, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """The nearest color of each square: (B, 3, H, W) -> (B, N)"""
        squares = F.avg_pool2d(pixels, PIXELS).flatten(2).mT
        return torch.cdist(squares, self.colors.expand(len(pixels), -1, -1)).argmin(-1)


class TableBackbone(Backbone):
    """Draws a few codes one after another, and answers letter by letter. An example, and a model for tests.

    Args:
        checkpoint: A folder that `save_pretrained` wrote; None begins with random weights.
        codes: Size of the codebook.
        side: Codes along a side of a picture.
        width: Of the hidden states.
        seed: Of the random weights.

    Example:
        >>> model = TableBackbone()
        >>> model.build()
        >>> images = model.sample_images(["a red circle"], ImageSampling(), torch.Generator().manual_seed(0))
        >>> tuple(images.codes.shape), tuple(model.decode(images).shape)
        ((1, 4), (1, 3, 8, 8))
    """

    def __init__(
        self, checkpoint: str | None = None, codes: int = 8, side: int = 2, width: int = 16, seed: int = 0
    ) -> None:
        super().__init__()
        self.checkpoint, self.codes, self.side, self.width, self.seed = checkpoint, codes, side, width, seed

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "layers"):
            return
        if self.checkpoint is not None:
            self._read_sizes(Path(self.checkpoint) / "config.json")
        with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
            torch.manual_seed(self.seed)
            self._assemble()
        if self.checkpoint is not None and not meta:
            self.load_state_dict(load_file(Path(self.checkpoint) / "model.safetensors"))

    def _read_sizes(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"backbone.checkpoint: {path} is missing; give a folder that save_pretrained wrote")
        sizes = json.loads(path.read_text())
        self.codes, self.side, self.width = sizes["codes"], sizes["side"], sizes["width"]

    def _assemble(self) -> None:
        length = self.side**2
        self.words, self.letters = Words(self.width), Letters(self.width)
        self.code_embedding = nn.Embedding(self.codes + 1, self.width)  # the last one begins a picture
        self.position = nn.Embedding(length, self.width)
        self.layers = nn.ModuleList(Layer(self.width) for _ in range(2))
        self.code_head = nn.Linear(self.width, self.codes)
        self.embed_images = nn.Linear(length * self.width, self.width)
        self.image_tokenizer = Palette(self.codes, self.side).requires_grad_(False)

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (Layer,)

    # --- drawing ---

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        length, device = self.side**2, self.position.weight.device
        uniforms = sample_uniforms(length, len(prompts), generator, device)
        codes = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
        log_probs = torch.zeros(len(prompts), length, device=device)
        for i in range(length):
            logits = self.code_logits(prompts, codes, sampling.guidance)[:, i]
            codes[:, i], log_probs[:, i] = sample_inverse_cdf(logits, sampling.temperature, uniforms[i])
        return Images(codes, actions=codes, log_probs=log_probs)

    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        logits = self.code_logits(prompts, images.codes, sampling.guidance) / (sampling.temperature or 1.0)
        log_probs = logits.log_softmax(-1).gather(-1, images.codes.unsqueeze(-1)).squeeze(-1)
        return log_probs, torch.ones_like(log_probs, dtype=torch.bool)

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
        hard = F.one_hot(images.codes[:, :first], self.codes).to(relaxed.dtype)
        return dataclasses.replace(images, soft=torch.cat((hard, relaxed), 1), pixels=None)

    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        """Logits (B, N, K) of each code after those before it; with gradient. `codes` (B, N)."""
        begin = torch.full_like(codes[:, :1], self.codes)
        before = self.code_embedding(torch.cat((begin, codes[:, :-1]), 1)) + self.position.weight
        cond = self.code_head(self._hidden(before + self.words(prompts)[:, None]))
        return guide(cond, self.code_head(self._hidden(before)), guidance) if guidance else cond

    def _hidden(self, rows: Tensor) -> Tensor:
        for layer in self.layers:
            rows = layer(rows)
        return rows

    # --- pixels ---

    def decode(self, images: Images) -> Tensor:
        codes = F.one_hot(images.codes, self.codes).float() if images.soft is None else images.soft
        return self.image_tokenizer.decode(codes)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        size = self.image_tokenizer.size
        if pixels.shape[1:] != (3, size, size):
            raise UserError(f"pictures of shape {tuple(pixels.shape[1:])}; this model sees (3, {size}, {size})")
        return Images(self.image_tokenizer.encode(pixels), pixels=pixels)

    # --- answering ---

    @torch.no_grad()
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        asked = self._asked(images, questions)
        begin = torch.full((len(questions),), END, device=asked.device)
        first = self._letter_logits(asked, begin)
        ids, mask, log_probs = sample_text(
            lambda token: self._letter_logits(asked, token), first, sampling, END, generator
        )
        return Answers(ids, mask, self.letters.read(ids), log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        ids, mask = self.letters.write(texts)
        return Answers(ids, mask, list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        before = F.pad(answers.ids[:, :-1], (1, 0), value=END)
        logits = self._letter_logits(self._asked(images, questions)[:, None], before)
        return logits.log_softmax(-1).gather(-1, answers.ids.unsqueeze(-1)).squeeze(-1) * answers.mask

    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        """What is known before the first letter: picture and question. (questions, D)"""
        each, rest = divmod(len(questions), len(images))
        if rest:
            raise UserError(f"{len(questions)} questions about {len(images)} pictures: expected a multiple")
        entries = self.code_embedding.weight[:-1]
        codes = entries[images.codes] if images.soft is None else images.soft @ entries
        seen = self.embed_images((codes + self.position.weight).flatten(1))
        return seen.repeat_interleave(each, 0) + self.words(questions)

    def _letter_logits(self, asked: Tensor, before: Tensor) -> Tensor:
        return self.letters.head(self._hidden(asked + self.letters.embedding(before)))

    # --- checkpoints ---

    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "TableBackbone":
        backbone = cls(path_or_id)
        backbone.build()
        return backbone

    def save_pretrained(self, path: str | Path) -> None:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"codes": self.codes, "side": self.side, "width": self.width}
        (folder / "config.json").write_text(json.dumps(sizes, indent=1) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors", {"format": "pt"})
