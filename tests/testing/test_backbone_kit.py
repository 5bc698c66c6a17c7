"""The conformance class finds what is wrong with a backbone, and says so."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.testing import broken_answering as answering
from tests.testing import broken_drawing as drawing
from tests.testing import broken_keeping as keeping
from tests.testing import broken_learning as learning

from unirl.backbones import Backbone
from unirl.testing import BackboneConformance, TableBackbone


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


S, D = "test_drawings_have_codes_and_log_probs", "test_scored_log_probs_are_those_kept_while_sampling"
SHARDED = "test_sharded_over_two_processes_it_says_the_same"
BROKEN: list[tuple[type[Backbone], str, str]] = [
    (drawing.FloatCodes, S, "sample_images: codes are torch.float32, expected integers"),
    (drawing.NoLogProbs, S, "sample_images: log_probs are None"),
    (
        drawing.ShortLogProbs,
        S,
        r"sample_images: log-probabilities have shape \(3, 3\), expected that of actions, \(3, 4\)",
    ),
    (drawing.Densities, S, "sample_images: a log-probability is .*; none can be above 0"),
    (drawing.LostMemory, S, "sample_images: memory 'steps' has 2 rows, expected one a picture, 3"),
    (drawing.FloatMask, "test_scores_have_the_shape_of_decisions", "image_log_probs: the mask is torch.float32"),
    (drawing.HalfMask, "test_scores_have_the_shape_of_decisions", "image_log_probs: the mask leaves decisions out"),
    (
        drawing.Unweighed,
        "test_picture_weights_add_up_to_one",
        "image_log_likelihood: the weights .* add up to 4 on average",
    ),
    (drawing.Bright, "test_pixels_are_pictures", r"decode: pixels range from .* to .*, expected \[0, 1\]"),
    (
        drawing.ChannelsLast,
        "test_pixels_are_pictures",
        r"decode: pixels have shape \(3, 8, 8, 3\), expected \(3, 3, H, W\)",
    ),
    (answering.OneTextShort, "test_answers_have_ids_mask_and_text", "sample_answers: 2 texts for 3 answers"),
    (
        answering.Rambling,
        "test_answers_have_ids_mask_and_text",
        "sample_answers: an answer has .* tokens; max_tokens is 6",
    ),
    (
        answering.UnmaskedAnswers,
        "test_answer_scores_have_the_shape_of_tokens",
        "answer_log_probs: .* outside the mask are not 0",
    ),
    (drawing.Turned, D, r"image_log_probs: differs from the log_probs that sample_images kept by up to .* nats"),
    (drawing.Cold, D, r"image_log_probs: differs .* with guidance 0 and temperature 0.7"),
    (
        drawing.Unguided,
        "test_scoring_follows_prompt_guidance_and_temperature",
        "image_log_probs: guidance makes no difference",
    ),
    (
        drawing.Promptless,
        "test_scoring_follows_prompt_guidance_and_temperature",
        "image_log_probs: the prompt makes no diff",
    ),
    (
        drawing.Masked,
        "test_a_scored_part_is_the_same_as_in_the_whole",
        "image_log_probs: with scored=1 .* must say what was sc",
    ),
    (
        drawing.Ungenerated,
        "test_the_generator_alone_decides_drawings",
        "sample_images: uses torch's global random numbers",
    ),
    (
        drawing.Shuffling,
        "test_the_generator_alone_decides_drawings",
        "sample_images: uses Python's global random numbers",
    ),
    (drawing.Stubborn, "test_the_generator_alone_decides_drawings", "sample_images: another seed .* changes nothing"),
    (
        drawing.OneDrawing,
        "test_the_generator_alone_decides_drawings",
        "sample_images: all drawings of a group are the same",
    ),
    (
        drawing.Crowded,
        "test_companions_do_not_matter_in_drawing",
        "sample_images: .* picture 0 depend on the others in the ba",
    ),
    (
        answering.WarmAnswers,
        "test_scored_answers_are_those_kept_while_sampling",
        "answer_log_probs: differs from the log_probs",
    ),
    (
        answering.Blind,
        "test_scoring_answers_follows_question_and_picture",
        "answer_log_probs: the picture makes no difference",
    ),
    (
        answering.UngeneratedAnswers,
        "test_the_generator_alone_decides_answers",
        "sample_answers: uses torch's global random num",
    ),
    (
        answering.Gossip,
        "test_companions_do_not_matter_in_answering",
        "(sample_answers: answer|answer_log_probs: the score of)",
    ),
    (
        answering.OtherQuestions,
        "test_several_questions_about_each_picture",
        "answer_log_probs: of k x B questions the first k",
    ),
    (answering.LeftPadded, "test_given_answers_become_tokens", "tokenize_answers: answers are not right-padded"),
    (answering.Endless, "test_given_answers_become_tokens", "tokenize_answers: answers do not all end in one token"),
    (learning.SlopingSample, "test_sampling_carries_no_gradient", "sample_images: what it returns carries gradient"),
    (learning.SlopelessScore, "test_drawing_learns_from_its_scores", "image_log_probs: .* carry no gradient"),
    (learning.SlopelessAnswers, "test_answering_learns_from_its_scores", "answer_log_probs: .* carry no gradient"),
    (
        learning.TrainedTokenizer,
        "test_the_image_tokenizer_is_frozen",
        "decode: .* gradient to 'image_tokenizer.colors'; .* frozen",
    ),
    (learning.CutRelax, "test_relaxed_codes_carry_gradient", "relax: soft codes carry no gradient"),
    (
        learning.LeafRelax,
        "test_relaxed_codes_carry_gradient",
        "relax: the gradient of soft codes reaches no trainable parameter",
    ),
    (
        learning.SoftRelax,
        "test_relaxed_codes_carry_gradient",
        "relax: soft codes are not the one-hot vectors of images.codes",
    ),
    (
        learning.DeafToSoft,
        "test_relaxed_codes_carry_gradient",
        "answer_log_probs: its gradient does not reach soft codes",
    ),
    (
        drawing.HardPixels,
        "test_soft_codes_decode_to_the_same_picture_with_gradient",
        "decode: pixels of soft codes carry no gr",
    ),
    (
        learning.VagueRefusal,
        "test_a_backbone_without_soft_codes_says_so",
        "relax: refuses without saying that it is VagueRefusal",
    ),
    (
        learning.WrongCan,
        "test_a_backbone_without_soft_codes_says_so",
        "relax: returns something, though supports_straight_through is False",
    ),
    (
        keeping.Forgetful,
        "test_the_state_dict_holds_everything",
        "state_dict: a model that loads it answers .*, expected",
    ),
    (
        keeping.Unsaved,
        "test_saved_and_loaded_it_is_the_same",
        "save_pretrained and from_pretrained: 'words.* and .* more did not",
    ),
    (keeping.Pickled, "test_saved_and_loaded_it_is_the_same", "save_pretrained: writes a pickle, weights.data"),
    (keeping.Rebuilt, "test_a_second_build_does_nothing", "build: a second call replaces '.*'; it must do nothing"),
    (
        keeping.Eager,
        "test_on_the_meta_device_nothing_is_allocated",
        "__init__: holds 20 weights; constructors only read setting",
    ),
    (keeping.Weighty, "test_on_the_meta_device_nothing_is_allocated", r"build\(meta=True\): allocates 'extra.weight'"),
    (keeping.NoBlocks, "test_blocks_occur_in_the_model", "blocks: empty; name the classes of the repeated layers"),
    (
        keeping.OtherBlocks,
        "test_blocks_occur_in_the_model",
        "blocks: no module of the built model is a TransformerEncoderLayer",
    ),
    (
        keeping.Sharing,
        "test_a_copy_is_the_same_and_stands_alone",
        "copy.deepcopy: the copy shares weights with the model",
    ),
    (
        keeping.Dropping,
        "test_train_mode_draws_what_eval_mode_draws",
        "(sample_images: draws|image_log_probs: scores) otherwise",
    ),
    (
        keeping.EvalLeft,
        "test_using_a_model_leaves_it_as_it_was",
        "sample_images: changes train or eval mode of the model",
    ),
    (
        keeping.Thawing,
        "test_using_a_model_leaves_it_as_it_was",
        "image_log_probs: changes requires_grad of image_tokenizer.colors",
    ),
    (keeping.Divided, SHARDED, "sample_images: sharded over 2 processes it gives other numbers than whole"),
    (keeping.Outside, SHARDED, "sharded over 2 processes, one failed: .*mixed torch.Tensor and DTensor"),
]


@pytest.mark.parametrize(("kind", "check", "says"), BROKEN, ids=[kind.__name__ for kind, _, _ in BROKEN])
def test_what_is_broken_is_named(kind: type[Backbone], check: str, says: str, tmp_path: Path) -> None:
    message = fault(kind, check, tmp_path)
    assert re.search(says, message), message or "the check found nothing"
    if check != SHARDED:  # that one takes seconds, and runs for all that we ship
        assert fault(TableBackbone, check, tmp_path / "right") == ""


class Unrelaxed(TableBackbone):
    """Has no soft codes, which the contract allows."""

    relax = Backbone.straight_through


def test_soft_codes_are_optional(tmp_path: Path) -> None:
    assert fault(Unrelaxed, "test_a_backbone_without_soft_codes_says_so", tmp_path) == ""
    assert fault(Unrelaxed, "test_relaxed_codes_carry_gradient", tmp_path) == ""


def test_a_class_that_does_not_say_how_to_make_one_is_told_so() -> None:
    with pytest.raises(TypeError, match="BackboneConformance must say how its backbone is made: def make"):
        BackboneConformance().make()


def test_without_pytest_the_extra_is_named() -> None:
    code = "import sys; sys.modules['pytest'] = None; import unirl.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "lightning-unirl[test]"' in run.stderr.splitlines()[-1]
