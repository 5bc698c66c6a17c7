"""Janus: autoregressive image codes, images understood through SigLIP, one language model for both."""

from unirl.backbones.janus.backbone import Janus
from unirl.backbones.janus.checkpoint import save_checkpoint

__all__ = ["Janus", "save_checkpoint"]
