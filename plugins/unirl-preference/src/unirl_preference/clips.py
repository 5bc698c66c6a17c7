"""CLIPs that were fine-tuned on which of two pictures people preferred."""

from collections.abc import Sequence

from torch import Tensor

from unirl.rewards.clip import CLIP


class PickScore(CLIP):
    """PickScore: `exp(logit_scale) * cosine` under a ViT-H/14 CLIP that learnt from 500,000 preferences.

    It says which of two drawings of one prompt people would rather have; whether a drawing is right it does not say.
    Weights are read from safetensors only.

    Args:
        model: A hub id, a folder, or `package:folder`, in the format of transformers' `CLIPModel`.
        low: PickScore that counts as 0.
        high: PickScore that counts as 1. Keep them wide: drawings below `low` are all alike, and so are those above
            `high`, so nothing is learnt there.
        batch: Pictures at a time.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least score, calibrated, with which it accepts a drawing; None gives no verdict.
        processor: Where tokenizer and image processor are, where not beside the model.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Kirstain et al. 2023 (arXiv 2305.01569), section 3.

    Example:
        >>> PickScore(high=30.0).high
        30.0
    """

    safetensors_only = True

    def __init__(
        self,
        model: str = "yuvalkirstain/PickScore_v1",
        low: float = 16.0,
        high: float = 26.0,
        batch: int = 32,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
        processor: str | None = None,
    ) -> None:
        super().__init__(model, low, high, batch, weight, standardize, accept_threshold, processor)

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """PickScores, as the authors' `calc_probs` has them before the softmax.

        Shapes:
            pixels (B, 3, H, W); returns (B,).
        """
        cosines = super().measure(prompts, pixels)
        return self.loaded.model.logit_scale.exp() * cosines


class HPSv2(CLIP):
    """Human Preference Score v2 and its kind: the cosine under a CLIP that learnt from rankings.

    There is no default model, for the authors publish pickles of open_clip only (`xswu/HPSv2`), which are not read.
    The README says what there is. Weights are read from safetensors only.

    Args:
        model: A hub id, a folder, or `package:folder`, in the format of transformers' `CLIPModel`.
        low: Cosine that counts as 0.
        high: Cosine that counts as 1. The authors' table goes from 0.236 (GLIDE) to 0.279 (Dreamlike Photoreal 2.0).
        batch: Pictures at a time.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least score, calibrated, with which it accepts a drawing; None gives no verdict.
        processor: Where tokenizer and image processor are, where not beside the model.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Wu et al. 2023 (arXiv 2306.09341); `hpsv2/img_score.py` of its public code.

    Example:
        >>> HPSv2("my/hpsv2").low
        0.2
    """

    safetensors_only = True
    hint = "; the authors' .pt files are not read: give a CLIPModel in safetensors, see the README of unirl-preference"

    def __init__(
        self,
        model: str,
        low: float = 0.2,
        high: float = 0.35,
        batch: int = 32,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
        processor: str | None = None,
    ) -> None:
        super().__init__(model, low, high, batch, weight, standardize, accept_threshold, processor)
