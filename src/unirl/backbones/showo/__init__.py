"""Show-o: masked decoding over MAGVIT-v2 codes, one transformer for drawing and answering."""

from unirl.backbones.showo.config import ShowoConfig
from unirl.backbones.showo.magvit import Magvit, MagvitConfig
from unirl.backbones.showo.showo import Showo

__all__ = ["Magvit", "MagvitConfig", "Showo", "ShowoConfig"]
