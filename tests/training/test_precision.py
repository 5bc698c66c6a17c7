"""Precision: what may be trained, and in which type weights, keys and frequencies are held."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unirl import ExportPretrained, ImageSampling, SelfImprovement, UserError
from unirl.backbones.janus import Janus
from unirl.backbones.llama import LlamaDecoder, LlamaStaticDecoder
from unirl.backbones.lora import LoRA
from unirl.backbones.showo import Showo
from unirl.checkpoint.export import backbone_weights
from unirl.rewards.likelihood import Likelihood
from unirl.training.optimizers import use_fused_step
from unirl.updates.grpo import GRPO, KLPenalty
from unirl_shapes.judge import ShapesJudge

BF16 = torch.bfloat16


class Recorder(SelfImprovement):
    """Records losses."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.fixture(params=[Showo, Janus])
def backbone(request: pytest.FixtureRequest, shapes_checkpoint: Path, janus_checkpoint: Path) -> Any:
    return make(request.param, shapes_checkpoint, janus_checkpoint)


def make(kind: Any, shapes_checkpoint: Path, janus_checkpoint: Path) -> Any:
    return kind(str(shapes_checkpoint if kind is Showo else janus_checkpoint))


@pytest.fixture
def fit(runs: Any, tmp_path: Path):
    def run(
        backbone: Any, callbacks: Sequence[Callback] = (), ckpt_path: Path | None = None, **options: Any
    ) -> Recorder:
        settings = {"image_sampling": ImageSampling(2, guidance=1.0), "accept_threshold": 0.0, "kind": Recorder}
        model = runs.module(
            backbone, GRPO(answer_labels="self", kl=KLPenalty(0.1)), [Likelihood()], **(settings | options)
        )
        torch.manual_seed(0)  # adapters start from torch's own random numbers
        trainer = runs.trainer(
            tmp_path,
            max_steps=2,
            precision="bf16-mixed",
            limit_val_batches=0,
            callbacks=[*callbacks],
            logger=bool(callbacks),
            enable_checkpointing=bool(callbacks),
        )
        trainer.fit(model, runs.data(prompts_per_step=1), ckpt_path=ckpt_path)
        return model

    return run


# --- weights of 16 bits are not trained ---


def test_adamw_loses_updates_of_16_bit_weights() -> None:
    """Why they are refused: after 20 updates no weight above 0.004 has moved, in float32 all have."""
    moved = {}
    for dtype in (BF16, torch.float32):
        weight = nn.Parameter((0.02 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))).to(dtype))
        before, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        for _ in range(20):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[dtype] = ((weight != before) & (before.abs() > 0.004)).sum().item()
    assert moved[BF16] == 0
    assert moved[torch.float32] > 8000


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_16_bit_training_is_refused_before_anything_is_loaded(precision: str, runs: Any, tmp_path: Path) -> None:
    model = runs.module(Showo("nowhere"), GRPO(), [Likelihood()])
    with pytest.raises(
        UserError, match=rf"trainer\.precision {precision}: .* no weight above 0\.004 .* set bf16-mixed"
    ):
        runs.trainer(tmp_path, precision=precision).fit(model, runs.data())


class Halved(Showo):
    """A backbone whose author holds weights in 16 bit."""

    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.half()


