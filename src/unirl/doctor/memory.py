"""An estimate of the memory of a training step on one device, from the sizes of the model and the settings of the run.

Counted are weights, gradients, optimizer states, a reference model, what layers keep for the backward pass, logits, and
the KV caches and logits of sampling. `benchmarks/memory.py` compares the estimate with measured peaks.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.types import Images

FLOAT = 4
"""Bytes of float32, the type of weights, gradients, optimizer states and most activations."""
LOGIT_COPIES = 4
"""Copies of logits that exist at once: logits, scaled by the temperature, log-softmax, and its gradient."""
DECODER_COPIES = 4
"""Copies of the widest layer's output while an image is decoded: input, normalized, convolved, and the shortcut."""
SPECIAL_TOKENS = 4
"""Tokens around an image or a question that are neither codes nor text."""
DEFAULT_IMAGE_TOKENS, DEFAULT_CODEBOOK_SIZE = 1024, 16384
"""For backbones that do not define these sizes."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model, in elements.

    Args:
        num_params: Parameters and buffers.
        num_trainable: Trainable parameters.
        num_reference: Elements of other tensors that the update rule holds, such as a reference model.
        num_layers: Layers of the language model.
        hidden_size: Of the language model.
        layer_activations: What a layer keeps of one token for the backward pass.
        kv_size: Keys and values of one token in one layer.
        vocab_size: Text tokens.
        image_tokens: Codes of an image.
        codebook_size: Number of different codes.
        vision_activations: What the vision encoder keeps of one image for the backward pass; 0 without one.
        decoder_width: Largest output of a layer of the image decoder, for one image.
        decoder_activations: What the image decoder keeps of one image for the backward pass.
        gradient_checkpointing: Whether layers keep only their inputs for the backward pass.
        recompute_batch_size: Images that are decoded or encoded at once when they are recomputed; 0 for all.
    """

    num_params: int
    num_trainable: int
    num_reference: int
    num_layers: int
    hidden_size: int
    layer_activations: int
    kv_size: int
    vocab_size: int
    image_tokens: int
    codebook_size: int
    vision_activations: int
    decoder_width: int
    decoder_activations: int = 0
    gradient_checkpointing: bool = False
    recompute_batch_size: int = 0


