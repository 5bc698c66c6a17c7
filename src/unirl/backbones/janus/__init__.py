"""Janus: codes drawn one after another, pictures seen through SigLIP, one language model for both."""

from unirl.backbones.janus.backbone import Janus

__all__ = ["Janus"]
