"""The processor of a Janus in its authors' format: tokenizer, conversation template and image sizes.

What the authors' code does: `VLChatProcessor`, `VLMImageProcessor` and the conversation "deepseek" of
https://github.com/deepseek-ai/Janus.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    JanusImageProcessor,
    JanusProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from unirl.backbones.checkpoints import describe_error, quietly, read_json
from unirl.errors import UserError

IMAGE_START, IMAGE_END, PAD = "<begin_of_image>", "<end_of_image>", "<｜▁pad▁｜>"
"""Tokens that the authors' code looks up by their text. `PAD` stands for the prompt in the unconditional half of
guidance, whatever `pad_token` is in the tokenizer's files."""
ROLES = ("User", "Assistant")
"""Of Janus; those of Janus-Pro are tokens, such as `<|User|>`."""
TEMPLATE = """\
{%- for message in messages -%}
{%- set turn = namespace(text='') -%}
{%- if message['content'] is string -%}
{%- set turn.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{%- set turn.text = turn.text + 'IMAGE_TOKEN\\n' -%}
{%- else -%}
{%- set turn.text = turn.text + part['text'] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set user = message['role'] == 'user' -%}
{{- 'USER_ROLE:' if user else 'ASSISTANT_ROLE:' -}}
{%- if turn.text | trim -%}
{{- ' ' + turn.text | trim + ('\\n\\n' if user else 'END_OF_TEXT') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- 'ASSISTANT_ROLE:' -}}
{%- endif -%}
"""
"""A turn is `ROLE: text`, and `ROLE:` where the text is blank; two line breaks end the user's, the end of text ends
the assistant's."""


def load_processor(folder: Path) -> JanusProcessor:
    """The processor of a folder, as one of transformers' that saves and loads there.

    Its `do_normalize` is that of `preprocessor_config.json`.

    Raises:
        UserError: a file, a value or a token is missing.
    """
    values, pixels = read_json(folder / "processor_config.json"), read_json(folder / "preprocessor_config.json")
    if values.get("sft_format", "deepseek") != "deepseek":
        got = f"processor_config.json has sft_format {values['sft_format']!r}"
        raise UserError(f"{folder}: {got}; that of Janus and Janus-Pro is 'deepseek'")
    tokenizer = load_tokenizer(folder, values.get("image_tag", "<image_placeholder>"))
    vocabulary = tokenizer.get_vocab()
    user, assistant = (f"<|{role}|>" if "<|User|>" in vocabulary else role for role in ROLES)
    replaced = {"IMAGE_TOKEN": tokenizer.image_token, "END_OF_TEXT": tokenizer.eos_token}
    template = TEMPLATE
    for mark, text in (replaced | {"USER_ROLE": user, "ASSISTANT_ROLE": assistant}).items():
        template = template.replace(mark, text)
    return JanusProcessor(
        image_processor(pixels, folder),
        tokenizer,
        chat_template=template,
        use_default_system_prompt=True,
        num_image_tokens=values.get("num_image_tokens", 576),
    )


def load_tokenizer(folder: Path, image_token: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, which begins each text with the begin of text.

    Args:
        folder: The checkpoint.
        image_token: Stands for an image in a text. It is added where the vocabulary lacks it, as in Janus-1.3B.

    Raises:
        UserError: it cannot be read, or lacks a token that the authors' code needs.
    """
    file = folder / "tokenizer.json"
    for needed in (file, folder / "tokenizer_config.json"):
        read_json(needed)
    marks = {"image_token": image_token, "boi_token": IMAGE_START, "eoi_token": IMAGE_END}
    options: dict[str, Any] = {"add_bos_token": True, "extra_special_tokens": marks}
    try:
        known = Tokenizer.from_file(str(file))
        # not LlamaTokenizerFast, which the files name: what transformers 5 makes of it drops blanks
        tokenizer = quietly(PreTrainedTokenizerFast.from_pretrained, folder, **options)
    except Exception as error:
        cause = describe_error(error)
        raise UserError(f"{folder}: no tokenizer can be read ({cause}); download the checkpoint again") from None
    for token in (IMAGE_START, IMAGE_END, PAD):
        if known.token_to_id(token) is None:
            raise UserError(f"{folder}: tokenizer.json has no token {token!r}, which Janus needs; wrong checkpoint?")
    for name in ("bos_token", "eos_token"):
        if getattr(tokenizer, name) is None or known.token_to_id(getattr(tokenizer, name)) is None:
            got = f"tokenizer_config.json has {name} {getattr(tokenizer, name)!r}"
            raise UserError(f"{folder}: {got}, which is no token of tokenizer.json; download the checkpoint again")
    return tokenizer


def generation_config(processor: JanusProcessor) -> GenerationConfig:
    """The ids that the authors' code uses, as a generation config of transformers.

    Args:
        processor: Returned by `load_processor`.
    """
    tokenizer = processor.tokenizer
    start = {"boi_token_id": tokenizer.convert_tokens_to_ids(IMAGE_START)}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    pad = tokenizer.convert_tokens_to_ids(PAD)
    return GenerationConfig(**ids, pad_token_id=pad, guidance_scale=5, generation_kwargs=start)


def image_processor(values: dict[str, Any], folder: Path) -> JanusImageProcessor:
    """An image processor of transformers with the values of a `preprocessor_config.json`.

    Raises:
        UserError: a value is missing or of another type.
    """
    file, size = folder / "preprocessor_config.json", values.get("image_size")
    if type(size) is not int or size < 1:
        raise UserError(f"{file} has image_size {size!r}; expected a positive integer")
    names = ("image_mean", "image_std", "min_size", "rescale_factor", "do_normalize")
    kept = {name: values[name] for name in names if values.get(name) is not None}
    if missing := [name for name in names[:2] if name not in kept]:
        raise UserError(f"{file} has no {missing[0]}; download the checkpoint again")
    try:
        return JanusImageProcessor(size={"height": size, "width": size}, **kept)
    except Exception as error:
        raise UserError(f"{file}: no image processor can be made of it ({describe_error(error)})") from None
