"""Prompts, questions and answers as token ids, all by the checkpoint's own processor."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import Emu3Processor

from unirl.errors import UserError


class Chat:
    """What an Emu3 reads and writes.

    Args:
        processor: Of the checkpoint: tokenizer, chat template, marks around pictures.
        generation: Of the checkpoint: the id of end of text, and the pictures' ratio and area.
        system: The first message of every conversation.
    """

    def __init__(self, processor: Emu3Processor, generation: Any, system: str) -> None:
        self.processor, self.tokenizer, self.system = processor, processor.tokenizer, system
        self.size: dict[str, Any] = {"ratio": generation.ratio, "image_area": generation.image_area}
        self.height, self.width = processor.calculate_generate_size(
            generation.ratio, generation.image_area, processor.downsample_ratio
        )
        ends = generation.eos_token_id if generation.eos_token_id is not None else self.tokenizer.eos_token_id
        self.end, *self.ends = ends if isinstance(ends, list) else [ends]
        self.pad: int = self.tokenizer.pad_token_id
        self.begin_codes: int = self.tokenizer.image_wrapper_token_id

    def prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """What comes before the first code; the last token begins the codes."""
        encoded = self.processor(text=list(prompts), return_for_image_generation=True, padding=False, **self.size)
        return [list(row) for row in encoded["input_ids"]]

    def questions(self, questions: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """What comes before the codes, the same for all, and what comes after them."""
        marks = self.processor
        halves = [self._asked(question).partition(marks.image_token) for question in questions]
        if any(head != halves[0][0] or not mark for head, mark, _ in halves):
            raise UserError("the checkpoint's chat template puts no picture before the question; give one that does")
        begin = f"{marks.image_start_token}{self.height}*{self.width}{marks.fake_token_around_image}"
        tails = [f"{marks.eof_token}{marks.image_end_token}{tail}" for _, _, tail in halves]
        return self._ids([f"{marks.bos_token}{halves[0][0]}{begin}"])[0], self._ids(tails)

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """What the assistant says, with whatever the template writes behind it."""
        asked, given = self._asked("?"), []
        for text in texts:
            said = self._asked("?", text)
            given.append(said[len(asked) :] if said.startswith(asked) else f" {text.strip()}")
        return self._ids(given)

    def text(self, ids: Tensor) -> str:
        """Readable, without marks."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def _asked(self, question: str, answer: str | None = None) -> str:
        def message(role: str, *content: dict[str, str]) -> dict[str, Any]:
            return {"role": role, "content": list(content)}

        messages = [message("system", {"type": "text", "text": self.system})] if self.system else []
        messages.append(message("user", {"type": "image"}, {"type": "text", "text": question}))
        if answer is not None:
            messages.append(message("assistant", {"type": "text", "text": answer.strip()}))
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=answer is None))
