"""A small world of shapes for unirl: prompts, renderings and a judge that reads pixels."""