@dataclass(frozen=True)
class StepWorkload:
    """What one device computes in a training step.

    Args:
        images: Images of a rollout.
        loss_images: Images that are scored with gradient at once; None for all.
        val_images: Held-out images that are generated at once in validation.
        prompt_tokens: Length of the longest prompt.
        answer_tokens: Length of the longest question with its answer.
        image_passes: Forward passes with gradient over each image: random masks, scored steps, or one. 0 if images are
            not scored.
        code_passes: How often logits of each image code are computed with gradient.
        guided: Whether images are scored with classifier-free guidance, which doubles the sequences.
        scores_answers: Whether answers are scored with gradient.
        decodes: Whether images are decoded in training.
        straight_through: Whether the gradient passes through the image decoder.
        num_shards: Processes that weights, gradients and optimizer states are sharded over.
        unsharded: Whether weights and gradients are full during a step, as under `fsdp2`.
        activation_bytes: Bytes of an element of the activations: 2 in 16-bit precision, else 4.
    """

    images: int
    loss_images: int | None = None
    val_images: int = 0
    prompt_tokens: int = 16
    answer_tokens: int = 32
    image_passes: int = 1
    code_passes: int = 1
    guided: bool = False
    scores_answers: bool = True
    decodes: bool = False
    straight_through: bool = False
    num_shards: int = 1
    unsharded: bool = False
    activation_bytes: int = FLOAT

    @property
    def scored_images(self) -> int:
        """Images that are scored with gradient at once."""
        return self.images if self.loss_images is None else min(self.loss_images, self.images)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    Args:
        weights: The model; where it is unsharded for a step, the full weights and the shards of this rank.
        gradients: Of the trainable parameters.
        optimizer: The two moments of AdamW.
        reference: Other tensors that the update rule holds, such as a reference model.
        activations: What the backward pass needs without gradient checkpointing: what all layers, the vision encoder
            and the image decoder keep, and as much as one layer keeps for its gradients.
        checkpointed_activations: The same with gradient checkpointing: the inputs of all layers, KV caches, and one
            layer, encoder or decoder in full.
        logits: Of the backward pass.
        sampling: KV caches, logits and images. Training's activations do not exist at that time, so it matters
            where validation batches are large, or where few parameters are trained.
    """

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    checkpointed_activations: float
    logits: float
    sampling: float

    def peak(self, gradient_checkpointing: bool = False) -> float:
        """The largest sum of what exists at once."""
        constant = self.weights + self.gradients + self.optimizer + self.reference
        activations = self.checkpointed_activations if gradient_checkpointing else self.activations
        return constant + max(activations + self.logits, self.sampling)


# --- the estimate ---


def estimate_memory(sizes: ModelSizes, workload: StepWorkload) -> MemoryEstimate:
    """Estimate the memory of one device.

    Assumes that all samples are trained on and that all answers are as long as the longest. Reward models, the Python
    process and fragmentation are left out.

    Args:
        sizes: Of the model.
        workload: Of the run.
    """
    passes = _passes(sizes, workload)
    layer = max((activations for activations, _ in passes), default=0.0)
    image_bytes = workload.activation_bytes * workload.scored_images
    vision = float(image_bytes * sizes.vision_activations * workload.scores_answers)
    decoder = float(image_bytes * sizes.decoder_activations * workload.straight_through)
    recomputed = min(1.0, (sizes.recompute_batch_size or workload.scored_images) / workload.scored_images)
    weights, gradients, reference = _constant(sizes, workload)
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=2 * FLOAT * sizes.num_trainable / workload.num_shards,
        reference=reference,
        activations=sizes.num_layers * sum(activations for activations, _ in passes) + layer + vision + decoder,
        checkpointed_activations=sum(inputs for _, inputs in passes)
        + max(2 * layer, vision * recomputed, decoder * recomputed),
        logits=_logits(sizes, workload),
        sampling=_sampling(sizes, workload),
    )


def _constant(sizes: ModelSizes, workload: StepWorkload) -> tuple[float, float, float]:
    """Weights, gradients and reference.

    Full weights exist in addition to the shards. The reference is resharded before the backward pass, so a full
    reference and full gradients do not exist at once.
    """
    weights, gradients, reference = (
        float(FLOAT * count) for count in (sizes.num_params, sizes.num_trainable, sizes.num_reference)
    )
    shard = 1 / workload.num_shards
    if not workload.unsharded:
        return weights * shard, gradients * shard, reference
    return weights * (1 + shard), max(gradients, gradients * shard + reference), reference * shard


def _passes(sizes: ModelSizes, workload: StepWorkload) -> list[tuple[float, float]]:
    """Bytes that one layer keeps, and that all layers keep with gradient checkpointing, in each forward pass.

    The passes are images under their prompts, images that are asked about, and the questions. The pass over images that
    are asked about leaves a KV cache for the questions.
    """
    image, passes = sizes.image_tokens + SPECIAL_TOKENS, []
    if workload.image_passes:
        sequences = workload.scored_images * workload.image_passes * (2 if workload.guided else 1)
        passes.append(_pass(sizes, workload, sequences, image, workload.prompt_tokens))
    if workload.scores_answers:
        activations, inputs = _pass(sizes, workload, workload.scored_images, image, 0)
        cache = float(workload.activation_bytes * workload.scored_images * image * sizes.kv_size * sizes.num_layers)
        passes.append((activations, inputs + cache))
        passes.append(_pass(sizes, workload, workload.scored_images, workload.answer_tokens, image))
    return passes


def _pass(sizes: ModelSizes, workload: StepWorkload, sequences: int, tokens: int, prefix: int) -> tuple[float, float]:
    # A prefix is held twice: as expanded over the sequences, and concatenated with the keys and values of the tokens.
    prefix_kv = 2 * prefix * sizes.kv_size
    activations = sequences * (tokens * sizes.layer_activations + prefix_kv)
    # The gradients of a prefix are accumulated over all layers, so they exist for all of them.
    inputs = sequences * (tokens * sizes.hidden_size + prefix_kv) * sizes.num_layers
    return float(workload.activation_bytes * activations), float(workload.activation_bytes * inputs)


def _logits(sizes: ModelSizes, workload: StepWorkload) -> float:
    codes = workload.code_passes * sizes.image_tokens * sizes.codebook_size if workload.image_passes else 0
    text = workload.answer_tokens * sizes.vocab_size if workload.scores_answers else 0
    return float(FLOAT * LOGIT_COPIES * workload.scored_images * (codes + text))


def _sampling(sizes: ModelSizes, workload: StepWorkload) -> float:
    images = max(workload.images, workload.val_images)
    sequences = images * (2 if workload.guided else 1)
    tokens = workload.prompt_tokens + sizes.image_tokens + workload.answer_tokens
    caches = FLOAT * sequences * tokens * sizes.kv_size * sizes.num_layers
    logits = FLOAT * LOGIT_COPIES * images * sizes.image_tokens * sizes.codebook_size
    decoded = workload.images if workload.decodes else 0
    decoder = FLOAT * DECODER_COPIES * max(decoded, workload.val_images) * sizes.decoder_width
    return float(max(caches + logits, decoder))


# --- sizes of a model ---


def model_sizes(backbone: Backbone, rule: object = None) -> ModelSizes:
    """Read the sizes of a model.

    Args:
        backbone: Built, perhaps on the meta device.
        rule: An update rule that was attached to it.
    """
    layers, *encoders = _repeated_layers(backbone) or [[]]
    linear = _linear_layers(layers[0]) if layers else []
    tensors = [*backbone.parameters(), *backbone.buffers()]
    config: Any = getattr(backbone, "config", None)
    image_tokens = _image_tokens(backbone, config)
    kv_size = sum(layer.out_features for name, layer in linear if name.endswith(("k_proj", "v_proj")))
    hidden_size = linear[0][1].in_features if linear else 0
    embeddings = sorted((m.num_embeddings for m in backbone.modules() if isinstance(m, nn.Embedding)), reverse=True)
    # The largest embedding is that of text. Where codes have one of their own, it is the second largest.
    codebook_size = int(getattr(config, "codebook_size", 0) or [*embeddings, 0, 0][1] or DEFAULT_CODEBOOK_SIZE)
    return ModelSizes(
        num_params=sum(tensor.numel() for tensor in tensors),
        num_trainable=sum(p.numel() for p in backbone.parameters() if p.requires_grad),
        num_reference=sum(tensor.numel() for tensor in _reachable_tensors(rule, {id(tensor) for tensor in tensors})),
        num_layers=len(layers),
        hidden_size=hidden_size,
        layer_activations=_layer_activations(linear),
        kv_size=kv_size or 2 * hidden_size,
        vocab_size=embeddings[0] if embeddings else 0,
        image_tokens=image_tokens,
        codebook_size=codebook_size,
        vision_activations=image_tokens
        * sum(_layer_activations(_linear_layers(layer)) for encoder in encoders for layer in encoder),
        decoder_width=_decoder_width(backbone, image_tokens),
        decoder_activations=_decoder_activations(backbone, image_tokens),
        gradient_checkpointing=bool(getattr(backbone, "gradient_checkpointing", False)),
        recompute_batch_size=int(getattr(backbone, "recompute_batch_size", 0)),
    )


def _image_tokens(backbone: Backbone, config: Any) -> int:
    side = int(getattr(backbone, "side", 0) or 0)
    stated = getattr(config, "num_vq_tokens", 0) or getattr(backbone, "num_image_codes", 0)
    return int(stated or side**2 or DEFAULT_IMAGE_TOKENS)


def _repeated_layers(backbone: Backbone) -> list[list[nn.Module]]:
    """The repeated layers by class: first those of the language model, which have most weights, then encoders'."""
    by_class: dict[type, list[nn.Module]] = defaultdict(list)
    for module in backbone.modules():
        if isinstance(module, backbone.blocks):
            by_class[type(module)].append(module)
    return sorted(by_class.values(), key=_num_params, reverse=True)


