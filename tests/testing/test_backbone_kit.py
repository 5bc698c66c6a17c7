"""The conformance class finds what is wrong with a backbone, and says so."""

import inspect
import pickle
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.testing import BackboneConformance, TableBackbone
from unirl.types import Answers, Images


def fault(kind: type[Backbone], check: str, folder: Path) -> str:
    """What a check says about a backbone; empty if it finds nothing."""

    class Kit(BackboneConformance):
        def make(self) -> Backbone:
            backbone = kind()
            backbone.build()
            return backbone

        def make_unbuilt(self) -> Backbone:
            return kind()

    kit = Kit()
    method = getattr(kit, check)
    given = {"backbone": kit.make, "tmp_path": lambda: folder}
    try:
        method(**{name: given[name]() for name in inspect.signature(method).parameters})
    except AssertionError as error:
        return str(error)
    except pytest.skip.Exception:  # not for this backbone
        return ""
    return ""


class Altered(TableBackbone):
    """Draws as it should; derived ones change what comes out."""

    def drawn(self, images: Images) -> Images:
        return images

    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return self.drawn(super().sample_images(prompts, sampling, generator))


class FloatCodes(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, codes=images.codes.float())


class NoLogProbs(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, log_probs=None)


class ShortLogProbs(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, log_probs=images.log_probs[:, 1:])


class Densities(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, log_probs=images.log_probs + 9)


class LostMemory(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, memory={"steps": images.codes[1:]})


class Turned(Altered):
    def drawn(self, images: Images) -> Images:
        return images[torch.arange(len(images)).flip(0)]


class Ungenerated(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, None)


class Stubborn(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, torch.Generator().manual_seed(3))


class Shuffling(Altered):
    def drawn(self, images: Images) -> Images:
        random.random()
        return images


