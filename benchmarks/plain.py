"""The plain loop of the public Show-o code. Nothing is cached, and every logit is computed.

Written for comparison. It does less than the public loop in one place: guidance combines the rows and codes of
the image after slicing, where the public loop combines the whole vocabulary of every row.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.showo import Showo
from unirl.backbones.showo.backbone import QUESTION
from unirl.backbones.showo.modeling import generation_mask, prompt_row, understanding_mask

Logits = Callable[[Tensor, Tensor], Tensor]


def generation_logits(backbone: Showo, prompts: Sequence[str], guidance: float) -> Logits:
    """`(codes, known) -> (B, N, K)`, guided: a full pass over padded text and image, with and without the prompt."""
    config, count = backbone.config, len(prompts)
    text = torch.tensor([*map(_padded(backbone), prompts), *[_padded(backbone)("")] * count])
    soi, eoi = config.special("soi"), config.special("eoi")
    codes = slice(config.code_start, config.code_start + config.codebook_size)
    blank = torch.full((2 * count, config.num_vq_tokens), config.mask_token_id)
    mask = generation_mask(_sequence(text, soi, blank, eoi), config.special("pad"), soi)

    def logits(image_codes: Tensor, known: Tensor) -> Tensor:
        image = torch.where(known, image_codes + config.code_start, config.mask_token_id).repeat(2, 1)
        ids = _sequence(text, soi, image, eoi)
        everything = backbone.transformer.phi(input_ids=ids, attention_mask=mask, use_cache=False).logits
        cond, uncond = everything[:, -(config.num_vq_tokens + 1) : -1, codes].chunk(2)
        return (1 + guidance) * cond - guidance * uncond

    return logits


def answers(backbone: Showo, codes: Tensor, questions: Sequence[str], tokens: int) -> Tensor:
    """Greedy answers of `tokens` tokens, one image at a time. (B, tokens)"""
    return torch.stack([_answer(backbone, row, q, tokens) for row, q in zip(codes, questions, strict=True)])


def _answer(backbone: Showo, codes: Tensor, question: str, tokens: int) -> Tensor:
    config = backbone.config
    begin, eoi = [config.special("mmu"), config.special("soi")], config.special("eoi")
    question_ids = backbone.tokenizer(QUESTION.format(question=question), add_special_tokens=False)["input_ids"]
    image = (codes + config.code_start).tolist()
    ids = torch.tensor([[*begin, *image, eoi, backbone.tokenizer.eos_token_id, *question_ids]])
    mask = understanding_mask(ids, eoi)
    for _ in range(tokens):
        logits = backbone.transformer.phi(input_ids=ids, attention_mask=mask, use_cache=False).logits
        ids = torch.cat((ids, logits[:, -1].argmax(-1, keepdim=True)), dim=1)
        mask = F.pad(mask, (0, 1, 0, 1))  # extended, because an untrained model may answer eoi
        mask[..., -1, :] = True
    return ids[0, -tokens:]


def _padded(backbone: Showo) -> Callable[[str], list[int]]:
    """Turns a prompt into ids of the full text length, padded on the left."""
    config, end = backbone.config, backbone.tokenizer.eos_token_id

    def padded(prompt: str) -> list[int]:
        text = backbone.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        row = prompt_row(text, config.special("t2i"), end, config.max_text_len)
        return [config.special("pad")] * (config.max_text_len + 1 - len(row)) + row

    return padded


def _sequence(text: Tensor, soi: int, image: Tensor, eoi: int) -> Tensor:
    one = torch.ones(len(text), 1, dtype=torch.long)
    return torch.cat((text, soi * one, image, eoi * one), dim=1)
