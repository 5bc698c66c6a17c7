"""Whether the prompts of a run fit its rewards and its judge. It is checked before the model is loaded."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unirl.errors import UserError, describe
from unirl.judges import Judge
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.training.rollout import one_question_each
from unirl.types import Example

NUM_SAMPLED = 100
"""Training examples that are checked where a source has no list of them."""
Check = Callable[[Example], None]


@dataclass(frozen=True)
class Problem:
    """Prompts that do not fit the rest of a run.

    Args:
        level: "error" if the run would end at such a prompt.
        text: What was found.
        advice: What to do.
    """

    level: Literal["warning", "error"]
    text: str
    advice: str


def find_problems(model: Any, data: Any, stage: str, limit: float | None = None) -> Iterator[Problem]:
    """Check all prompts that a run generates images of, or the first ones where there is no list of them.

    Args:
        model: The LightningModule.
        data: A `PromptsDataModule`.
        stage: "fit", "validate" or "test".
        limit: `limit_val_batches` or `limit_test_batches` of the trainer. With 0, held-out prompts are not used.
    """
    source, rewards, judge = data.prompts, getattr(model, "rewards", ()), getattr(model, "judge", None)
    if stage == "fit":
        examples, which = list(source.train_examples()), "{} training prompts"
        if not examples:
            examples = [source.sample(data.seed, i) for i in range(NUM_SAMPLED)]
            which = "the first {} training prompts"
        has_candidates = getattr(getattr(model, "update", None), "candidate_sampling", None) is not None
        yield from find_refused(examples, rewards, None, which, source, has_candidates)
    held_out = data.val_examples if limit != 0 else []
    if held_out:
        yield from find_refused(held_out, rewards, judge, "{} held-out prompts", source)
    elif limit != 0 or judge is not None:
        yield _nothing_validated(data, judge, stage, limit)


def find_refused(
    examples: Sequence[Example],
    rewards: Iterable[Reward],
    judge: Judge | None = None,
    which: str = "{} prompts",
    source: Prompts | None = None,
    has_candidates: bool = False,
) -> Iterator[Problem]:
    """Check examples by all rewards, and by the judge.

    Args:
        examples: What images are generated of.
        rewards: What scores them.
        judge: What judges them; None for nothing.
        which: What the examples are, for messages; their number takes the place of {}.
        source: Knows the lines of its examples.
        has_candidates: Whether rewards score the answer to each question of an example by itself, too.
    """
    which = which.format(len(examples))
    for example in examples:
        if not isinstance(example, Example):
            name = "the list" if source is None else type(source).__name__
            text = f"{name} has {describe(example)} among {which}, expected objects of class Example"
            yield Problem("error", text, "correct the source of prompts")
            return
    checks: list[tuple[str, Check, str]] = [("model cannot generate", _check_prompt, "correct them")]
    for reward in rewards:
        check = _each_question(reward.check_example) if has_candidates else reward.check_example
        checks.append((f"reward {reward.name!r} cannot score", check, "correct them, or use another reward"))
    if judge is not None:
        advice = "take other prompts, or --model.judge null"
        checks.append((f"judge {type(judge).__name__} cannot judge", judge.check_example, advice))
    for who, check, advice in checks:
        refused = [(example, why) for example in examples if (why := _refusal(check, example))]
        if refused:
            example, why = refused[0]
            place = None if source is None else source.location(example)
            where = f"{place}, " if place else ""
            text = f"the {who} {len(refused)} of {which}; the first is {where}{example.prompt!r}: {why}"
            yield Problem("error", text, advice)


def raise_errors(problems: Iterable[Problem]) -> None:
    """Raise what would end the run.

    Args:
        problems: As found.

    Raises:
        UserError: there is an error among them.
    """
    if errors := [f"{one.text}; {one.advice}" for one in problems if one.level == "error"]:
        raise UserError("; ".join(errors))


def _check_prompt(example: Example) -> None:
    if not example.prompt.strip():
        raise UserError("it has no text")


def _each_question(check: Check) -> Check:
    """A check of an example, and of each of its questions by itself, as candidates for its answer are scored."""

    def check_all(example: Example) -> None:
        check(example)
        if len(example.questions) > 1 or example.questions[0].choices:
            for one in one_question_each(example):
                check(one)

    return check_all


def _refusal(check: Check, example: Example) -> str | None:
    try:
        check(example)
    except UserError as error:
        return str(error)
    except Exception as error:  # of a plugin
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"check_example failed with {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
    return None


def _nothing_validated(data: Any, judge: Judge | None, stage: str, limit: float | None) -> Problem:
    option, advice = f"trainer.limit_{'test' if stage == 'test' else 'val'}_batches", "raise it"
    if limit == 0:
        reason = f"{option} is 0"
    elif not data.num_val_prompts:
        reason = "data.num_val_prompts is 0"
    else:
        reason, advice = f"{type(data.prompts).__name__} has no held-out prompts", "give it some"
    done = "tested" if stage == "test" else "validated"
    if judge is None:
        return Problem("warning", f"{reason}, so nothing is {done}", advice)
    text = f"{reason}, so nothing is {done}, and the judge {type(judge).__name__} is asked about no image"
    return Problem("warning", text, f"{advice}, or leave the judge out (--model.judge null)")
