"""Texts that are longer than the model reads or writes: counted before a run, and watched where prompts are drawn."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from unirl.backbones import Backbone, PlaceholderTokenizer
from unirl.prompts import Prompts
from unirl.rewards import PretrainedReward, Reward
from unirl.types import Answers, Example, Question, Rollout

NUM_DRAWN = 256
"""Training prompts that are counted at the start of a run where they are no finite list."""
MAX_TOKENS = "model.rollout.answer_sampling.max_tokens"
Problem = tuple[str, str, str]
"""Kind of text ("prompts", "questions" or "answers"), what is wrong, and what to do."""
TextLengths = Callable[[Sequence[str]], Sequence[int]]


def counts_tokens(backbone: Backbone) -> bool:
    """Whether a built backbone has its tokenizer, and not the placeholder of `build(meta=True)`.

    Args:
        backbone: Built, perhaps on the meta device.
    """
    return not isinstance(getattr(backbone, "tokenizer", None), PlaceholderTokenizer)


def longer_texts(texts: Iterable[str], lengths: TextLengths, limit: int) -> dict[str, int]:
    """The texts that have more tokens than a limit.

    A token is at least a byte of text, so that a short text needs no tokenizer.

    Args:
        texts: In any order.
        lengths: Number of tokens of each text, with those that are added to all of them.
        limit: Most tokens.

    Returns:
        Tokens by text.

    Example:
        >>> longer_texts(["a", "a red cup", "a cup"], lambda texts: [len(text.split()) for text in texts], limit=2)
        {'a red cup': 3}
    """
    distinct = sorted(set(texts), key=_num_bytes)
    if not distinct:
        return {}
    most_added = lengths(distinct[:1])[0]
    possible = [text for text in distinct if _num_bytes(text) + most_added > limit]
    counts = zip(possible, lengths(possible) if possible else (), strict=True)
    return {text: count for text, count in counts if count > limit}


def find_long_texts(
    backbone: Backbone,
    examples: Sequence[Example],
    max_tokens: int,
    source: str,
    option: str = MAX_TOKENS,
    generates: bool = True,
) -> Iterator[Problem]:
    """What is longer than a backbone reads, or than it may write: prompts, questions with their answers, and answers.

    Args:
        backbone: Built, perhaps on the meta device.
        examples: Those of one source.
        max_tokens: Longest answer.
        source: Their name, such as "training prompts".
        option: The name of `max_tokens`.
        generates: Whether images are generated from the prompts, and not given.
    """
    questions = [question for example in examples for question in example.questions if question.text]
    if generates:
        yield from find_long_prompts(backbone, [example.prompt for example in examples], source)
    yield from _find_long_questions(backbone, questions, max_tokens, source)
    yield from find_long_answers(backbone, examples, max_tokens, source, option)


def find_long_prompts(reader: Backbone | PretrainedReward, prompts: Sequence[str], source: str) -> Iterator[Problem]:
    """Prompts that are longer than a backbone or a reward reads.

    Args:
        reader: The backbone, built, perhaps on the meta device; or a reward.
        prompts: Those of one source.
        source: Their name.
    """
    limit = reader.max_prompt_length
    if limit is None:
        return
    limit = max(0, limit)
    longer = longer_texts(prompts, reader.prompt_lengths, limit)
    if longer:
        name, same = (type(reader).__name__, "image") if isinstance(reader, Backbone) else (reader.name, "score")
        effect = (
            f"what comes after is cut off, so prompts that differ only there give the same {same}"
            if not isinstance(reader, Backbone) or reader.truncates_prompts
            else "an image after a longer one goes beyond the positions that the model was made for"
        )
        yield (
            "prompts",
            f"{_count(prompts, longer)} {source} are longer than the {limit} tokens that {name} "
            f"reads, such as {_longest(longer)}: {effect}",
            "shorten them",
        )


def _find_long_questions(
    backbone: Backbone, questions: Sequence[Question], max_tokens: int, source: str
) -> Iterator[Problem]:
    """Questions which, with the longest of their answers, are longer than a backbone reads."""
    limit = backbone.max_question_length
    if limit is None or not questions:
        return
    given = [text for question in questions for text in _given_answers(question)]
    answers = longer_texts(given, backbone.answer_lengths, max_tokens)
    longest = max([max_tokens, *answers.values()])
    lengths = longer_texts([question.text for question in questions], backbone.question_lengths, limit - longest)
    totals = [
        lengths[question.text] + max(answers.get(text, max_tokens) for text in (*_given_answers(question), ""))
        for question in questions
        if question.text in lengths
    ]
    count = sum(total > limit for total in totals)
    if count:
        yield (
            "questions",
            f"{count} of {len(questions)} questions of the {source} are, with an answer, longer than the "
            f"{max(0, limit)} tokens that {type(backbone).__name__} reads after an image: the longest is "
            f"{_longest(lengths)} with an answer of up to {longest}, and goes beyond the positions that the model was "
            "made for",
            "shorten questions and answers" + (", or take a smaller max_tokens" if longest == max_tokens else ""),
        )


def find_long_answers(
    backbone: Backbone, examples: Sequence[Example], max_tokens: int, source: str, option: str = MAX_TOKENS
) -> Iterator[Problem]:
    """Right answers that the model cannot give within `max_tokens`.

    Those of questions with choices are compared by their probabilities, and are not sampled but for the first one.

    Args:
        backbone: Built, perhaps on the meta device.
        examples: Those of one source.
        max_tokens: Longest answer.
        source: Their name.
        option: The name of `max_tokens`.
    """
    answers = [
        question.answer
        for example in examples
        for index, question in enumerate(example.questions)
        if question.answer and (index == 0 or not question.choices)
    ]
    longer = longer_texts(answers, backbone.answer_lengths, max_tokens)
    if longer:
        yield (
            "answers",
            f"{_count(answers, longer)} right answers of the {source} need up to {max(longer.values())} tokens, end of "
            f"text included, and {option} is {max_tokens}, such as {_longest(longer)}: the model's own answers stop "
            "before that",
            f"set {option} to {max(longer.values())} or more",
        )


def sources_of_run(data: Any, trains: bool = True) -> Iterator[tuple[str, Sequence[Example]]]:
    """The examples of a run that are counted, with their names.

    Training prompts that are no finite list are drawn as far as `NUM_DRAWN`.

    Args:
        data: A `PromptsDataModule`, or a custom module, which has none.
        trains: Whether training prompts are used.
    """
    prompts = getattr(data, "prompts", None)
    if not isinstance(prompts, Prompts):
        return
    if trains and (listed := prompts.train_examples()):
        yield "training prompts", listed
    elif trains:
        drawn = [prompts.sample(data.seed, index) for index in range(NUM_DRAWN)]
        yield "drawn training prompts", drawn
    yield "held-out prompts", data.val_examples


class LengthWarnings:
    """Warns of texts that are longer than the model reads or writes: of known ones all at once, of drawn ones once.

    Args:
        backbone: The model; need not be built yet.
        rewards: Those of them that read prompts by a pretrained model are asked for their limits, too.
    """

    def __init__(self, backbone: Backbone, rewards: Sequence[Reward] = ()) -> None:
        self.backbone = backbone
        self._readers = [reward for reward in rewards if isinstance(reward, PretrainedReward)]
        self._unseen = {"prompts", "questions", "answers"}
        """Kinds of texts that are watched in training prompts, since no warning was given of them."""
        self._sources: set[str] = set()

    def warn(
        self,
        examples: Sequence[Example],
        max_tokens: int,
        source: str,
        option: str = MAX_TOKENS,
        generates: bool = True,
    ) -> None:
        """Warn of all examples of a source, the first time.

        Args:
            examples: Those of the source.
            max_tokens: Longest answer.
            source: Its name.
            option: The name of `max_tokens`.
            generates: As for `find_long_texts`.
        """
        if source in self._sources:
            return
        self._sources.add(source)
        found = [*find_long_texts(self.backbone, examples, max_tokens, source, option, generates)]
        if generates:
            found += self._find_for_rewards(examples, source)
        for kind, *problem in found:
            rank_zero_warn("; ".join(problem))
            if "training" in source:
                self._unseen.discard(kind)

    def warn_of_run(self, data: Any, max_tokens: int, trains: bool = True) -> None:
        """Warn of all examples of a run that are known before it.

        Args:
            data: As for `sources_of_run`.
            max_tokens: Longest answer.
            trains: Whether training prompts are used.
        """
        for source, examples in sources_of_run(data, trains):
            self.warn(examples, max_tokens, source)
            if source == "training prompts":  # a finite list: all of them are known
                self._unseen.clear()

    def watch(self, examples: Sequence[Example], max_tokens: int) -> None:
        """Warn of a batch of training prompts that are not known before it, once for each kind of text.

        Args:
            examples: Those of the batch.
            max_tokens: Longest answer.
        """
        if not self._unseen:
            return
        source = "training prompts of this batch"
        found = [*find_long_texts(self.backbone, examples, max_tokens, source)]
        for kind, *problem in [*found, *self._find_for_rewards(examples, source)]:
            if kind in self._unseen:
                warnings.warn("; ".join([*problem, "further ones are not told"]), stacklevel=2)
                self._unseen.discard(kind)

    def _find_for_rewards(self, examples: Sequence[Example], source: str) -> Iterator[Problem]:
        prompts = [example.prompt for example in examples]
        for reward in self._readers:
            yield from find_long_prompts(reward, prompts, source)


def _given_answers(question: Question) -> list[str]:
    return [text for text in (question.answer, *question.choices) if text]


def clipped_answers(answers: Answers, max_tokens: int, eos_token_ids: Sequence[int]) -> Tensor:
    """Which sampled answers were cut off at `max_tokens`: the last of so many tokens is not the end of text.

    Args:
        answers: Sampled ones. Those without a token, which are ignored, are not cut off.
        max_tokens: Longest answer when they were sampled.
        eos_token_ids: Ids that end an answer. Without any, all of `max_tokens` count as cut off.

    Shapes:
        returns (B,) bool.

    Example:
        >>> ids = torch.tensor([[5, 0], [5, 6]])
        >>> clipped_answers(Answers(ids, ids >= 0, ["a", "a b"]), max_tokens=2, eos_token_ids=[0]).tolist()
        [False, True]
    """
    num_tokens = answers.mask.sum(1)
    last = answers.ids.gather(1, (num_tokens - 1).clamp(min=0)[:, None]).squeeze(1)
    ends = torch.tensor(list(eos_token_ids), dtype=last.dtype, device=last.device)
    return (num_tokens >= max_tokens) & ~torch.isin(last, ends)


def completion_metrics(rollout: Rollout, max_tokens: int, eos_token_ids: Sequence[int]) -> dict[str, Tensor]:
    """Mean number of tokens of an answer and share of those that were cut off, without the rows that are ignored.

    Args:
        rollout: Fresh.
        max_tokens: As for `clipped_answers`.
        eos_token_ids: As for `clipped_answers`.

    Source: TRL logs both under these names.
    """
    answers, asked = rollout.answers, rollout.answer_weights > 0
    clipped = clipped_answers(answers, max_tokens, eos_token_ids)
    return {
        "completions/mean_length": (answers.mask.sum(1) * asked).sum().float() / asked.sum(),
        "completions/clipped_ratio": (clipped & asked).sum().float() / asked.sum(),
    }


def _count(texts: Sequence[str], longer: dict[str, int]) -> str:
    return f"{sum(text in longer for text in texts)} of {len(texts)}"


def _longest(longer: dict[str, int]) -> str:
    text = max(longer, key=lambda text: longer[text])
    words = " ".join(text.split())
    return f"{words if len(words) <= 60 else words[:57] + '...'!r} ({longer[text]} tokens)"


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
