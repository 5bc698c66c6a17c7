"""A vision-language model as a reward: the probability that an image shows its prompt."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unirl import UserError
from unirl.backbones import PretrainedModel, building_on_cpu, describe_error, locate
from unirl.rewards import PretrainedReward

FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")


class VLMParts(NamedTuple):
    """A vision-language model, its processor, and the token ids of yes and no."""

    model: Any
    processor: Any
    yes: list[int]
    no: list[int]


class VLMJudge(PretrainedReward):
    """`P(yes) / (P(yes) + P(no))` of the next token after a question about the image.

    It takes any model with a chat template that transformers' `AutoModelForImageTextToText` and `AutoProcessor` load.
    Weights are read from safetensors only.

    Args:
        model: A hub id, a folder, or `package:folder`.
        question: The question; `{prompt}` stands for the prompt of the image.
        yes_words: Words for yes. Those that are a single token are used, at the start of a line and after a space.
        no_words: Words for no. (YAML reads the bare words `yes` and `no` as booleans, hence these names.)
        low: Probability of yes that is mapped to 0.
        high: Probability of yes that is mapped to 1.
        batch_size: Images of a forward pass.
        max_prompt_tokens: Longer prompts are truncated.
        dtype: Dtype of the weights. "auto" takes that of the checkpoint.
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        accept_threshold: Least calibrated score of an accepted sample. None gives no verdict.

    Raises:
        UserError: a setting is out of range, the model cannot be loaded, or it has no token for yes or no.

    Source: VQAScore, Lin et al. 2024 (arXiv 2404.01291), with "no" as the only alternative.

    Example:
        >>> VLMJudge("my/vlm", question="Is this {prompt}?").accept_threshold
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
        batch_size: int = 16,
        max_prompt_tokens: int = 256,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = 0.5,
    ) -> None:
        super().__init__(model, low, high, batch_size, weight, standardize, accept_threshold)
        if "{prompt}" not in question:
            raise UserError(
                f"vlm_judge: the question {question!r} does not contain {{prompt}}; write it where the prompt belongs"
            )
        if max_prompt_tokens < 1:
            raise UserError(f"vlm_judge: max_prompt_tokens {max_prompt_tokens}; it must be 1 or more")
        self.question, self.yes_words, self.no_words = question, yes_words, no_words
        self.max_prompt_tokens, self.dtype = max_prompt_tokens, dtype

    @property
    def name(self) -> str:
        return "vlm_judge"

    @property
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        return (PretrainedModel(self.model, FILES),)

    @property
    def max_prompt_length(self) -> int | None:
        return self.max_prompt_tokens if "loaded" in vars(self) else None

    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        tokenizer = self.loaded.processor.tokenizer
        return [len(ids) for ids in tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Probabilities of yes.

        Args:
            prompts: The prompt of each image.
            pixels: The images, in [0, 1].

        Shapes:
            pixels (B, 3, H, W); returns (B,).
        """
        model, processor, yes, no = self.loaded
        model.to(pixels.device)
        inputs = processor(
            text=[self._text(prompt) for prompt in prompts],
            images=[[image] for image in pixels],
            do_rescale=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(pixels.device, model.dtype)
        # One step of generation: models differ in how they number positions after padding.
        out = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        logits = out.logits[0].float()  # (B, V)
        return torch.sigmoid(logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1))

    def load(self) -> VLMParts:
        """Load model and processor, and look up the tokens of the two answers.

        Raises:
            UserError: there is no such model, it has no chat template, or no word of an answer is a single token.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - slow to import

        folder = locate(self.model, files=FILES)
        try:
            loader: Any = AutoModelForImageTextToText  # its annotations do not know output_loading_info
            with building_on_cpu():
                model, info = loader.from_pretrained(
                    folder, dtype=self.dtype, use_safetensors=True, output_loading_info=True
                )
                processor = AutoProcessor.from_pretrained(folder)
        except Exception as error:  # transformers raises errors of many types
            raise UserError(f"{self._unreadable} ({describe_error(error)})") from error
        if info["missing_keys"]:
            raise UserError(f"{self._unreadable} (its weights lack {min(info['missing_keys'])})")
        if getattr(processor, "chat_template", None) is None:
            raise UserError(f"{self._unreadable} (its processor has no chat template)")
        tokenizer = processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        yes, no = (
            self._tokens(tokenizer, "yes_words", self.yes_words),
            self._tokens(tokenizer, "no_words", self.no_words),
        )
        if shared := set(yes) & set(no):
            raise UserError(
                f"vlm_judge: yes_words and no_words share the token {tokenizer.decode([min(shared)])!r}; change one"
            )
        return VLMParts(model.eval().requires_grad_(False), processor, yes, no)

    @property
    def _unreadable(self) -> str:
        return f"vlm_judge: {self.model!r} holds no image-text-to-text model that can be read"

    def _tokens(self, tokenizer: Any, option: str, words: Sequence[str]) -> list[int]:
        forms = [tokenizer.encode(form, add_special_tokens=False) for word in words for form in (word, f" {word}")]
        tokens = sorted({ids[0] for ids in forms if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
        if not tokens:
            raise UserError(
                f"vlm_judge: none of {option} {list(words)} is a single token of {self.model!r}; take other words"
            )
        return tokens

    def _text(self, prompt: str) -> str:
        processor = self.loaded.processor
        ids = processor.tokenizer.encode(prompt, add_special_tokens=False)
        if len(ids) > self.max_prompt_tokens:
            prompt = processor.tokenizer.decode(ids[: self.max_prompt_tokens])
        content = [{"type": "image"}, {"type": "text", "text": self.question.replace("{prompt}", prompt)}]
        text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return text
