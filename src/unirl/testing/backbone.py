"""The conformance class of backbones."""

from unirl.testing.backbone_answering import AnsweringChecks
from unirl.testing.backbone_drawing import DrawingChecks
from unirl.testing.backbone_gradients import GradientChecks
from unirl.testing.backbone_saving import SavingChecks
from unirl.testing.backbone_shapes import ShapeChecks
from unirl.testing.backbone_sharding import ShardingChecks
from unirl.testing.backbone_state import StateChecks


class BackboneConformance(
    ShapeChecks, DrawingChecks, AnsweringChecks, GradientChecks, SavingChecks, StateChecks, ShardingChecks
):
    """Everything that the contract of a backbone promises, as pytest checks. Derive from it and say how yours is made.

    A check that fails names the method at fault and what is wrong with it, in one sentence. The one that takes
    seconds starts two processes: `pytest -k "not sharded"` leaves it out.

    Attributes:
        prompts: What is drawn: three or more different ones, of different lengths, in words that the model knows.
        questions: What is asked, as many as there are prompts.
        answers: Given answers, as many, different ones, in words that the model can write.
        sampling: How to draw; its guidance (0 where the model has none) and temperature are checked beside 0 and 1.
        answering: How to answer.
        tolerance: How far log-probabilities of the same decision may differ, nats.
        frozen: Parts of the names of parameters that are never trained, such as "image_tokenizer".

    Example:
        >>> class TestTable(BackboneConformance):
        ...     frozen = ("image_tokenizer",)
        ...
        ...     def make(self):
        ...         backbone = TableBackbone()
        ...         backbone.build()
        ...         return backbone
    """
