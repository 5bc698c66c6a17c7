"""Prompts, questions and answers as token ids, by the checkpoint's own processor."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import Emu3Processor

from unirl import UserError
from unirl.backbones import plain_text


class Emu3Chat:
    """The token ids that an Emu3 reads and writes.

    Args:
        processor: The checkpoint's processor: tokenizer, chat template, special tokens around images.
        generation_config: The checkpoint's generation config: ids of end of text, ratio and area of images.
        system: The first message of every conversation.
    """

    def __init__(self, processor: Emu3Processor, generation_config: Any, system: str) -> None:
        self.processor, self.tokenizer, self.system = processor, processor.tokenizer, system
        ratio, area = generation_config.ratio, generation_config.image_area
        self.size: dict[str, Any] = {"ratio": ratio, "image_area": area}
        self.height, self.width = processor.calculate_generate_size(ratio, area, processor.downsample_ratio)
        eos = generation_config.eos_token_id
        eos = self.tokenizer.eos_token_id if eos is None else eos
        self.eos_token_ids: list[int] = eos if isinstance(eos, list) else [eos]
        self.image_start_id: int = self.tokenizer.image_wrapper_token_id

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, up to but without the token that starts the codes."""
        texts = [plain_text(prompt, self.tokenizer) for prompt in prompts]
        encoded = self.processor(text=texts, return_for_image_generation=True, padding=False, **self.size)
        return [list(row)[:-1] for row in encoded["input_ids"]]

    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of each question, from the end of the codes on.

        Raises:
            UserError: the chat template has no place for an image before the question.
        """
        tokens = self.processor
        parts = [self._chat(question).partition(tokens.image_token) for question in questions]
        if any(before != self._text_before_image or not image for before, image, _ in parts):
            raise UserError("the checkpoint's chat template puts no image before the question; give one that does")
        return self._tokenize([f"{tokens.eof_token}{tokens.image_end_token}{after}" for _, _, after in parts])

    @cached_property
    def image_context_ids(self) -> list[int]:
        """Token ids that precede the codes of an image: system message, special tokens and the image's size."""
        tokens = self.processor
        start = f"{tokens.image_start_token}{self.height}*{self.width}{tokens.fake_token_around_image}"
        return self._tokenize([f"{tokens.bos_token}{self._text_before_image}{start}"])[0]

    @cached_property
    def _text_before_image(self) -> str:
        return self._chat("?").partition(self.processor.image_token)[0]

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the assistant's turn, and what the template writes after it."""
        question, answers = self._chat("?"), []
        for text in texts:
            chat = self._chat("?", text)
            answers.append(chat[len(question) :] if chat.startswith(question) else f" {text.strip()}")
        return self._tokenize(answers)

    def decode_text(self, ids: Tensor) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def _chat(self, question: str, answer: str | None = None) -> str:
        def message(role: str, *content: dict[str, str]) -> dict[str, Any]:
            return {"role": role, "content": list(content)}

        messages = [message("system", {"type": "text", "text": self.system})] if self.system else []
        messages.append(
            message("user", {"type": "image"}, {"type": "text", "text": plain_text(question, self.tokenizer)})
        )
        if answer is not None:
            messages.append(message("assistant", {"type": "text", "text": plain_text(answer.strip(), self.tokenizer)}))
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=answer is None))
