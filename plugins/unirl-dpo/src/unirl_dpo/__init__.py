"""Update rules for unirl: DPO on the model's own pairs, and best-of-n fine-tuning."""