class OneDrawing(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        drawn = {p: super(OneDrawing, self).sample_images([p], sampling, generator) for p in dict.fromkeys(prompts)}
        index = torch.tensor([list(drawn).index(prompt) for prompt in prompts])
        fields = ("codes", "actions", "log_probs")
        return Images(**{name: torch.cat([getattr(one, name) for one in drawn.values()])[index] for name in fields})


class Cold(TableBackbone):
    def image_log_probs(self, prompts: Any, images: Any, sampling: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        return super().image_log_probs(prompts, images, replace(sampling, temperature=1.0), *rest)


class Unguided(TableBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        return super().code_logits(prompts, codes, 0.0)


class Promptless(TableBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        return super().code_logits(["a"] * len(prompts), codes, guidance)


class Crowded(TableBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        logits = super().code_logits(prompts, codes, guidance)
        return logits - logits.mean(0, keepdim=True) / 2


class Masked(TableBackbone):
    """Says that it scored everything, and didn't."""

    def image_log_probs(
        self, prompts: Any, images: Any, sampling: Any, scored: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(prompts, images, sampling)
        return (log_probs * (torch.arange(4) < scored) if scored else log_probs), mask


class FloatMask(TableBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs, mask.float()


class HalfMask(TableBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs, mask & (torch.arange(4) > 0)


class Unweighed(TableBackbone):
    def picture_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, _ = super().picture_log_probs(*args)
        return log_probs, torch.ones_like(log_probs)


class Bright(TableBackbone):
    def decode(self, images: Images) -> Tensor:
        return 255 * super().decode(images)


class ChannelsLast(TableBackbone):
    def decode(self, images: Images) -> Tensor:
        return super().decode(images).permute(0, 2, 3, 1)


class HardPixels(TableBackbone):
    def decode(self, images: Images) -> Tensor:
        return super().decode(replace(images, soft=None))


class TrainedTokenizer(TableBackbone):
    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.image_tokenizer.requires_grad_(True)


class SlopingSample(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        images = super().sample_images(prompts, sampling, generator)
        return replace(images, log_probs=self.image_log_probs(prompts, images, sampling)[0])


class SlopelessScore(TableBackbone):
    @torch.no_grad()
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        return super().image_log_probs(*args)


class SlopelessAnswers(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers).detach()


class DeafToSoft(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(replace(images, soft=None), questions, answers) + 0 * self.look.weight.sum()


class CutRelax(TableBackbone):
    def relax(self, *args: Any) -> Images:
        images = super().relax(*args)
        assert images.soft is not None
        return replace(images, soft=images.soft.detach())


class LeafRelax(TableBackbone):
    def relax(self, *args: Any) -> Images:
        images = super().relax(*args)
        assert images.soft is not None
        return replace(images, soft=images.soft.detach().requires_grad_())


class SoftRelax(TableBackbone):
    def relax(self, *args: Any) -> Images:
        images = super().relax(*args)
        assert images.soft is not None
        return replace(images, soft=(images.soft * 0.9))


class VagueRefusal(TableBackbone):
    can_relax = False

    def relax(self, *args: Any) -> Images:
        raise TypeError("no")


class WrongCan(TableBackbone):
    can_relax = False


class Said(TableBackbone):
    """Answers as it should; derived ones change what comes out."""

    def altered(self, answers: Answers) -> Answers:
        return answers

    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return self.altered(super().sample_answers(images, questions, sampling, generator))


class LeftPadded(Said):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        given = super().tokenize_answers(texts)
        return replace(given, ids=given.ids.flip(1), mask=given.mask.flip(1) | (torch.arange(given.ids.shape[1]) == 0))


class Endless(TableBackbone):
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        given = super().tokenize_answers(texts)
        return replace(given, mask=given.mask & (given.ids != 0))


class OneTextShort(Said):
    def altered(self, answers: Answers) -> Answers:
        return replace(answers, text=answers.text[1:])


class Rambling(TableBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return super().sample_answers(images, questions, replace(sampling, max_tokens=40), generator)


class UnmaskedAnswers(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        every = replace(answers, mask=torch.ones_like(answers.mask))
        return super().answer_log_probs(images, questions, every)


class OtherQuestions(TableBackbone):
    """Repeats the pictures where it should repeat each."""

    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        rows = torch.arange(len(questions)) % len(images)
        return super()._asked(images[rows], questions)


class Blind(TableBackbone):
    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        return super()._asked(replace(images, codes=images.codes * 0), questions)


class Gossip(TableBackbone):
    def _asked(self, images: Images, questions: Sequence[str]) -> Tensor:
        asked = super()._asked(images, questions)
        return asked + 3 * asked.mean(0)


class UngeneratedAnswers(TableBackbone):
    def sample_answers(self, images: Images, questions: Sequence[str], sampling: Any, generator: Any = None) -> Answers:
        return super().sample_answers(images, questions, sampling)


class WarmAnswers(TableBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers) / 0.7


class Forgetful(TableBackbone):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        fresh = TableBackbone()
        fresh.build()
        return {**super().state_dict(*args, **kwargs), "look.weight": fresh.look.weight.detach()}


class Pickled(TableBackbone):
    def save_pretrained(self, path: str | Path) -> None:
        super().save_pretrained(path)
        (Path(path) / "weights.data").write_bytes(pickle.dumps(self.state_dict()))


class Unsaved(TableBackbone):
    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "TableBackbone":
        return super().from_pretrained(path_or_id) if path_or_id is None else _fresh(cls)


def _fresh(kind: type[TableBackbone]) -> TableBackbone:
    backbone = kind()
    backbone.build()
    return backbone


class Rebuilt(TableBackbone):
    def build(self, meta: bool = False) -> None:
        if hasattr(self, "layers"):
            del self.layers
        super().build(meta)


class Eager(TableBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(4, 4)


class Weighty(TableBackbone):
    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.extra = nn.Linear(4, 4)


class NoBlocks(TableBackbone):
    blocks = ()


class OtherBlocks(TableBackbone):
    blocks = (nn.TransformerEncoderLayer,)


class Dropping(TableBackbone):
    def _hidden(self, rows: Tensor) -> Tensor:
        return super()._hidden(rows * 1.5 if self.training else rows)


class EvalLeft(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        self.eval()
        return super().sample_images(prompts, sampling, generator)


class Thawing(TableBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        self.image_tokenizer.requires_grad_(True)
        return super().image_log_probs(*args)


class Sharing(TableBackbone):
    def __deepcopy__(self, memo: Any) -> "Sharing":
        return self


S, D = "test_drawings_have_codes_and_log_probs", "test_scored_log_probs_are_those_kept_while_sampling"
BROKEN: list[tuple[type[Backbone], str, str]] = [
    (FloatCodes, S, "sample_images: codes are torch.float32, expected integers"),
    (NoLogProbs, S, "sample_images: log_probs are None"),
    (ShortLogProbs, S, r"sample_images: log-probabilities have shape \(3, 3\), expected that of actions, \(3, 4\)"),
    (Densities, S, "sample_images: a log-probability is .*; none can be above 0"),
    (LostMemory, S, "sample_images: memory 'steps' has 2 rows, expected one a picture, 3"),
    (FloatMask, "test_scores_have_the_shape_of_decisions", "image_log_probs: the mask is torch.float32"),
    (HalfMask, "test_scores_have_the_shape_of_decisions", "image_log_probs: the mask leaves decisions out"),
    (Unweighed, "test_picture_weights_add_up_to_one", "picture_log_probs: the weights .* add up to 4 on average"),
    (Bright, "test_pixels_are_pictures", r"decode: pixels range from .* to .*, expected \[0, 1\]"),
    (ChannelsLast, "test_pixels_are_pictures", r"decode: pixels have shape \(3, 8, 8, 3\), expected \(3, 3, H, W\)"),
    (OneTextShort, "test_answers_have_ids_mask_and_text", "sample_answers: 2 texts for 3 answers"),
    (Rambling, "test_answers_have_ids_mask_and_text", "sample_answers: an answer has .* tokens; max_tokens is 6"),
    (UnmaskedAnswers, "test_answer_scores_have_the_shape_of_tokens", "answer_log_probs: .* outside the mask are not 0"),
    (Turned, D, r"image_log_probs: differs from the log_probs that sample_images kept by up to .* nats"),
    (Cold, D, r"image_log_probs: differs .* with guidance 0 and temperature 0.7"),
    (Unguided, "test_scoring_follows_prompt_guidance_and_temperature", "image_log_probs: guidance makes no difference"),
    (Promptless, "test_scoring_follows_prompt_guidance_and_temperature", "image_log_probs: the prompt makes no diff"),
    (
        Masked,
        "test_a_scored_part_is_the_same_as_in_the_whole",
        "image_log_probs: with scored=1 .* must say what was sc",
    ),
    (Ungenerated, "test_the_generator_alone_decides_drawings", "sample_images: uses torch's global random numbers"),
    (Shuffling, "test_the_generator_alone_decides_drawings", "sample_images: uses Python's global random numbers"),
    (Stubborn, "test_the_generator_alone_decides_drawings", "sample_images: another seed .* changes nothing"),
    (OneDrawing, "test_the_generator_alone_decides_drawings", "sample_images: all drawings of a group are the same"),
    (Crowded, "test_companions_do_not_matter_in_drawing", "sample_images: .* picture 0 depend on the others in the ba"),
    (WarmAnswers, "test_scored_answers_are_those_kept_while_sampling", "answer_log_probs: differs from the log_probs"),
    (Blind, "test_scoring_answers_follows_question_and_picture", "answer_log_probs: the picture makes no difference"),
    (UngeneratedAnswers, "test_the_generator_alone_decides_answers", "sample_answers: uses torch's global random num"),
    (Gossip, "test_companions_do_not_matter_in_answering", "(sample_answers: answer|answer_log_probs: the score of)"),
    (OtherQuestions, "test_several_questions_about_each_picture", "answer_log_probs: of k x B questions the first k"),
    (LeftPadded, "test_given_answers_become_tokens", "tokenize_answers: answers are not right-padded"),
    (Endless, "test_given_answers_become_tokens", "tokenize_answers: answers do not all end in one token"),
    (SlopingSample, "test_sampling_carries_no_gradient", "sample_images: what it returns carries gradient"),
    (SlopelessScore, "test_drawing_learns_from_its_scores", "image_log_probs: .* carry no gradient"),
    (SlopelessAnswers, "test_answering_learns_from_its_scores", "answer_log_probs: .* carry no gradient"),
    (
        TrainedTokenizer,
        "test_the_image_tokenizer_is_frozen",
        "decode: .* gradient to 'image_tokenizer.colors'; .* frozen",
    ),
    (CutRelax, "test_relaxed_codes_carry_gradient", "relax: soft codes carry no gradient"),
    (
        LeafRelax,
        "test_relaxed_codes_carry_gradient",
        "relax: the gradient of soft codes reaches no trainable parameter",
    ),
    (SoftRelax, "test_relaxed_codes_carry_gradient", "relax: soft codes are not the one-hot vectors of images.codes"),
    (DeafToSoft, "test_relaxed_codes_carry_gradient", "answer_log_probs: its gradient does not reach soft codes"),
    (
        HardPixels,
        "test_soft_codes_decode_to_the_same_picture_with_gradient",
        "decode: pixels of soft codes carry no gr",
    ),
    (
        VagueRefusal,
        "test_a_backbone_without_soft_codes_says_so",
        "relax: refuses without saying that it is VagueRefusal",
    ),
    (WrongCan, "test_a_backbone_without_soft_codes_says_so", "relax: returns something, though can_relax is False"),
    (Forgetful, "test_the_state_dict_holds_everything", "state_dict: a model that loads it answers .*, expected"),
    (
        Unsaved,
        "test_saved_and_loaded_it_is_the_same",
        "save_pretrained and from_pretrained: 'words.* and .* more did not",
    ),
    (Pickled, "test_saved_and_loaded_it_is_the_same", "save_pretrained: writes a pickle, weights.data"),
    (Rebuilt, "test_a_second_build_does_nothing", "build: a second call replaces '.*'; it must do nothing"),
    (
        Eager,
        "test_on_the_meta_device_nothing_is_allocated",
        "__init__: holds 20 weights; constructors only read setting",
    ),
    (Weighty, "test_on_the_meta_device_nothing_is_allocated", r"build\(meta=True\): allocates 'extra.weight'"),
    (NoBlocks, "test_blocks_occur_in_the_model", "blocks: empty; name the classes of the repeated layers"),
    (
        OtherBlocks,
        "test_blocks_occur_in_the_model",
        "blocks: no module of the built model is a TransformerEncoderLayer",
    ),
    (Sharing, "test_a_copy_is_the_same_and_stands_alone", "copy.deepcopy: the copy shares weights with the model"),
    (
        Dropping,
        "test_train_mode_draws_what_eval_mode_draws",
        "(sample_images: draws|image_log_probs: scores) otherwise",
    ),
    (EvalLeft, "test_using_a_model_leaves_it_as_it_was", "sample_images: changes train or eval mode of the model"),
    (
        Thawing,
        "test_using_a_model_leaves_it_as_it_was",
        "image_log_probs: changes requires_grad of image_tokenizer.colors",
    ),
]


@pytest.mark.parametrize(("kind", "check", "says"), BROKEN, ids=[kind.__name__ for kind, _, _ in BROKEN])
def test_what_is_broken_is_named(kind: type[Backbone], check: str, says: str, tmp_path: Path) -> None:
    message = fault(kind, check, tmp_path)
    assert re.search(says, message), message or "the check found nothing"
    assert fault(TableBackbone, check, tmp_path / "right") == ""
