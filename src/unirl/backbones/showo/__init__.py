"""Show-o: masked decoding over MAGVIT-v2 codes, one transformer for drawing and answering."""

from unirl.backbones.showo.backbone import Showo
from unirl.backbones.showo.checkpoint import ShowoConfig
from unirl.backbones.showo.tokenizer import Magvit, MagvitConfig

__all__ = ["Magvit", "MagvitConfig", "Showo", "ShowoConfig"]
