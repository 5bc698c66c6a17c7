"""Does this picture show what was asked for? A vision-language model says how surely."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unirl.backbones import describe_error, locate
from unirl.errors import UserError, check_minimum
from unirl.rewards import PretrainedReward

FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")


class VLMParts(NamedTuple):
    """A vision-language model, its processor, and the tokens that say yes and no."""

    model: Any
    processor: Any
    yes: list[int]
    no: list[int]


class VLMJudge(PretrainedReward):
    """`P(yes) / (P(yes) + P(no))` of the next token after a question about the drawing.

    Any model that transformers' `AutoModelForImageTextToText` and `AutoProcessor` load, with a chat template. Weights
    are read from safetensors only.

    Args:
        model: A hub id, a folder, or `package:folder`.
        question: What to ask; `{prompt}` is what the drawing was to show.
        yes_words: Words that say yes; those that are one token count, at the start of a line and after a space.
        no_words: Words that say no. (YAML reads a bare `yes` or `no` as a truth value: hence the names.)
        low: Share of yes that counts as 0.
        high: Share of yes that counts as 1.
        batch: Pictures at a time.
        max_prompt_tokens: Longer prompts are cut.
        dtype: Of the model's weights; "auto" is what they are stored in.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least score, calibrated, with which it accepts a drawing; None gives no verdict.

    Raises:
        UserError: settings that make no sense, a model that cannot be loaded, or one that cannot say yes or no.

    Source: VQAScore, Lin et al. 2024 (arXiv 2404.01291), with "no" as the only alternative.

    Example:
        >>> VLMJudge("my/vlm", question="Is this {prompt}?").accept
        0.5
    """

    def __init__(
        self,
        model: str,
        question: str = "Does this image show {prompt}? Answer yes or no.",
        yes_words: Sequence[str] = ("Yes", "yes"),
        no_words: Sequence[str] = ("No", "no"),
        low: float = 0.0,
        high: float = 1.0,
        batch: int = 16,
        max_prompt_tokens: int = 256,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = 0.5,
    ) -> None:
        super().__init__(model, low, high, batch, weight, standardize, accept_threshold)
        if "{prompt}" not in question:
            raise UserError(f"vlm_judge: the question {question!r} does not say what to look for; it needs {{prompt}}")
        check_minimum(1, self.name, max_prompt_tokens=max_prompt_tokens)
        self.question, self.yes_words, self.no_words = question, yes_words, no_words
        self.max_prompt_tokens, self.dtype = max_prompt_tokens, dtype

    @property
    def name(self) -> str:
        return "vlm_judge"

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Shares of yes.

        Shapes:
            pixels (B, 3, H, W); returns (B,).
        """
        model, processor, yes, no = self.loaded
        model.to(pixels.device)
        inputs = processor(
            text=[self._text(prompt) for prompt in prompts],
            images=[[picture] for picture in pixels],
            do_rescale=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(pixels.device, model.dtype)
        # One step of generation, for each model numbers the positions behind its padding in its own way.
        out = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        logits = out.logits[0].float()  # (B, V)
        return torch.sigmoid(logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1))

    def load(self) -> VLMParts:
        """Model, processor, and the tokens of the two answers.

        Raises:
            UserError: no such model, no chat template, or a tokenizer in which no word of an answer is one token.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - slow to import

        folder = locate(self.model, files=FILES)
        try:
            loader: Any = AutoModelForImageTextToText  # its annotations leave out that loading info makes it a pair
            model, info = loader.from_pretrained(
                folder, dtype=self.dtype, use_safetensors=True, output_loading_info=True
            )
            processor = AutoProcessor.from_pretrained(folder)
        except Exception as error:  # transformers raises what it likes
            raise UserError(f"{self._nothing} ({describe_error(error)})") from error
        if info["missing_keys"]:
            raise UserError(f"{self._nothing} (its weights lack {min(info['missing_keys'])})")
        if getattr(processor, "chat_template", None) is None:
            raise UserError(f"{self._nothing} (its processor has no chat template, so how to ask it is unknown)")
        tokenizer = processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        yes, no = (
            self._tokens(tokenizer, "yes_words", self.yes_words),
            self._tokens(tokenizer, "no_words", self.no_words),
        )
        if shared := set(yes) & set(no):
            raise UserError(
                f"vlm_judge: yes_words and no_words share the token {tokenizer.decode([min(shared)])!r}; give others"
            )
        return VLMParts(model.eval().requires_grad_(False), processor, yes, no)

    @property
    def _nothing(self) -> str:
        return f"vlm_judge: {self.model!r} holds no image-text-to-text model that can be read"

    def _tokens(self, tokenizer: Any, option: str, words: Sequence[str]) -> list[int]:
        forms = [tokenizer.encode(form, add_special_tokens=False) for word in words for form in (word, f" {word}")]
        found = sorted({ids[0] for ids in forms if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
        if not found:
            raise UserError(
                f"vlm_judge: none of {option} {list(words)} is one token of {self.model!r}; give words that are"
            )
        return found

    def _text(self, prompt: str) -> str:
        processor = self.loaded.processor
        ids = processor.tokenizer.encode(prompt, add_special_tokens=False)
        if len(ids) > self.max_prompt_tokens:
            prompt = processor.tokenizer.decode(ids[: self.max_prompt_tokens])
        content = [{"type": "image"}, {"type": "text", "text": self.question.replace("{prompt}", prompt)}]
        text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return text