def _num_params(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _linear_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, child) for name, child in module.named_modules() if isinstance(child, nn.Linear)]


def _layer_activations(linear: list[tuple[str, nn.Linear]]) -> int:
    """Inputs and outputs of the linear layers for one token: nearly all that a layer keeps for the backward pass."""
    return sum(layer.in_features + layer.out_features for _, layer in linear)


def _decoder_width(backbone: Backbone, image_tokens: int) -> int:
    """Input of the last convolution, which has 3 output channels: it has the size of the image and the base width."""
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    last = [convolution for convolution in convolutions if convolution.out_channels == 3]
    if not last:
        return 0
    downsamplings = sum(convolution.stride == (2, 2) for convolution in convolutions)
    return image_tokens * 4**downsamplings * last[-1].in_channels


def _decoder_activations(backbone: Backbone, image_tokens: int) -> int:
    """Inputs and outputs of all modules while one image is decoded on the meta device."""
    sizes: list[int] = []

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.extend(value.numel() for value in (*inputs, output) if isinstance(value, Tensor))

    leaves = [module for module in backbone.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        backbone.decode(Images(torch.zeros(1, image_tokens, dtype=torch.long, device="meta")))
    except Exception:  # steps after the decoder may need real values
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


def _reachable_tensors(owner: object, seen: set[int]) -> Iterable[Tensor]:
    """Tensors that an object refers to, directly or indirectly, and that have not been seen yet."""
    if id(owner) in seen or owner is None or isinstance(owner, type):
        return
    seen.add(id(owner))
    if isinstance(owner, Tensor):
        yield owner
        return
    if isinstance(owner, nn.Module):
        values: Iterable[object] = (*owner.parameters(), *owner.buffers())
    elif isinstance(owner, dict):
        values = owner.values()
    elif isinstance(owner, list | tuple):
        values = owner
    else:
        values = (vars(owner),) if hasattr(owner, "__dict__") else ()
    for value in values:
        yield from _reachable_tensors(value, seen)
