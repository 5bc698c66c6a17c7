"""GenEval2 as a judge: Soft-TIFA by a vision-language model."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from unirl import Example, Question, UserError
from unirl.backbones import PretrainedModel
from unirl.judges import ReferenceImages, Verdict, matches_answer
from unirl_geneval.base import PretrainedJudge
from unirl_geneval.pretrained import find_model, levels, load_model, load_part
from unirl_geneval.soft_tifa import Item, arithmetic_mean, geometric_mean, read_items, soft_score, variants

OWNER = "geneval2: the model"
INSTRUCTION = "Answer in one word."
VQA_SCORE = "vqa_score"
VQA_SCORE_QUESTION = 'Does this image show "{}"? Answer the question with Yes or No.'
SCORE = "questions/{}"
"""Name of the soft score of a question in `Verdict.scores`."""

CATEGORY = "atoms_{}"
"""Name of the prompts of an `atom_count`."""


class Answer(NamedTuple):
    """What the model says to a question.

    Args:
        soft: The probability of the correct answers; may be above 1, see `soft_score`.
        text: Its most probable token.
        is_correct: Whether that is a correct answer.
    """

    soft: float
    text: str
    is_correct: bool


class GenEval2Judge(PretrainedJudge):
    """GenEval2: a vision-language model answers questions about an image, and the correct answers' probability counts.

    An image is correct if the most probable token of every answer is correct. The scores are Soft-TIFA: `am` and `gm`,
    the arithmetic and geometric mean over the questions, and `questions/N`, the probability of each correct answer.
    `vqa_score` is that of "yes" to whether the image shows the prompt.

    Args:
        metadata: GenEval2's jsonl file of prompts and questions. It is under CC BY-NC 4.0 and not part of this package.
        model: A model that `AutoModelForImageTextToText` and `AutoProcessor` load, with a chat template: a folder,
            `package:folder` or hub id. GenEval2's figures are of the default.
        revision: Branch, tag or commit of the model's hub repository.
        dtype: Dtype of the weights. "auto" takes that of the checkpoint.
        batch_size: Questions that the model sees at once. With 1, an answer does not depend on the other questions.
        vqa_score: Also measure VQAScore, by one more question: the score `vqa_score`.
        reference_images: Real images with their prompts, as `ReferenceImages` reads them: a JSON Lines file, or a
            folder in GenEval's layout. They measure understanding, and its consistency with generation. A prompt of
            `metadata` needs no question.

    Raises:
        UserError: a file cannot be read, or a line of it is not of its form; or `batch_size` is below 1.

    Source: GenEval2 (arXiv 2512.16853) for Soft-TIFA; Lin et al. 2024 (arXiv 2404.01291) for VQAScore.
    """

    def __init__(
        self,
        metadata: str,
        model: str = "Qwen/Qwen3-VL-8B-Instruct",
        revision: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        batch_size: int = 1,
        vqa_score: bool = False,
        reference_images: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"geneval2: batch_size {batch_size}; it must be 1 or more")
        self.metadata, self.model, self.revision = metadata, model, revision
        self.dtype, self.batch_size = dtype, batch_size
        self.vqa_score, self.reference_images = vqa_score, reference_images
        self.items = {item.prompt: item for item in read_items(metadata)}
        self.images = None if reference_images is None else ReferenceImages(reference_images, self._ask)

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its processor, loaded when they are first needed.

        Raises:
            UserError: they cannot be read, or there is no chat template.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - slow to import

        folder = find_model(self.model, self.revision, OWNER)
        processor = load_part(AutoProcessor, folder, OWNER)
        if getattr(processor, "chat_template", None) is None:
            raise UserError(f"{OWNER} {self.model!r} has no chat template; give an instruction-tuned one")
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        return load_model(AutoModelForImageTextToText, folder, OWNER, dtype=self.dtype), processor

    @property
    @override
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        return (PretrainedModel(self.model, revision=self.revision),)

    @override
    def check_example(self, example: Example) -> None:
        """Refuse a prompt that is not in the file.

        Args:
            example: With the prompt.

        Raises:
            UserError: there is no such line.
        """
        self.find(example)

    @override
    def benchmark(self) -> list[Example]:
        return [_example(item) for item in self.items.values()]

    def _ask(self, example: Example) -> Example:
        item = self.items.get(example.prompt)
        return example if item is None else _example(item)

    @override
    def accepts_answer(self, example: Example, answer: str) -> bool:
        """Whether an answer has the words of the right one; "2" is "two".

        Args:
            example: With the right answer.
            answer: The model's.
        """
        return matches_answer(answer, [example.answer])

    @override
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """Whether each answer about each image is correct.

        Args:
            examples: What each image was generated for: prompts of the file.
            pixels: The images, in [0, 1]. They are rounded to 8 bits.

        Shapes:
            pixels (B, 3, H, W); returns (B,) bool, on the device of `pixels`.

        Raises:
            UserError: there is not one image for each example, a prompt is not in the file, or the model cannot be
                read.
        """
        correct = [one.correct for one in self.explain(examples, pixels)]
        return torch.tensor(correct, dtype=torch.bool, device=pixels.device)

    @override
    def explain(self, examples: Sequence[Example], pixels: Tensor) -> list[Verdict]:
        """Verdicts with the wrong answers and the scores. Arguments, shapes and errors are those of `verdicts`."""
        if pixels.ndim != 4 or pixels.shape[1] != 3 or len(examples) != len(pixels):
            raise UserError(
                f"geneval2 judges RGB images (B, 3, H, W), one for each of {len(examples)} examples, got "
                f"{tuple(pixels.shape)}"
            )
        items = [self.find(example) for example in examples]
        images = [image.permute(1, 2, 0).cpu().numpy() for image in levels(pixels)]
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return [
                self._verdict(item, Image.fromarray(image), pixels.device)
                for item, image in zip(items, images, strict=True)
            ]

    def find(self, example: Example) -> Item:
        """The line of the file that an image was generated for.

        Args:
            example: With the prompt.

        Raises:
            UserError: there is none.
        """
        if example.prompt not in self.items:
            raise UserError(
                f"geneval2: the prompt {example.prompt!r} is not in {self.metadata}, which has its questions"
            )
        return self.items[example.prompt]

    def _verdict(self, item: Item, image: Image.Image, device: torch.device) -> Verdict:
        texts = [f"{question} {INSTRUCTION}" for question in item.questions]
        texts += [VQA_SCORE_QUESTION.format(item.prompt)] if self.vqa_score else []
        logits = self.logits(image, texts, device)
        answers = [self.read(one, *asked) for one, *asked in zip(logits, item.questions, item.answers, strict=False)]
        soft = [one.soft for one in answers]
        wrong = [
            f"{question} expected {answer!r}, got {one.text!r}"
            for question, answer, one in zip(item.questions, item.answers, answers, strict=True)
            if not one.is_correct
        ]
        scores = {"am": arithmetic_mean(soft), "gm": geometric_mean(soft)}
        scores |= {"tifa": 1 - len(wrong) / len(answers)}
        scores |= {VQA_SCORE: self.read(logits[-1], texts[-1], "Yes").soft} if self.vqa_score else {}
        return Verdict(not wrong, "\n".join(wrong), scores | {SCORE.format(i): value for i, value in enumerate(soft)})

    def logits(self, image: Image.Image, texts: Sequence[str], device: torch.device) -> Tensor:
        """The model's logits of the first token of the answer to each question.

        Args:
            image: What they are about.
            texts: The questions, with how to answer.
            device: Where is computed.

        Shapes:
            returns (N, V).
        """
        model, processor = self.loaded
        model.to(device)
        rows = []
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            inputs = processor(
                text=[self._message(text) for text in batch],
                images=[[image]] * len(batch),
                padding=True,
                padding_side="left",
                return_tensors="pt",
            ).to(device, model.dtype)
            # One step of generation: models differ in how they number positions after padding.
            out = model.generate(
                **inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_scores=True
            )
            rows.append(out.scores[0].float())
        return torch.cat(rows)

    def _message(self, text: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        message: str = self.loaded[1].apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return message

    def read(self, logits: Tensor, question: str, answer: str) -> Answer:
        """The model's answer to a question.

        Args:
            logits: Of its first token.
            question: The question.
            answer: The correct answer.

        Shapes:
            logits (V,).
        """
        tokenizer, correct = self.loaded[1].tokenizer, variants(question, answer)
        text: str = tokenizer.decode([logits.argmax().item()])
        soft = soft_score(logits, correct, lambda one: tokenizer.encode(one, add_special_tokens=False))
        return Answer(soft, text, text.lower() in correct)

    @override
    def summarize(self, examples: Sequence[Example], verdicts: Sequence[Verdict]) -> dict[str, float]:
        """The scores of the benchmark: `am`, `gm`, `tifa` and `vqa_score` over prompts, AM by skill, GM by atoms.

        Args:
            examples: One for each image; several images of a prompt count for it by their mean.
            verdicts: One for each image.

        Returns:
            Scores by name; "overall" is `gm`, the score that GenEval2 reports first.
        """
        return summarize([self.find(example) for example in examples], verdicts)


def _example(item: Item) -> Example:
    questions = tuple(map(Question, item.questions, item.answers))
    return Example(item.prompt, category=CATEGORY.format(item.atom_count), questions=questions)


def summarize(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """As `GenEval2Judge.summarize`. A verdict without scores counts as 1 if it is correct, or 0.

    Args:
        items: One for each image.
        verdicts: One for each image.

    Example:
        >>> item = Item("a cup", 1, ("Are there any cups in the image?",), ("Yes",), ("object",))
        >>> summarize([item, item], [Verdict(True), Verdict(False)])
        {'am': 0.5, 'gm': 0.5, 'tifa': 0.5, 'skill_object': 0.5, 'atoms_1': 0.5, 'overall': 0.5}
    """
    prompts: dict[str, list[Verdict]] = {}
    skills: dict[str, list[float]] = {}
    for item, one in zip(items, verdicts, strict=True):
        prompts.setdefault(item.prompt, []).append(one)
        for index, skill in enumerate(item.skills):
            skills.setdefault(skill, []).append(_score(one, SCORE.format(index)))
    scores = {
        name: {prompt: arithmetic_mean([_score(one, name) for one in own]) for prompt, own in prompts.items()}
        for name in ("am", "gm", "tifa", *([VQA_SCORE] if all(VQA_SCORE in one.scores for one in verdicts) else []))
    }
    atoms: dict[int, list[float]] = {}
    for prompt, count in {item.prompt: item.atom_count for item in items}.items():
        atoms.setdefault(count, []).append(scores["gm"][prompt])
    summary = {name: arithmetic_mean([*values.values()]) for name, values in scores.items() if values}
    summary |= {f"skill_{skill}": arithmetic_mean(values) for skill, values in skills.items()}
    summary |= {CATEGORY.format(count): arithmetic_mean(values) for count, values in sorted(atoms.items())}
    return summary | ({"overall": summary["gm"]} if summary else {})


def _score(one: Verdict, name: str) -> float:
    return one.scores.get(name, float(one.correct))
