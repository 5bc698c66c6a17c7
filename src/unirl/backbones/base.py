"""The contract of a unified model: it generates images and answers questions about images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from unirl.backbones.checkpoints import PretrainedModel, locate
from unirl.backbones.sampling_config import FILE_NAME, SamplingConfig
from unirl.errors import UserError
from unirl.types import Answers, AnswerSampling, Images, ImageSampling


class NotBuiltError(UserError, AttributeError):
    """A backbone was used before `build()`. It is an AttributeError, so that `hasattr` works."""


Self = TypeVar("Self", bound="Backbone")


class Backbone(nn.Module, ABC):
    """A model that generates and understands images.

    B samples; consecutive equal prompts form a group. A decision is one code in the context in which the sampler chose
    it. `sample_images` and `image_log_probs` refer to the same A decisions in the same order, so update rules need not
    know which family of models they train.

    A backbone that is loaded from a checkpoint keeps what names it in the attribute `checkpoint`, for
    `sampling_config` and `unirl doctor`. One that reads text by a tokenizer of transformers keeps it in `tokenizer`.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    """`model_type`, or else `_class_name`, in config.json of the checkpoints that it reads: `unirl sample` chooses a
    backbone by it. Optional."""
    truncates_prompts: ClassVar[bool] = False
    """Whether what is longer than `max_prompt_length` is cut off. Otherwise it is read, at untrained positions."""

    _sampling_config: SamplingConfig | None = None

    @abstractmethod
    def build(self, meta: bool = False) -> None:
        """Create the modules and load the weights; a second call does nothing.

        Constructors only store settings, so that a wrong config fails before gigabytes are read.

        Args:
            meta: Create the modules on the meta device and load no weights. Where there is no tokenizer, put a
                `PlaceholderTokenizer` in its place: `unirl doctor` then runs the model on fake tensors.

        Raises:
            UserError: the checkpoint is missing, truncated, or of another vocabulary.
        """

    @abstractmethod
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        """Generate one image for each prompt, without gradient.

        Args:
            prompts: B prompts.
            sampling: Sampling parameters.
            generator: The only source of randomness. Of a `PerImageGenerator`, each image draws from its own generator
                only, by `unirl.functional.draw_rows` and `multinomial`: the other images do not change it.

        Shapes:
            returns codes (B, N), and log_probs and actions (B, A); `memory` holds what scoring needs.
        """

    @abstractmethod
    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of the decisions behind generated images, with gradient.

        Args:
            prompts: The prompts of the images.
            images: Returned by `sample_images`.
            sampling: Guidance and temperature under which the decisions are scored.
            scored_steps: Number of randomly chosen sampling steps to score; None scores every decision. Models that
                score all decisions in one pass ignore it.
            generator: Chooses the steps.

        Shapes:
            returns log-probabilities (B, A), nats, and the mask (B, A) of the decisions that were scored.
        """

    def image_log_likelihood(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        num_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities whose weighted sum estimates the log-likelihood of each image, per code; with gradient.

        By default every decision, equally weighted. A masked model uses random masks, as in pre-training: each scores
        all the codes that it hides, where a sampling step scores only the few that it unmasked. For a sampler in random
        order the expected gradient is the same.

        Args:
            prompts: The prompts of the images.
            images: Their codes.
            sampling: Guidance, temperature and steps of the policy whose likelihood is estimated.
            num_masks: Random masks of each image.
            generator: Samples the masks; in the same state it samples the same ones.

        Shapes:
            returns log-probabilities (B, T), nats, and weights (B, T) whose sum over T is 1 in expectation.
        """
        log_probs, mask = self.image_log_probs(prompts, images, sampling, None, generator)
        return log_probs, mask.float() / mask.sum(1, keepdim=True)

    @abstractmethod
    def decode(self, images: Images) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1]; with gradient where codes are soft."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Images:
        """Given images (B, 3, H, W) in [0, 1] as the model reads them; without gradient.

        Raises:
            UserError: the images have another size.
        """

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """Images of any size as the pixels (B, 3, H, W) in [0, 1] that `encode` takes. Optional; evaluation needs it.

        Args:
            images: In RGB.

        Raises:
            UserError: the backbone does not define it.
        """
        raise UserError(f"{type(self).__name__} reads images of its own size only: it does not define `preprocess`")

    @abstractmethod
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        """Answer questions about images, without gradient.

        Args:
            images: B images.
            questions: k x B questions: the first k are about the first image, and so on.
            sampling: Sampling parameters.
            generator: The only source of randomness. A `PerImageGenerator` has a generator for each image, or for each
                question: the answer does not depend on the other ones.

        Shapes:
            returns ids, mask and log_probs, each (k x B, T).

        Raises:
            ValueError: the number of questions is not a multiple of B.
        """

    @abstractmethod
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        """Given answers as tokens, end of text included, ready for `answer_log_probs`."""

    @abstractmethod
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        """Log-probability of each answer token, nats, 0 outside the mask; gradient also reaches soft codes.

        Args:
            images: B images.
            questions: k x B questions, as in `sample_answers`.
            answers: One answer to each question.

        Shapes:
            returns (k x B, T).
        """

    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        """The same images with straight-through codes, for end-to-end SFT. Optional: see `supports_straight_through`.

        Args:
            prompts: The prompts of the images.
            images: Returned by `sample_images`.
            sampling: How they were sampled.
            temperature: Temperature of the Gumbel-softmax.
            steps: How many of the last sampling steps carry gradient; None for all.
            generator: Samples the Gumbel noise.

        Shapes:
            returns soft codes (B, N, K), one-hot in the forward pass.
        """
        raise TypeError(f"{type(self).__name__} has no straight-through codes (supports_straight_through is False)")

    @override
    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name.startswith("__") or self.__dict__.get("_modules"):
                raise
            build = "call its build(), or make it with from_pretrained"
            raise NotBuiltError(f"this {type(self).__name__} is not built ({error}); {build}") from None

    @override
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Backbone":
        """What `to`, `half` and the like call. The frequencies of rotary position embeddings stay float32."""
        frequencies = list(_rotary_frequencies(self))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for module, name, before in frequencies:
            now: Tensor = getattr(module, name)
            if now.dtype != before.dtype:
                setattr(module, name, before.to(now.device))
        return self

    @property
    def straight_through_steps(self) -> int | None:
        """Default of the `steps` of `straight_through`; None for all."""
        return None

    @property
    def supports_straight_through(self) -> bool:
        """Whether `straight_through` is implemented."""
        return type(self).straight_through is not Backbone.straight_through

    @property
    def supports_greedy_images(self) -> bool:
        """Whether `ImageSampling.temperature` may be 0: always the most likely code."""
        return True

    @property
    def understands_pixels(self) -> bool:
        """Whether questions are answered from pixels: generated images are then decoded before they are asked about."""
        return False

    @property
    def sampling_config(self) -> SamplingConfig:
        """How images and answers of the built model are sampled by default: as assigned, or as the checkpoint says.

        Raises:
            UserError: the checkpoint's file is broken.
        """
        if self._sampling_config is None:
            own = _read_sampling_config(getattr(self, "checkpoint", None))
            self._sampling_config = self.default_sampling_config if own is None else own
        return self._sampling_config

    @sampling_config.setter
    def sampling_config(self, config: SamplingConfig) -> None:
        self._sampling_config = config

    @property
    def default_sampling_config(self) -> SamplingConfig:
        """How a checkpoint that does not say it is sampled. Override it where the authors of the model do."""
        return SamplingConfig()

    @property
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        """The checkpoints that `build` loads, for `unirl doctor`: that of the attribute `checkpoint`, if there is one.

        Override it where there are others.
        """
        checkpoint = getattr(self, "checkpoint", None)
        return (PretrainedModel(checkpoint),) if isinstance(checkpoint, str) else ()

    @property
    def max_prompt_length(self) -> int | None:
        """Most tokens of a prompt that the built model reads, as `prompt_lengths` counts them.

        Longer prompts are counted when a run starts. None where there is no limit, or none is known.
        """
        return None

    @property
    def max_question_length(self) -> int | None:
        """Most tokens of a question and its answer together, as for `max_prompt_length`."""
        return None

    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        """Number of tokens of each prompt, with all tokens that are added to it; needed by `max_prompt_length`.

        By default those of the `tokenizer`. The tokenizer must be there after `build(meta=True)`, too.

        Args:
            prompts: Different prompts.
        """
        return self._num_tokens(prompts)

    def question_lengths(self, questions: Sequence[str]) -> list[int]:
        """Number of tokens of each question, as for `prompt_lengths`.

        Args:
            questions: Different questions.
        """
        return self._num_tokens(questions)

    def answer_lengths(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each answer, end of text included, as `AnswerSampling.max_tokens` counts them.

        Args:
            texts: Different answers.
        """
        return [self.tokenize_answers([text]).ids.shape[1] for text in texts]  # one by one: without padding

    def _num_tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer: Any = getattr(self, "tokenizer", None)
        if tokenizer is None:
            raise TypeError(f"{type(self).__name__} has a limit and no tokenizer: define prompt_lengths")
        return [len(ids) for ids in tokenizer(list(texts))["input_ids"]]

    @property
    def eos_token_ids(self) -> Sequence[int]:
        """Ids of the tokens that end an answer, to tell which were cut off. By default the last of a given answer."""
        try:
            return (int(self.tokenize_answers(["a"]).ids[0, -1]),)
        except UserError:  # the tokenizer cannot read it: all answers of `max_tokens` count as cut off
            return ()

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that the model cannot read, since its tokenizer has no token for them.

        Args:
            text: A prompt, a question or an answer.

        Returns:
            None where the backbone has no `tokenizer` of transformers, or one that knows every word.
        """
        tokenizer: Any = getattr(self, "tokenizer", None)
        if not hasattr(tokenizer, "unk_token_id"):
            return []
        words = dict.fromkeys(text.split())
        ids = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in words}
        return [word for word in words if not ids[word] or tokenizer.unk_token_id in ids[word]]

    @property
    @abstractmethod
    def blocks(self) -> tuple[type[nn.Module], ...]:
        """Classes of the repeated layers, which FSDP shards one by one.

        Each is called through its `forward`. Where later tokens attend to its keys and values with gradient, it is
        called by `unirl.sampling.run_layers`, so that FSDP sees them.
        """

    @classmethod
    def from_pretrained(cls: type[Self], path_or_id: str) -> Self:
        """A built model from a local folder, `package:folder`, or a hub id: the constructor's first argument."""
        backbone = cls(path_or_id)
        backbone.build()
        return backbone

    @abstractmethod
    def save_pretrained(self, path: str | Path) -> None:
        """Write the checkpoint in the public format; `from_pretrained` reads it back.

        Call `self.sampling_config.save_pretrained(path)`, too, so that the saved model is sampled as this one.
        """


def _read_sampling_config(checkpoint: object) -> SamplingConfig | None:
    try:  # what a plugin calls its checkpoint need not be a folder
        folder = locate(str(checkpoint), files=[FILE_NAME]) if isinstance(checkpoint, str | Path) else None
    except UserError:
        return None
    return SamplingConfig.from_pretrained(folder) if folder and (folder / FILE_NAME).is_file() else None


def _rotary_frequencies(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Module, name and value of the buffers that transformers calls `inv_freq`, where they are float32.

    In 16 bits a frequency is off by up to 1/256, so position 1000 would be rotated by the angle of another one.
    """
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and buffer.dtype == torch.float32 and not buffer.is_meta:
                yield module, name, buffer
