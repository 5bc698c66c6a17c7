"""Prompts, questions and answers as token ids, all by the checkpoint's own processor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import GenerationConfig, JanusProcessor

from unirl.errors import UserError


class Chat:
    """What a Janus reads and writes.

    Args:
        processor: Of the checkpoint: tokenizer, chat template, marks around pictures.
        generation: Of the checkpoint: ids of padding and end of text.
    """

    def __init__(self, processor: JanusProcessor, generation: GenerationConfig) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        tokenizer, ids = self.tokenizer, generation
        self.image = tokenizer.convert_tokens_to_ids(processor.image_token)
        self.begin_image = tokenizer.convert_tokens_to_ids(processor.image_start_token)
        self.begin = _first(ids.bos_token_id, tokenizer.bos_token_id)
        self.end = _first(ids.eos_token_id, tokenizer.eos_token_id)
        self.ends = [i for i in several(ids.eos_token_id) if i != self.end]
        self.pad = _first(ids.pad_token_id, tokenizer.pad_token_id, self.end)
        self._before: tuple[str, list[int]] | None = None

    def prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """What comes before the first code; the last token begins the picture."""
        texts = [self._chat([{"type": "text", "text": prompt}]) for prompt in prompts]
        encoded = self.processor(text=texts, generation_mode="image", padding=False, return_tensors=None)
        return [list(row) for row in encoded["input_ids"]]

    def unconditional_ids(self, prompt: Sequence[int]) -> list[int]:
        """The same prompt with everything but its marks padded: what guidance leads away from."""
        return [i if i in (self.begin, self.begin_image) else self.pad for i in prompt]

    def questions(self, questions: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """What comes before the picture, the same for all, and what comes after it."""
        texts = [self._chat([{"type": "image"}, {"type": "text", "text": question}]) for question in questions]
        halves = [text.partition(self.processor.image_token) for text in texts]
        head, before = self._opening()
        if any(part != head or not mark for part, mark, _ in halves):
            raise UserError("the checkpoint's chat template puts the question before the picture; it must come after")
        tails = [f"{self.processor.image_end_token}{tail}" for _, _, tail in halves]
        return before, self.tokenizer(tails, add_special_tokens=False)["input_ids"]

    def _opening(self) -> tuple[str, list[int]]:
        """What stands before a picture, whatever is asked about it: system prompt, marks and all; text and tokens."""
        if self._before is None:
            text = self._chat([{"type": "image"}, {"type": "text", "text": "?"}])
            blank = np.zeros((8, 8, 3), dtype=np.uint8)
            row = self.processor(text=[text], images=[blank], generation_mode="text")["input_ids"][0]
            head = text.partition(self.processor.image_token)[0]
            self._before = head, list(map(int, row[: list(row).index(self.image)]))
        return self._before

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """What the assistant says, with whatever the template writes behind it."""
        asked = self._chat([{"type": "text", "text": "?"}])
        rows = []
        for text in texts:
            said = self._chat([{"type": "text", "text": "?"}], text)
            said = said[len(asked) :] if said.startswith(asked) else f" {text}"
            rows.append(list(self.tokenizer(said, add_special_tokens=False)["input_ids"]))
        return rows

    def text(self, ids: Tensor) -> str:
        """Readable, without marks."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _chat(self, content: list[dict[str, str]], answer: str | None = None) -> str:
        mark = self.processor.image_token  # in somebody's words it is no picture
        content = [part | {"text": part["text"].replace(mark, " ")} if "text" in part else part for part in content]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer.strip()}]})
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=answer is None))


def _first(*ids: int | list[int] | None) -> int:
    """The first id that is given; of several ends of text, the first."""
    for i in ids:
        if given := several(i):
            return given[0]
    raise UserError("the checkpoint's processor names no begin or end of text; save it with its tokenizer's own")


def several(ids: int | list[int] | None) -> list[int]:
    """The ids that are given: none, one, or some."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
