"""Sizes and ids of a Show-o checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from unirl.backbones.showo.magvit import MagvitConfig
from unirl.errors import UserError

SPECIAL_TOKENS = ("pad", "soi", "eoi", "sov", "eov", "t2i", "mmu", "t2v", "v2v", "lvg")
"""They follow the text ids in this order; the image codes follow them; the mask is the last id."""

PHI_1_5: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000.0,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}


@dataclass(frozen=True)
class ShowoConfig:
    """What a checkpoint's `config.json` says; the defaults are the public 256 px model's.

    Args:
        vocab_size: All ids: text, special tokens, image codes, mask.
        llm_vocab_size: Text ids.
        llm_model_path: Where the text model's config and tokenizer are: a folder inside the checkpoint, or a hub id.
        codebook_size: Image codes.
        num_vq_tokens: Codes of one picture.
        mask_token_id: The last id.
        w_clip_vit: Whether understanding looks through a CLIP tower; such checkpoints are refused.
        max_text_len: Longest prompt in tokens, its begin and end marks included.
        image_tokenizer: Where the MAGVIT-v2 is: a folder inside the checkpoint, or a hub id.
        llm: Overrides of the text model's config, for a model that is built before its files are here.
        magvit: Sizes of the image tokenizer, for the same purpose.
    """

    vocab_size: int = 58498
    llm_vocab_size: int = 50295
    llm_model_path: str = "microsoft/phi-1_5"
    codebook_size: int = 8192
    num_vq_tokens: int = 256
    mask_token_id: int = 58497
    w_clip_vit: bool = False
    max_text_len: int = 128
    image_tokenizer: str = "showlab/magvitv2"
    llm: dict[str, Any] = field(default_factory=dict, compare=False)
    magvit: MagvitConfig = field(default_factory=MagvitConfig, compare=False)

    @property
    def code_start(self) -> int:
        """Id of image code 0."""
        return self.llm_vocab_size + len(SPECIAL_TOKENS)

    @property
    def side(self) -> int:
        """Codes along one side of the picture."""
        return round(self.num_vq_tokens**0.5)

    def special(self, name: str) -> int:
        """Id of a special token, such as "soi"."""
        return self.llm_vocab_size + SPECIAL_TOKENS.index(name)

    def check(self, where: str) -> None:
        """Refuse a checkpoint whose numbers cannot be Show-o's.

        Raises:
            UserError: naming the checkpoint, the number and what it should be.
        """
        expected = self.code_start + self.codebook_size + 1
        if self.vocab_size != expected or self.mask_token_id != self.vocab_size - 1:
            raise UserError(
                f"{where}: vocab_size {self.vocab_size} with mask_token_id {self.mask_token_id} is not Show-o's: "
                f"{self.llm_vocab_size} text ids + {len(SPECIAL_TOKENS)} special + {self.codebook_size} codes + 1 mask "
                f"make {expected}, the mask being the last id. Check config.json"
            )
        if self.w_clip_vit:
            raise UserError(f"{where}: w_clip_vit checkpoints are not supported; use one with w_clip_vit: false")
        if self.side**2 != self.num_vq_tokens:
            raise UserError(f"{where}: num_vq_tokens {self.num_vq_tokens} is not a square number; check config.json")


PUBLIC = {
    "showlab/show-o": ShowoConfig(llm=PHI_1_5),
    "showlab/show-o-512x512": ShowoConfig(num_vq_tokens=1024, llm=PHI_1_5),
}
"""Known public checkpoints: what to build when their files are not at hand (meta device only)."""
