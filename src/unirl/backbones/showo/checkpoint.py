"""Show-o's public checkpoint format: loading, checking and saving."""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM, PreTrainedTokenizerBase

from unirl.backbones.checkpoints import (
    PretrainedModel,
    describe_error,
    load_exactly,
    locate,
    locate_local,
    read_json,
    read_weights,
)
from unirl.backbones.hub import CONFIG_FILES, cached_folder
from unirl.backbones.placeholders import PlaceholderTokenizer
from unirl.backbones.sampling_config import SamplingConfig
from unirl.backbones.showo.tokenizer import Magvit, MagvitConfig
from unirl.errors import UserError, check_whole_number
from unirl.types import ImageSampling

_RESOLUTION = re.compile(r"(?<!\d)(\d+)x\1(?!\d)")
SPECIAL_TOKENS = ("pad", "soi", "eoi", "sov", "eov", "t2i", "mmu", "t2v", "v2v", "lvg")
"""They follow the text ids in this order. The image codes follow them; the mask is the last id."""
IMAGE_MARKS = 3
"""Tokens around the codes of an image: the task's or the end of text, and the image's begin and end."""
WEIGHTS = ("*.safetensors", "*pytorch_model*")
"""Patterns of the files of an image tokenizer; the public one has no config."""
MIN_TEXT_LEN = 3
"""Least `max_text_len`: begin and end of text, and one token of the prompt."""
PREFIX = "showo."
"""Names of the text model's tensors begin with it."""
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
"""Config of microsoft/phi-1_5, the text model of the public checkpoints."""


@dataclass(frozen=True)
class ShowoConfig:
    """The `config.json` of a checkpoint; the defaults are those of the public 256 px model.

    Args:
        vocab_size: All ids: text, special tokens, image codes, mask.
        llm_vocab_size: Text ids.
        llm_model_path: Where the text model's config and tokenizer are: a folder inside the checkpoint, or a hub id.
        codebook_size: Image codes.
        num_vq_tokens: Codes of one image.
        mask_token_id: The last id.
        w_clip_vit: Whether images are understood through a CLIP tower; such checkpoints are refused.
        max_text_len: Longest prompt in tokens, begin and end of text included.
        image_tokenizer: Where the MAGVIT-v2 is: a folder inside the checkpoint, or a hub id.
        llm: The text model's config, for building on the meta device.
        magvit: The image tokenizer's sizes, for the same purpose.
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
        """Codes along one side of the image."""
        return round(self.num_vq_tokens**0.5)

    def special(self, name: str) -> int:
        """Id of a special token, such as "soi"."""
        return self.llm_vocab_size + SPECIAL_TOKENS.index(name)

    def check(self, where: str) -> None:
        """Refuse values that cannot be Show-o's.

        Args:
            where: The checkpoint, for the error message.

        Raises:
            UserError: names the value and what it should be.
        """
        file = f"{where}/config.json"
        for name in ("vocab_size", "llm_vocab_size", "codebook_size", "num_vq_tokens", "mask_token_id"):
            check_whole_number(file, getattr(self, name), name, 1)
        check_whole_number(file, self.max_text_len, "max_text_len", MIN_TEXT_LEN)
        for name in ("llm_model_path", "image_tokenizer"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UserError(f"{file}: {name} is {getattr(self, name)!r}; expected a folder or hub id")
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

    def check_text_len(self, max_position_embeddings: object, where: str) -> None:
        """Refuse prompts for which the text model has no positions before an image.

        Args:
            max_position_embeddings: Of the text model.
            where: The checkpoint, for the error message.

        Raises:
            UserError: `max_text_len` is too large.
        """
        if not isinstance(max_position_embeddings, int):  # transformers' default, or refused by it
            return
        most = max_position_embeddings - self.num_vq_tokens - IMAGE_MARKS
        if most < MIN_TEXT_LEN:
            raise UserError(
                f"{where}: the text model has {max_position_embeddings} positions (max_position_embeddings), too few "
                f"for a prompt and an image of {self.num_vq_tokens} codes (num_vq_tokens); they do not belong together"
            )
        if self.max_text_len > most:
            raise UserError(
                f"{where}: max_text_len {self.max_text_len}; the text model has {max_position_embeddings} positions "
                f"(max_position_embeddings), and an image takes {self.num_vq_tokens + IMAGE_MARKS} of them, so it must "
                f"be from {MIN_TEXT_LEN} to {most}"
            )


PUBLIC = {
    "showlab/show-o": ShowoConfig(llm=PHI_1_5),
    "showlab/show-o-512x512": ShowoConfig(num_vq_tokens=1024, llm=PHI_1_5),
}
"""Configs of public checkpoints, for building on the meta device without their files."""
PUBLIC_SAMPLING = {
    (58498, 256): SamplingConfig(ImageSampling(steps=18, guidance=1.75)),
    (58498, 1024): SamplingConfig(ImageSampling(steps=50, guidance=5.0)),
}
"""The authors' sampling settings of public checkpoints, by `vocab_size` and `num_vq_tokens`."""


