"""GenEval and GenEval2 for lightning-unirl, on transformers alone."""
