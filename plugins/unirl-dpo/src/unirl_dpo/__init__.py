"""Update rules for lightning-unirl: DPO on pairs of the model's own images, and best-of-n fine-tuning."""
