"""Small random Janus checkpoints in the format of Janus's authors."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration

NAMES = json.loads((Path(__file__).parents[2] / "fixtures/janus_authors/names.json").read_text())
"""Names of transformers by those of the authors, for two layers of language model and tower, and three levels of the
image tokenizer; one name, three for a tensor that holds three, none for a tensor that nobody reads."""
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
SIZE, WIDTH, TOWER, CODES, CODE_WIDTH = 16, 32, 32, 40, 8
"""Side of the images, widths of language model and tower, codebook."""
SENTENCES = ["User: a photo of two red circles\n\nAssistant: red", "what color is it? how many squares are there?"]


def tokenizer(pro: bool) -> Tokenizer:
    """Byte pairs, which begin no text with BOS themselves; `pad_token` of `pro` is not the token that pads prompts."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    )
    first = ["<|pad|>", "<image_placeholder>", "<|User|>", "<|Assistant|>"] if pro else []
    special = [*first, BOS, EOS, PAD, "<begin_of_image>", "<end_of_image>"]
    pairs.add_special_tokens([AddedToken(token, special=True) for token in special])
    return pairs


def config(vocab_size: int) -> dict[str, Any]:
    """The authors' `config.json`."""

    def part(cls: str, **params: object) -> dict[str, object]:
        return {"cls": cls, "params": params}

    mlp = {"depth": 2, "n_embed": WIDTH, "projector_type": "mlp_gelu"}
    text = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 2, "vocab_size": vocab_size, "max_position_embeddings": 512}
    text |= {"model_type": "llama", "torch_dtype": "bfloat16", "_attn_implementation": "flash_attention_2"}
    tower = {"image_size": SIZE, "model_name": "siglip_large_patch16_384"}
    head = {"n_embed": WIDTH, "image_token_embed": WIDTH, "image_token_size": CODES}
    return {
        "model_type": "multi_modality",
        "language_config": text,
        "vision_config": part("CLIPVisionTower", select_layer=-1, select_feature="same", **tower),
        "aligner_config": part("MlpProjector", input_dim=TOWER, **mlp),
        "gen_vision_config": part("VQ-16", image_token_size=CODES, n_embed=CODE_WIDTH),
        "gen_aligner_config": part("MlpProjector", input_dim=CODE_WIDTH, **mlp),
        "gen_head_config": part("vision_head", **head),
    }


def transformers_model(vocab_size: int, tied: bool, seed: int) -> JanusForConditionalGeneration:
    """The same model as transformers builds it, of weights that 16 bits can hold."""
    torch.manual_seed(seed)
    text = {name: value for name, value in config(vocab_size)["language_config"].items() if name[0] != "_"}
    del text["torch_dtype"]
    vision = {"hidden_size": TOWER, "num_hidden_layers": 2, "num_attention_heads": 16, "image_size": SIZE}
    vision |= {"patch_size": 4, "projection_dim": WIDTH, "num_image_tokens": 16}
    vq = {"embed_dim": CODE_WIDTH, "num_embeddings": CODES, "latent_channels": 32, "base_channels": 32}
    vq |= {"channel_multiplier": [1, 1, 2], "projection_dim": WIDTH, "image_token_embed_dim": WIDTH}
    model = JanusForConditionalGeneration(
        JanusConfig(text_config=text, vision_config=vision, vq_config=vq, tie_word_embeddings=tied)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # sharp distributions: nothing is as likely as anything else
                parameter.normal_(std=1.0 if "embed" in name else 1.5 * parameter[0].numel() ** -0.5)
            parameter.copy_(parameter.bfloat16())
    return model.eval()


def authors_tensors(model: JanusForConditionalGeneration) -> dict[str, Tensor]:
    """The tensors of a model as the authors name and shape them."""
    state, tensors = model.state_dict(), {}
    for name, there in NAMES.items():
        if not there:
            tensors[name] = torch.zeros(8)
        else:
            parts = [state[one] for one in ([there] if isinstance(there, str) else there)]
            tensor = torch.cat(parts)[None] if name.endswith("pos_embed") else torch.cat(parts)
            tensors[name] = tensor.bfloat16().contiguous()
    return tensors


def save_tensors(folder: Path, tensors: dict[str, Tensor], layout: str) -> None:
    """Weights as `safetensors` or `bin`, in one file or, with `sharded` before it, in two with an index."""
    suffix, name = ("safetensors", "model") if layout.endswith("safetensors") else ("bin", "pytorch_model")

    def write(part: dict[str, Tensor], file: str) -> None:
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file)

    if not layout.startswith("sharded"):
        return write(tensors, f"{name}.{suffix}")
    files = [f"{name}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    where = {tensor: files[i % 2] for i, tensor in enumerate(tensors)}
    for file in files:
        write({tensor: tensors[tensor] for tensor in tensors if where[tensor] == file}, file)
    (folder / f"{name}.{suffix}.index.json").write_text(json.dumps({"weight_map": where}))


def save(
    folder: Path,
    pro: bool = False,
    layout: str = "safetensors",
    tied: bool = False,
    do_normalize: bool = True,
    seed: int = 0,
) -> JanusForConditionalGeneration:
    """Write a checkpoint; returns the model of transformers that it holds.

    Args:
        folder: Where.
        pro: Tokens and roles of Janus-Pro, not those of Janus-1.3B.
        layout: As for `save_tensors`.
        tied: Whether `config.json` ties the text head to the embedding, which the weights then leave out.
        do_normalize: Of `preprocessor_config.json`.
        seed: Of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs = tokenizer(pro)
    pairs.save(str(folder / "tokenizer.json"))
    vocab_size = pairs.get_vocab_size() + 3
    model = transformers_model(vocab_size, tied, seed)
    tensors, values = authors_tensors(model), config(vocab_size)
    if tied:
        values["language_config"]["tie_word_embeddings"] = True
        del tensors["language_model.lm_head.weight"]
    save_tensors(folder, tensors, layout)
    pixels = {"image_size": SIZE, "min_size": 5, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    tokens = {"bos_token": BOS, "eos_token": EOS, "pad_token": "<|pad|>" if pro else PAD}
    files: dict[str, dict[str, object]] = {
        "config.json": values,
        "preprocessor_config.json": pixels
        | {"do_normalize": do_normalize, "image_processor_type": "VLMImageProcessor"},
        "processor_config.json": {"sft_format": "deepseek", "num_image_tokens": 16, "image_tag": "<image_placeholder>"},
        "tokenizer_config.json": tokens | {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return model