class Unfreezes(Callback):
    """Adds a frozen weight to the optimizer, as a finetuning callback does."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        weight = pl_module.backbone.transformer.phi.model.layers[0].mlp.fc1.weight.requires_grad_()
        trainer.optimizers[0].add_param_group({"params": [weight]})


def test_16_bit_weights_are_refused_however_they_come_about(
    fit: Any, shapes_checkpoint: Path, monkeypatch: Any
) -> None:
    with pytest.raises(UserError, match=r"torch\.float16, in which rounding drops most updates"):
        fit(Halved(str(shapes_checkpoint)))
    with pytest.raises(UserError, match=r"torch\.bfloat16, in which rounding drops most updates"):
        fit(Showo(str(shapes_checkpoint)), [Unfreezes()], trainable_modules=["self_attn"])


def test_validation_computes_in_16_bit_and_with_weights_of_16_bit(runs: Any, backbone: Any, tmp_path: Path) -> None:
    model = runs.module(backbone, GRPO(), [Likelihood()], judge=ShapesJudge(), num_understanding=4)
    for precision, dtype in (("bf16-mixed", torch.float32), ("bf16-true", BF16)):
        trainer = runs.trainer(tmp_path, precision=precision)
        trainer.validate(model, runs.data(num_val_prompts=2), verbose=False)
        assert next(backbone.parameters()).dtype == dtype
        assert "understanding" in model.val_metrics


# --- frozen weights under autocast ---


def lora(*targets: str) -> LoRA:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    return LoRA(targets, 4)


TRAINED: dict[str, Callable[[], dict[str, Any]]] = {
    "all weights": dict,
    "some weights": lambda: {"trainable_modules": ["self_attn"]},
    "adapters": lambda: {"lora": lora("q_proj", "v_proj")},
}


@pytest.mark.parametrize(("kind", "trained"), [(Showo, "some weights"), (Janus, "adapters"), (Janus, "all weights")])
def test_casting_once_changes_no_bit(
    kind: Any, trained: str, fit: Any, shapes_checkpoint: Path, janus_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, options = (shapes_checkpoint, janus_checkpoint), TRAINED[trained]()
    held = fit(make(kind, *checkpoints), **options)
    assert {p.dtype for p in held.backbone.parameters()} == {BF16, torch.float32}
    for name in ("training.module.cast_frozen_weights", "updates.reference.cast_frozen_weights"):
        monkeypatch.setattr(f"unirl.{name}", lambda *_: None)
    monkeypatch.setattr("unirl.training.module.cached_casts", lambda *_: nullcontext())
    cast = fit(make(kind, *checkpoints), **options)
    assert {p.dtype for p in cast.backbone.parameters()} == {torch.float32}
    assert held.losses == cast.losses


def test_a_run_with_16_bit_frozen_weights_resumes_and_exports(fit: Any, backbone: Any, tmp_path: Path) -> None:
    saving = [ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1), ExportPretrained()]
    whole = fit(backbone, saving, lora=lora("q_proj"))
    dtypes: dict[torch.dtype, set[str]] = {BF16: set(), torch.float32: set()}
    for name, parameter in backbone.named_parameters():
        dtypes[parameter.dtype].add(name)
    assert any("q_proj.base_layer.weight" in name for name in dtypes[BF16])
    assert any("conv" in name for name in dtypes[BF16])  # the image tokenizer
    for part in ("lora_A", "lora_B", "norm", "embed_tokens", "lm_head"):
        assert any(part in name for name in dtypes[torch.float32]), part
        assert not any(part in name for name in dtypes[BF16]), part

    saved = backbone_weights(tmp_path / "step=2.ckpt")
    resumed = fit(type(backbone)(backbone.checkpoint), saving, tmp_path / "step=1.ckpt", lora=lora("q_proj"))
    assert resumed.losses == whole.losses[1:]
    for name, parameter in resumed.backbone.named_parameters():
        assert parameter.dtype == saved[name].dtype, name
        assert torch.equal(parameter, saved[name]), name  # also after the export, which merges adapters

    exported = type(backbone).from_pretrained(str(max(tmp_path.rglob("pretrained"))))
    weights = dict(exported.named_parameters())
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    for name, module in resumed.backbone.named_modules():
        if name.endswith("q_proj") and hasattr(module, "base_layer"):
            merged = module.base_layer.weight.float() + module.get_delta_weight("default")  # in float32
            assert torch.equal(weights[f"{name}.weight"], merged), name


# --- keys and frequencies ---


def test_cached_keys_have_the_type_of_the_values(backbone: Any) -> None:
    backbone.build()
    with torch.no_grad(), torch.autocast("cpu", BF16):
        prefix = backbone.prompt_prefix(["a photo of a ring", "two circles"], 1.0)
        assert {one.dtype for one in (*prefix.cache.keys, *prefix.cache.values)} == {BF16}


def test_both_decoders_agree_under_autocast(janus_checkpoint: Path) -> None:
    backbone = Janus.from_pretrained(str(janus_checkpoint))
    transformer, hidden = backbone.transformer, []
    embeds = transformer.embed(torch.tensor([3, 4]))
    with torch.no_grad(), torch.autocast("cpu", BF16):
        prefix = backbone.prompt_prefix(["a photo of a ring", "two circles"], 0.0)
        for kind in (LlamaDecoder, LlamaStaticDecoder):
            decoder = kind(transformer.language_model, prefix, 4)
            assert {one.dtype for one in (*decoder.keys, *decoder.values)} == {BF16}
            assert decoder.cos.dtype == torch.float32  # as in scoring
            hidden.append(torch.stack([decoder(embeds) for _ in range(3)]))
    torch.testing.assert_close(*hidden, rtol=0, atol=0.05)


@pytest.mark.parametrize("convert", [lambda m: m.to(BF16), lambda m: m.half(), lambda m: nn.ModuleList([m]).bfloat16()])
def test_rotary_frequencies_stay_float32(backbone: Any, convert: Any) -> None:
    backbone.build()
    before = {name: b.clone() for name, b in backbone.named_buffers() if "inv_freq" in name}
    convert(backbone)
    assert before
    assert next(backbone.parameters()).itemsize == 2
    for name, buffer in backbone.named_buffers():
        assert name not in before or torch.equal(buffer, before[name])
        assert name not in before or buffer.dtype == torch.float32


# --- the optimizer's step ---


def group(device: str, **options: Any) -> dict[str, Any]:
    kind = options.pop("kind", torch.optim.AdamW)
    optimizer = kind([nn.Parameter(torch.zeros(2, device=device))], lr=1e-3, **options)
    use_fused_step(optimizer)
    assert not hasattr(optimizer, "_step_supports_amp_scaling")  # Lightning would refuse to clip gradients
    return optimizer.param_groups[0]


def test_the_step_is_fused_on_a_gpu_where_the_user_has_not_chosen() -> None:
    assert group("cpu")["fused"] is None
    with FakeTensorMode():
        assert group("cuda:0")["fused"] is True
        assert group("cuda:0", foreach=True)["fused"] is None
        assert group("cuda:0", foreach=False)["fused"] is None
        assert group("cuda:0", fused=False)["fused"] is False
        assert not group("cuda:0", capturable=True)["fused"]
        assert "fused" not in group("cuda:0", kind=torch.optim.Rprop)
