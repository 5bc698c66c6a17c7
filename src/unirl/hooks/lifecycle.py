"""The hooks of a run: what installed plugins and the run's own callbacks say while it goes on."""

from collections.abc import Mapping, Sequence

import pluggy
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.hooks import PROJECT, specs
from unirl.hooks.host import host
from unirl.hooks.implementations import implementations
from unirl.types import Rollout


class Lifecycle:
    """Calls `unirl_rollout_scored` and `unirl_validated`.

    Args:
        callbacks: Objects that may implement hooks beside the installed plugins, such as a trainer's callbacks.

    Raises:
        UserError: one of them implements a hook that does not exist.
    """

    def __init__(self, callbacks: Sequence[object] = ()) -> None:
        self._callbacks = tuple(callbacks)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(specs)
        for name, plugin in host().manager.list_name_plugin():
            self._manager.register(plugin, name=name)
        for callback in callbacks:
            who = type(callback).__name__
            try:
                found = implementations(callback, who, host().switches.trace)
            except UserError as error:
                raise UserError(f"{who}: {error}") from error
            again = self._manager.has_plugin(who)  # two of a kind
            self._manager.register(found, name=f"{who} {id(callback)}" if again else who)

    def __getstate__(self) -> tuple[object, ...]:
        # Modules cannot be pickled; a spawned process loads the plugins itself.
        return self._callbacks

    def __setstate__(self, callbacks: tuple[object, ...]) -> None:
        self.__init__(callbacks)  # type: ignore[misc]

    def weights(self, rollout: Rollout) -> Tensor | None:
        """The product of all weights, or None where nobody gave any.

        Shapes:
            returns (B,) or None.

        Raises:
            UserError: weights of another shape or device, below 0, or not finite.
        """
        hook = self._manager.hook.unirl_rollout_scored
        given, device = hook(rollout=rollout), rollout.scores.device
        who = f"unirl_rollout_scored (one of: {', '.join(one.plugin_name for one in hook.get_hookimpls())})"
        weights: Tensor | None = None
        for one in given:
            if not isinstance(one, Tensor) or one.shape != rollout.scores.shape:
                got = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
                raise UserError(f"{who} gave {got}, expected weights {tuple(rollout.scores.shape)}")
            if one.device != device:
                raise UserError(f"{who} gave weights on {one.device}, expected {device}, where the scores are")
            if not (torch.isfinite(one) & (one >= 0)).all():
                raise UserError(f"{who} gave weights from {one.min()} on; they must be finite, from 0 on")
            weights = one.float() if weights is None else weights * one
        return weights

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Tell everybody what was measured."""
        self._manager.hook.unirl_validated(metrics=metrics)
