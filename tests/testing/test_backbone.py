"""BackboneConformance detects errors in a backbone and describes them."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.testing import broken_devices as devices
from tests.testing import broken_outputs as outputs
from tests.testing import broken_training as training

from unirl.backbones import Backbone
from unirl.testing import BackboneConformance, TinyBackbone
from unirl.testing.pretend import is_supported

SHARDED = "test_sharded_model_matches_unsharded"
CASES: dict[str, list[tuple[type[Backbone], str]]] = {
    "test_sample_images_returns_codes_actions_and_log_probs": [
        (outputs.FloatCodes, "sample_images returned codes of torch.float32, expected integers"),
        (outputs.NegativeCodes, "sample_images returned the code -8, expected 0 or more"),
        (outputs.NoLogProbs, "sample_images returned log_probs None"),
        (outputs.NoActions, "sample_images returned actions None"),
        (outputs.TooFewLogProbs, r"log-probabilities of shape \(3, 3\), expected that of actions, \(3, 4\)"),
        (outputs.PositiveLogProbs, "sample_images returned a log-probability of .*, expected at most 0"),
        (outputs.TruncatedMemory, "sample_images returned memory 'steps' with 2 rows, expected 3, one per image"),
    ],
    "test_image_log_probs_returns_log_probs_and_mask": [
        (outputs.FloatMask, "image_log_probs returned a mask of torch.float32, expected torch.bool"),
        (outputs.IncompleteMask, "image_log_probs returned a mask with False"),
    ],
    "test_image_log_likelihood_weights_sum_to_one": [
        (outputs.UnnormalizedWeights, "image_log_likelihood returned weights that sum to 4 per image on average"),
    ],
    "test_random_masks_do_not_depend_on_the_batch": [
        (outputs.OwnMasks, "image_log_likelihood returned values that differ by .* for images of a micro-batch"),
    ],
    "test_decode_returns_pixels_between_0_and_1": [
        (outputs.PixelsUpTo255, r"decode returned pixels from .* to .*, expected \[0, 1\]"),
        (outputs.ChannelsLast, r"decode returned pixels of shape \(3, 8, 8, 3\), expected \(3, 3, H, W\)"),
    ],
    "test_encode_accepts_external_images": [
        (outputs.OneEncodedImage, "encode returned 1 images, expected 3"),
    ],
    "test_sample_answers_returns_ids_mask_and_text": [
        (outputs.MissingText, "sample_answers returned 2 texts, expected 3"),
        (outputs.IgnoredMaxTokens, "sample_answers returned an answer of .* tokens, but max_tokens is 6"),
    ],
    "test_control_tokens_in_texts_are_text": [
        (outputs.ReadsControlTokens, r"answer_ids reads '</s>' in a text as a control token; pass the text through"),
    ],
    "test_answer_log_probs_match_the_token_shape": [
        (outputs.ScoredPadding, "answer_log_probs returned log-probabilities other than 0 outside the mask"),
    ],
    "test_image_log_probs_match_sampling": [
        (outputs.ReversedRows, "image_log_probs returned values that differ by .* nats from those of sample_images"),
        (outputs.IgnoredTemperature, "with guidance 0 and temperature 0.7"),
    ],
    "test_image_log_probs_depend_on_prompt_guidance_and_temperature": [
        (outputs.IgnoredGuidance, "image_log_probs ignores guidance"),
        (outputs.IgnoredPrompt, "image_log_probs ignores the prompt"),
    ],
    "test_scored_steps_match_full_scoring": [
        (outputs.WrongMask, "one sampling step, returned values that differ .* True only where a decision was scored"),
    ],
    "test_image_sampling_uses_only_the_generator": [
        (outputs.TorchGlobalRng, "sample_images uses PyTorch's global random numbers"),
        (outputs.PythonGlobalRng, "sample_images uses Python's global random numbers"),
        (outputs.FixedSeed, "sample_images returned equal images with differently seeded generators"),
        (outputs.OneImagePerPrompt, "sample_images returned 8 equal images of one prompt"),
    ],
    "test_each_image_uses_only_its_own_generator": [
        (outputs.OneGeneratorForAllImages, "sample_images returned another image .* draw random numbers by"),
    ],
    "test_each_answer_uses_only_the_generator_of_its_image": [
        (outputs.OneGeneratorForAllAnswers, "sample_answers returned other answers about image 2 alone"),
    ],
    "test_image_scoring_uses_only_the_generator": [
        (outputs.RandomScores, "image_log_likelihood uses PyTorch's global random numbers"),
    ],
    "test_images_do_not_depend_on_the_batch": [
        (outputs.BatchNormalized, "sample_images returned log-probabilities of image 0 that depend on the rest"),
    ],
    "test_the_order_of_rows_has_no_effect": [
        (outputs.FirstPosition, "image_log_probs returned values that differ by .* when rows are reordered"),
    ],
    "test_answer_log_probs_match_sampling": [
        (outputs.ScaledAnswerLogProbs, "answer_log_probs returned values that differ .* those of sample_answers"),
    ],
    "test_answer_log_probs_depend_on_question_and_image": [
        (outputs.IgnoredImage, "answer_log_probs ignores the image"),
    ],
    "test_answer_sampling_uses_only_the_generator": [
        (outputs.IgnoredGenerator, "sample_answers uses PyTorch's global random numbers"),
    ],
    "test_answers_do_not_depend_on_the_batch": [
        (outputs.BatchMean, "sample_answers returned .* in a batch|answer_log_probs returned values for answer"),
    ],
    "test_several_questions_per_image": [
        (outputs.InterleavedQuestions, "answer_log_probs returned .* the first k of k x B questions are about"),
    ],
    "test_tokenize_answers_appends_end_of_text": [
        (outputs.LeftPadded, "tokenize_answers returned answers that are not right-padded"),
        (outputs.NoEndOfText, "tokenize_answers returned answers without a common last token"),
    ],
    "test_lengths_count_tokens": [
        (outputs.EndNotCounted, r"answer_lengths returned \[3, 10, 11\] .*, expected the tokens of tokenize_answers"),
        (outputs.LimitWithoutLengths, "prompt_lengths raised TypeError: .*; define it, or give the backbone a"),
    ],
    "test_what_is_longer_than_the_limit_is_cut_off": [
        (
            outputs.CutsNothing,
            "values that differ by .* for prompts that differ only behind 8 tokens",
        ),
    ],
    "test_answers_end_with_an_end_of_text": [
        (outputs.WrongEnd, r"tokenize_answers returned an answer that ends with the token 0, .* eos_token_ids, \[5\]"),
    ],
    "test_padding_has_no_effect": [
        (outputs.PaddingInContext, "answer_log_probs returned values that differ .* with other padding tokens"),
    ],
    "test_sampling_is_without_gradient": [
        (training.SamplesWithGradient, "sample_images returned a tensor with gradient"),
    ],
    "test_image_log_probs_have_gradient": [
        (training.NoImageGradient, "image_log_probs returned log-probabilities without gradient"),
    ],
    "test_answer_log_probs_have_gradient": [
        (training.NoAnswerGradient, "answer_log_probs returned log-probabilities without gradient"),
    ],
    "test_image_tokenizer_is_frozen": [
        (training.TrainableTokenizer, "decode returned .* gradient to 'image_tokenizer.colors'; freeze the image"),
    ],
    "test_straight_through_codes_have_gradient": [
        (training.DetachedSoftCodes, "straight_through returned soft codes without gradient$"),
        (training.LeafSoftCodes, "straight_through returned soft codes without gradient to any trainable parameter"),
        (training.ScaledSoftCodes, "straight_through returned soft codes that differ by .* from one-hot images.codes"),
        (training.AnswersIgnoreSoftCodes, "answer_log_probs has no gradient with respect to images.soft"),
    ],
    "test_decode_passes_gradient_to_straight_through_codes": [
        (outputs.IgnoredSoftCodes, "decode returned pixels of soft codes without gradient"),
    ],
    "test_missing_straight_through_raises_an_error": [
        (training.UnnamedError, "straight_through raised an error with the message 'no'; name the class"),
        (training.UndeclaredStraightThrough, "straight_through returned a value, but supports_straight_through is F"),
    ],
    "test_state_dict_is_complete": [
        (training.IncompleteStateDict, r"a model that loaded state_dict\(\) answers .*, expected"),
    ],
    "test_save_and_load_round_trip": [
        (training.DropsSamplingConfig, "from_pretrained loaded another sampling_config than that of the saved model"),
        (training.LoadsRandomWeights, "from_pretrained loaded 'text_encoder.* and .* more with other values"),
        (training.WritesPickle, "save_pretrained wrote the pickle weights.data"),
    ],
    "test_16_bit_checkpoints_are_loaded_in_float32": [
        (training.KeepsSavedType, "from_pretrained loaded 'text_encoder.* in torch.bfloat16, as it was saved"),
    ],
    "test_16_bit_computation_gives_float32_log_probs": [
        (outputs.HalfLogProbs, "image_log_probs returned log-probabilities of torch.bfloat16 under autocast"),
    ],
    "test_second_build_does_nothing": [
        (training.RebuildsLayers, "build replaced '.*' in a second call"),
    ],
    "test_meta_build_allocates_nothing": [
        (training.WeightsInConstructor, "__init__ created 20 weights"),
        (training.AllocatesOnMeta, r"build\(meta=True\) allocated 'linear.weight'"),
    ],
    "test_blocks_are_in_the_model": [
        (training.NoBlocks, "blocks is empty; name the classes of the repeated layers"),
        (training.WrongBlocks, "blocks has TransformerEncoderLayer, but the built model has no such module"),
    ],
    "test_deepcopy_is_equal_and_independent": [
        (training.SharedCopy, "copy.deepcopy shares weights with the original model"),
    ],
    "test_train_and_eval_mode_agree": [
        (training.Dropout, "(sample_images|image_log_probs) returned .* in train and eval mode; switch dropout off"),
    ],
    "test_methods_do_not_change_the_model": [
        (training.StaysInEvalMode, "sample_images changes train or eval mode of the model"),
        (training.UnfreezesTokenizer, "image_log_probs changes requires_grad of image_tokenizer.colors"),
    ],
    "test_methods_run_on_another_device": [
        (
            devices.ForgottenConstant,
            "sample_images failed on another device .* same device.* register constant ones as",
        ),
        (devices.TokenizesOnCPU, "tokenize_answers returned ids on the CPU, though the model is on another device"),
        (devices.WrongOnAnotherDevice, "image_log_probs returned values that differ by 1 nats on another device"),
    ],
    "test_sampling_images_does_not_wait_for_the_device": [
        (devices.ReadsEachCode, r"in each code or step, 4 times: _local_scalar_dense at .*broken_devices.py:\d+; keep"),
        (devices.CopiesForEachCode, "in each code or step, 4 times: copy to the device at .*broken_devices.py"),
    ],
    "test_answers_wait_at_most_once_per_token": [
        (
            devices.ReadsEachTokenTwice,
            "sample_answers waits for the device more than once for a token: .* more: _local",
        ),
        (devices.ReadsEachAnswer, "sample_answers waits for the device for each answer: 3 times more: tolist at"),
    ],
    SHARDED: [
        (training.RankDependent, "sample_images sharded over 2 processes returned values that differ"),
        (training.TokenizesWithWeights, "sharded over 2 processes failed: .*mixed torch.Tensor and DTensor"),
    ],
}


def failure(kind: type[Backbone], check: str, folder: Path) -> str:
    """Message of a check; empty if it passes or is skipped."""

    class Conformance(BackboneConformance):
        def make(self) -> Backbone:
            backbone = kind()
            backbone.build()
            return backbone

        def make_unbuilt(self) -> Backbone:
            return kind()

    conformance = Conformance()
    method = getattr(conformance, check)
    fixtures = {"backbone": conformance.make, "tmp_path": lambda: folder}
    try:
        method(**{name: fixtures[name]() for name in inspect.signature(method).parameters})
    except AssertionError as error:
        return str(error)
    except pytest.skip.Exception:
        return ""
    return ""


ON_A_DEVICE = (
    "test_methods_run_on_another_device",
    "test_sampling_images_does_not_wait_for_the_device",
    "test_answers_wait_at_most_once_per_token",
)


@pytest.mark.parametrize("check", CASES)
def test_each_check_detects_errors(check: str, tmp_path: Path) -> None:
    if check in ON_A_DEVICE and not is_supported():
        pytest.skip("this PyTorch has no Python backend for PrivateUse1")
    missed = []
    for kind, pattern in CASES[check]:
        message = failure(kind, check, tmp_path / kind.__name__)
        if not re.search(pattern, message):
            missed.append(f"{kind.__name__}: {message or 'the check passed'}, expected {pattern}")
    assert not missed, "\n".join(missed)


def test_every_check_has_an_error_that_it_detects() -> None:
    checks = {name for name, _ in inspect.getmembers(BackboneConformance) if name.startswith("test_")}
    assert checks == CASES.keys()


def test_checks_pass_for_a_correct_backbone(tmp_path: Path) -> None:
    checks = [check for check in CASES if check != SHARDED]  # slow; tests/backbones/test_conformance.py has it
    messages = {check: failure(TinyBackbone, check, tmp_path / check) for check in checks}
    assert not any(messages.values()), messages


class WithoutStraightThrough(TinyBackbone):
    """Does not support `straight_through`, which the contract allows."""

    straight_through = Backbone.straight_through


def test_straight_through_is_optional(tmp_path: Path) -> None:
    checks = [check for check in CASES if "straight_through" in check]
    messages = {check: failure(WithoutStraightThrough, check, tmp_path) for check in checks}
    assert not any(messages.values()), messages


def test_missing_make_is_an_error() -> None:
    with pytest.raises(TypeError, match="BackboneConformance must define how its backbone is made: def make"):
        BackboneConformance().make()


def test_missing_pytest_names_the_extra() -> None:
    code = "import sys; sys.modules['pytest'] = None; import unirl.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "lightning-unirl[test]"' in run.stderr.splitlines()[-1]
