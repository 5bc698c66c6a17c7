"""The shapes world for lightning-unirl: prompts, rendered images, a judge that reads pixels, and tiny models."""
