"""Pre-training of the shipped checkpoints: `unirl-shapes pretrain`."""
