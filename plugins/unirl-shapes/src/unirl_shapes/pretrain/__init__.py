"""How the shipped checkpoints were made: `unirl-shapes pretrain`."""
