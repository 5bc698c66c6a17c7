"""Lightning's messages and warnings that users can do nothing about."""

import logging
import warnings

from unirl.output import plain_warnings

IGNORED_WARNINGS = (
    "does not have many workers",  # prompts are made in the training process
    "Tip: For seamless",
    "Detected KeyboardInterrupt",
    "`max_epochs` was not set",
    "treespec, LeafSpec",
    "The dirpath has changed",
    "accumulate the metric across devices",  # torchmetrics does
    "module.s. in eval mode",  # the image tokenizer is frozen
    "TPU available: False",
    "to estimate number of stepping batches",
    "already configured with model summary",
    "weights_only` was not set",
    "predict returned None",
    "Total length of `DataLoader` across ranks is zero",  # said before the run
)
"""Parts of Lightning's messages that users can do nothing about."""


def silence_lightning() -> None:
    """Leave them out of the output of this process, and print warnings as lines."""
    plain_warnings()
    for text in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", f".*{text}.*")
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: not any(text in record.getMessage() for text in IGNORED_WARNINGS))
