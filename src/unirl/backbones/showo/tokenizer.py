"""MAGVIT-v2, Show-o's image tokenizer, with lookup-free quantization (Yu et al. 2023, arXiv 2310.05737)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override


def bits_to_codes(bits: Tensor) -> Tensor:
    """Integer codes from sign bits, most significant first.

    Args:
        bits: True where the channel is positive.

    Shapes:
        bits (B, Z, H, W) bool; returns (B, H, W) int64 in [0, 2 ** Z).

    Example:
        >>> bits_to_codes(torch.tensor([True, False, True]).view(1, 3, 1, 1)).item()
        5
    """
    powers = 2 ** torch.arange(bits.shape[1] - 1, -1, -1, device=bits.device)
    return (bits * powers.view(1, -1, 1, 1)).sum(1)


def codes_to_bits(codes: Tensor, z_channels: int) -> Tensor:
    """Values -1 and +1 from integer codes, most significant bit first.

    Shapes:
        codes (B, H, W); returns (B, Z, H, W) float32.

    Example:
        >>> codes_to_bits(torch.tensor([[[5]]]), 3).flatten().tolist()
        [1.0, -1.0, 1.0]
    """
    shifts = torch.arange(z_channels - 1, -1, -1, device=codes.device).view(1, -1, 1, 1)
    return ((codes.unsqueeze(1) >> shifts) & 1).float() * 2 - 1


@dataclass(frozen=True)
class MagvitConfig:
    """Sizes of the tokenizer; the defaults are the public checkpoint's.

    Args:
        ch: Base width.
        encoder_ch_mult: Width of each encoder level, in units of `ch`; each level but the last halves the image.
        decoder_ch_mult: Width of each decoder level.
        encoder_blocks: Residual blocks of each encoder level.
        decoder_blocks: Residual blocks of each decoder level.
        z_channels: Bits of a code; the codebook has `2 ** z_channels` entries.
        groups: Groups of every GroupNorm.
    """

    ch: int = 128
    encoder_ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4)
    decoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    encoder_blocks: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_blocks: tuple[int, ...] = (4, 4, 3, 4, 3)
    z_channels: int = 13
    groups: int = 32

    @property
    def stride(self) -> int:
        """Pixels per code, along one side."""
        return 2 ** (len(self.encoder_ch_mult) - 1)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, width_in: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=1e-6)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if width_in != width:
            self.nin_shortcut = nn.Conv2d(width_in, width, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Self-attention over all positions of a feature map."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))  # (B, HW, C)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(h)


class Middle(nn.Module):
    """The blocks of the lowest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(width, width, groups)
        self.attn_1 = AttnBlock(width, groups)
        self.block_2 = ResBlock(width, width, groups)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Halves the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # the asymmetric padding of the public checkpoint


class Upsample(nn.Module):
    """Doubles the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution, and the change to the next."""

    def __init__(self, width_in: int, width: int, blocks: int, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(width_in if i == 0 else width, width, groups) for i in range(blocks))

    @override
    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for resample in ("downsample", "upsample"):
            if hasattr(self, resample):
                x = getattr(self, resample)(x)
        return x


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to features (B, Z, h, w), whose signs are the codes' bits."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.ch, *(config.ch * m for m in config.encoder_ch_mult)]
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, blocks in enumerate(config.encoder_blocks):
            level = Level(widths[i], widths[i + 1], blocks, config.groups)
            if i < len(config.encoder_blocks) - 1:
                level.downsample = Downsample(widths[i + 1])
            self.down.append(level)
        self.mid = Middle(widths[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(h)))))


class Decoder(nn.Module):
    """Bits (B, Z, h, w) to pixels (B, 3, H, W)."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.decoder_ch_mult]
        top = len(widths) - 1
        self.post_quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)
        self.conv_in = nn.Conv2d(config.z_channels, widths[top], 3, padding=1)
        self.mid = Middle(widths[top], config.groups)
        self.up = nn.ModuleList()
        for i, blocks in enumerate(config.decoder_blocks):
            level = Level(widths[min(i + 1, top)], widths[i], blocks, config.groups)
            if i > 0:
                level.upsample = Upsample(widths[i])
            self.up.append(level)
        self.norm_out = nn.GroupNorm(config.groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    @override
    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(self.post_quant_conv(z)))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Magvit(nn.Module):
    """Pixels in [-1, 1] to codes and back.

    Example:
        >>> small = MagvitConfig(16, (1, 1), (1, 1), (1, 1), (1, 1), z_channels=4, groups=4)
        >>> Magvit(small).encode(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes (B, H/stride, W/stride) of pixels (B, 3, H, W) in [-1, 1]."""
        return bits_to_codes(self.encoder(pixels.to(self.encoder.conv_in.weight.dtype)) > 0)

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), about [-1, 1], of codes (B, h, w)."""
        return self.decoder(codes_to_bits(codes, self.config.z_channels).to(self.decoder.conv_in.weight.dtype))

    def decode_soft(self, soft: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of soft codes (B, h, w, K), with gradient."""
        table = codes_to_bits(torch.arange(soft.shape[-1], device=soft.device)[None, None], self.config.z_channels)
        bits = (soft @ table[0, :, 0].T.to(soft.dtype)).permute(0, 3, 1, 2)
        return self.decoder(bits.to(self.decoder.conv_in.weight.dtype))
