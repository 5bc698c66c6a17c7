"""Show-o: masked decoding over MAGVIT-v2 codes, one transformer for generation and understanding."""

from unirl.backbones.showo.backbone import Showo
from unirl.backbones.showo.checkpoint import ShowoConfig, build_text_model, save_checkpoint
from unirl.backbones.showo.tokenizer import Magvit, MagvitConfig, codes_to_bits

__all__ = [
    "Magvit",
    "MagvitConfig",
    "Showo",
    "ShowoConfig",
    "build_text_model",
    "codes_to_bits",
    "save_checkpoint",
]
