"""Prompts, questions and answers as token ids, by the checkpoint's own processor."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from transformers import GenerationConfig, JanusProcessor

from unirl.backbones.plain_text import plain_text
from unirl.errors import UserError


class JanusChat:
    """The token ids that a Janus reads and writes.

    Args:
        processor: The checkpoint's processor: tokenizer, chat template, special tokens around images.
        generation_config: The checkpoint's generation config: ids of padding, begin and end of text.
    """

    def __init__(self, processor: JanusProcessor, generation_config: GenerationConfig) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        tokenizer, ids = self.tokenizer, generation_config
        self.image_token_id = tokenizer.convert_tokens_to_ids(processor.image_token)
        self.image_start_id = tokenizer.convert_tokens_to_ids(processor.image_start_token)
        self.bos_token_id = _first(ids.bos_token_id, tokenizer.bos_token_id)
        first = _first(ids.eos_token_id, tokenizer.eos_token_id)
        self.eos_token_ids = list(dict.fromkeys([first, *as_list(ids.eos_token_id)]))
        self.pad_token_id = _first(ids.pad_token_id, tokenizer.pad_token_id, first)
        self.prompt_ids(["a photo"])  # a checkpoint whose tokenizer writes no such prompt is refused here
        self._check_roles()

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, up to but without the token that starts the image.

        Raises:
            UserError: they do not begin with the begin of text or end with the start of an image, as in training: the
                model would generate other images, without a sign of it.
        """
        texts = [self._chat([{"type": "text", "text": prompt}]) for prompt in prompts]
        encoded = self.processor(text=texts, generation_mode="image", padding=False, return_tensors=None)
        for row in encoded["input_ids"]:
            self._check_end(row[0], "begins", self.bos_token_id, "add_bos_token: true")
            self._check_end(row[-1], "ends", self.image_start_id, "add_eos_token: false")
        return [list(row)[:-1] for row in encoded["input_ids"]]

    def _check_end(self, got: int, where: str, expected: int, advice: str) -> None:
        if got != expected:
            tokens = self.tokenizer.convert_ids_to_tokens([got, expected])
            raise UserError(
                f"the checkpoint's processor {where} a prompt with {tokens[0]!r} (id {got}), not with {tokens[1]!r} "
                f"(id {expected}) as in training; its tokenizer_config.json should have {advice}"
            )

    def _check_roles(self) -> None:
        """Refuse a chat template of other tokens, such as that of Janus-Pro with the tokenizer of Janus."""
        known = self.tokenizer.get_vocab()
        for mark in re.findall(r"<[|｜][^\s<>]+[|｜]>", self._chat([{"type": "text", "text": "a photo"}], "a")):
            if mark not in known:
                raise UserError(
                    f"the checkpoint's chat template writes {mark!r}, which is no token of its tokenizer; they do not "
                    "belong together"
                )

    def unconditional_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        """A prompt with everything but the begin of text replaced by padding, special tokens in the prompt, too."""
        return [prompt_ids[0], *[self.pad_token_id] * (len(prompt_ids) - 1)]

    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of each question, from the end of the image on.

        Raises:
            UserError: the chat template puts the question before the image.
        """
        texts = [self._chat([{"type": "image"}, {"type": "text", "text": question}]) for question in questions]
        parts = [text.partition(self.processor.image_token) for text in texts]
        if any(before != self._text_before_image or not token for before, token, _ in parts):
            raise UserError("the checkpoint's chat template puts the question before the image; it must come after")
        after = [f"{self.processor.image_end_token}{text}" for _, _, text in parts]
        return self.tokenizer(after, add_special_tokens=False)["input_ids"]

    @cached_property
    def image_context_ids(self) -> list[int]:
        """Token ids that precede an image: system prompt and special tokens."""
        text = self._chat([{"type": "image"}, {"type": "text", "text": "?"}])
        blank = np.zeros((8, 8, 3), dtype=np.uint8)
        row = self.processor(text=[text], images=[blank], generation_mode="text")["input_ids"][0]
        return list(map(int, row[: list(row).index(self.image_token_id)]))

    @cached_property
    def _text_before_image(self) -> str:
        return self._chat([{"type": "image"}, {"type": "text", "text": "?"}]).partition(self.processor.image_token)[0]

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the assistant's turn, and what the template writes after it."""
        question = self._chat([{"type": "text", "text": "?"}])
        rows = []
        for text in texts:
            chat = self._chat([{"type": "text", "text": "?"}], text)
            answer = chat[len(question) :] if chat.startswith(question) else f" {text}"
            rows.append(list(self.tokenizer(answer, add_special_tokens=False)["input_ids"]))
        return rows

    def decode_text(self, ids: Tensor) -> str:
        """The text of token ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _chat(self, content: list[dict[str, str]], answer: str | None = None) -> str:
        content = [part | {"text": self._plain(part["text"])} if "text" in part else part for part in content]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": self._plain(answer.strip())}]})
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=answer is None))

    def _plain(self, text: str) -> str:
        return plain_text(text, self.tokenizer)


def _first(*ids: int | list[int] | None) -> int:
    """The first id that is given."""
    for i in ids:
        if given := as_list(i):
            return given[0]
    raise UserError("the checkpoint's processor has no begin or end of text; save it with its tokenizer's own")


def as_list(ids: int | list[int] | None) -> list[int]:
    """The ids of a generation config, which may be one, several or none."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