def read_config(folder: Path, overrides: dict[str, Any]) -> ShowoConfig:
    """The `config.json` of a checkpoint, checked.

    Args:
        folder: The checkpoint.
        overrides: Values that replace those of the file.

    Raises:
        UserError: a number is missing or cannot be Show-o's.
    """
    values = read_json(folder / "config.json") | overrides
    needed = ("vocab_size", "llm_vocab_size", "llm_model_path", "codebook_size", "num_vq_tokens")
    missing = [name for name in needed if values.get(name) is None]
    if missing:
        raise UserError(f"{folder}/config.json is not Show-o's: {missing[0]} is missing; it needs {', '.join(needed)}")
    names = {f.name for f in dataclasses.fields(ShowoConfig)} - {"llm", "magvit"}
    check_whole_number(f"{folder}/config.json", values["vocab_size"], "vocab_size", 1)
    if values.get("mask_token_id") is None:
        values["mask_token_id"] = values["vocab_size"] - 1
    config = ShowoConfig(**{name: value for name, value in values.items() if name in names and value is not None})
    config.check(str(folder))
    return config


def with_resolution(config: ShowoConfig, name: str, resolution: int | None, stride: int) -> ShowoConfig:
    """The config with as many codes as an image of a resolution has.

    Args:
        config: Of the checkpoint.
        name: A folder or hub id; "512x512" in it says the resolution of its images.
        resolution: Pixels of a side; None takes the config's number of codes.
        stride: Pixels of a code, along one side.

    Raises:
        UserError: the resolution is no multiple of the stride; or none is given, and config and name differ.

    Example:
        >>> with_resolution(ShowoConfig(num_vq_tokens=256), "showlab/show-o-512x512", 512, 16).num_vq_tokens
        1024
    """
    if resolution is not None:
        if resolution < stride or resolution % stride:
            raise UserError(f"Show-o: resolution {resolution}; it must be a multiple of {stride}, the size of a code")
        return dataclasses.replace(config, num_vq_tokens=(resolution // stride) ** 2)
    own, said = config.side * stride, _RESOLUTION.search(Path(name).name)
    if said is not None and int(said[1]) != own:
        codes = (int(said[1]) // stride) ** 2
        raise UserError(
            f"{name}: config.json's num_vq_tokens {config.num_vq_tokens} makes images of {own}x{own} px, and the name "
            f"says {said[0]}, which is {codes} codes; set the backbone's resolution to {said[1]}, or to {own} if the "
            "config is right"
        )
    return config


def parts(config: ShowoConfig) -> tuple[str, ...]:
    """Folders inside a checkpoint that are read, where they are there.

    Args:
        config: Of the checkpoint.
    """
    return "tokenizer", config.llm_model_path, config.image_tokenizer


def pretrained_models(checkpoint: str, overrides: dict[str, Any]) -> tuple[PretrainedModel, ...]:
    """A checkpoint, and the text model's config and the image tokenizer where they are not inside of it.

    Args:
        checkpoint: As for `Showo`.
        overrides: As for `read_config`.
    """
    own = PretrainedModel(checkpoint)
    try:
        folder = locate_local(checkpoint) or cached_folder(checkpoint)
        config = PUBLIC.get(checkpoint) if folder is None else read_config(folder, overrides)
    except UserError:  # the doctor tells what is wrong with it
        return (own,)
    if config is None:
        return (own,)
    config = dataclasses.replace(config, **overrides)
    others = (PretrainedModel(config.llm_model_path, CONFIG_FILES), PretrainedModel(config.image_tokenizer, WEIGHTS))
    return (own, *(one for one in others if folder is None or not (folder / one.name).is_dir()))


def build_text_model(config: ShowoConfig, llm: dict[str, Any]) -> PhiForCausalLM:
    """Phi with Show-o's vocabulary and query-key norms, randomly initialized.

    Args:
        config: The vocabulary.
        llm: The text model's config.
    """
    settings = {name: value for name, value in llm.items() if name not in ("model_type", "architectures", "dtype")}
    settings |= {"vocab_size": config.vocab_size, "qk_layernorm": True, "tie_word_embeddings": False}
    if settings.get("hidden_act", "gelu_new") == "gelu_new":
        settings["hidden_act"] = "gelu_pytorch_tanh"  # the same function in one kernel
    settings["attn_implementation"] = "sdpa"  # takes boolean masks
    return PhiForCausalLM(PhiConfig(**settings))


def build_text_model_on_meta(config: ShowoConfig, llm: dict[str, Any], where: Path | str) -> PhiForCausalLM:
    """The same on the meta device.

    Args:
        config: The vocabulary.
        llm: The text model's config.
        where: The checkpoint, for the error message.

    Raises:
        UserError: no model can be built of this config.
    """
    try:
        with torch.device("meta"):
            return build_text_model(config, llm)
    except Exception as error:  # transformers and torch raise errors of many types
        raise UserError(
            f"{where}: no text model can be built of the config.json of {config.llm_model_path} "
            f"({describe_error(error)})"
        ) from None


def load_text_model(folder: Path, config: ShowoConfig) -> PhiForCausalLM:
    """Phi with the checkpoint's weights."""
    llm = read_json(locate(config.llm_model_path, inside=folder, files=CONFIG_FILES) / "config.json")
    config.check_text_len(llm.get("max_position_embeddings"), str(folder))
    weights = {n.removeprefix(PREFIX): w for n, w in read_weights(folder).items() if n.startswith(PREFIX)}
    model = build_text_model_on_meta(config, llm, folder)
    load_exactly(model, weights, folder)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # its buffers are not in the checkpoint
    return model


def load_tokenizer(folder: Path, config: ShowoConfig) -> PreTrainedTokenizerBase:
    """The text tokenizer: the checkpoint's own folder `tokenizer`, or the text model's."""
    own = folder / "tokenizer"
    where = own if own.is_dir() else locate(config.llm_model_path, inside=folder, files=CONFIG_FILES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(
            f"{where}: no tokenizer can be read ({describe_error(error)}); download or save it again"
        ) from None
    if tokenizer.eos_token_id is None or len(tokenizer) > config.llm_vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} ids and end-of-text {tokenizer.eos_token_id}; the "
            f"checkpoint has room for {config.llm_vocab_size} text ids and needs an end-of-text. It belongs to "
            "another checkpoint"
        )
    return tokenizer


def read_magvit_config(folder: Path, codebook_size: int) -> MagvitConfig:
    """Sizes of the MAGVIT-v2 of a folder: the public ones, or those of its `config.json`."""
    settings = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    names = {f.name for f in dataclasses.fields(MagvitConfig)}
    own: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items() if n in names}
    config = MagvitConfig(**own)
    _check_magvit(config, folder / "config.json")
    if 2**config.z_channels != codebook_size:
        raise UserError(f"{folder}: {config.z_channels} bits make {2**config.z_channels} codes, not {codebook_size}")
    return config


def _check_magvit(config: MagvitConfig, file: Path) -> None:
    for name in ("ch", "z_channels", "groups"):
        check_whole_number(str(file), getattr(config, name), name, 1)
    for name in ("encoder_ch_mult", "decoder_ch_mult", "encoder_blocks", "decoder_blocks"):
        values = getattr(config, name)
        if not isinstance(values, tuple) or not values:
            raise UserError(f"{file}: {name} is {values!r}; expected a list of whole numbers")
        for index, value in enumerate(values):
            check_whole_number(str(file), value, f"{name}[{index}]", 1)


def load_image_tokenizer(folder: Path, codebook_size: int) -> Magvit:
    """The MAGVIT-v2 of a folder."""
    config = read_magvit_config(folder, codebook_size)
    with torch.device("meta"):
        magvit = Magvit(config)
    load_exactly(magvit, read_weights(folder), folder, ignore=("quantize.",))
    return magvit


def meta_config(name: str, overrides: dict[str, Any], resolution: int | None = None) -> tuple[ShowoConfig, Any]:
    """Config and tokenizer of a local or a known public checkpoint, for building on the meta device.

    The tokenizer of a public checkpoint is a placeholder.

    Raises:
        UserError: the checkpoint is neither, or its configs are broken.
    """
    if name in PUBLIC:
        config = with_resolution(PUBLIC[name], name, resolution, PUBLIC[name].magvit.stride)
        return dataclasses.replace(config, **overrides), PlaceholderTokenizer()
    folder = locate_local(name)
    if folder is None:
        raise UserError(f"sizes of {name!r} are not known without its files; known: {', '.join(PUBLIC)}")
    config = read_config(folder, overrides)
    llm = read_json(locate(config.llm_model_path, inside=folder, files=["*.json"]) / "config.json")
    config.check_text_len(llm.get("max_position_embeddings"), str(folder))
    image_tokenizer = locate(config.image_tokenizer, inside=folder, files=["*.json"])
    magvit = read_magvit_config(image_tokenizer, config.codebook_size)
    config = with_resolution(dataclasses.replace(config, llm=llm, magvit=magvit), name, resolution, magvit.stride)
    return config, load_tokenizer(folder, config)


def save_checkpoint(
    folder: Path, config: ShowoConfig, text_model: PhiForCausalLM, magvit: Magvit, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write a self-contained checkpoint: text model, its config, tokenizer and image tokenizer."""
    (folder / "llm").mkdir(parents=True, exist_ok=True)
    (folder / "image_tokenizer").mkdir(exist_ok=True)
    own = dataclasses.replace(config, llm_model_path="llm", image_tokenizer="image_tokenizer")
    values = {n: v for n, v in dataclasses.asdict(own).items() if n not in ("llm", "magvit")}
    _write_json(folder / "config.json", {"_class_name": "Showo", **values})
    state = {PREFIX + name: tensor.contiguous() for name, tensor in text_model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    llm = text_model.config.to_diff_dict()
    llm |= {"vocab_size": config.llm_vocab_size, "hidden_act": "gelu_new"}
    _write_json(folder / "llm" / "config.json", llm)
    _write_json(folder / "image_tokenizer" / "config.json", dataclasses.asdict(magvit.config))
    state = {name: tensor.contiguous() for name, tensor in magvit.state_dict().items()}
    save_file(state, folder / "image_tokenizer" / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder / "tokenizer")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
