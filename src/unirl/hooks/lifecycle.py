"""The lifecycle hooks of a run, implemented by installed plugins and by the trainer's callbacks."""

from collections.abc import Mapping, Sequence

import pluggy
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.hooks import PROJECT, specs
from unirl.hooks.host import host
from unirl.hooks.implementations import implementations, traced
from unirl.plugin_outputs import find_mismatch, plain
from unirl.types import Rollout, cloned


class Lifecycle:
    """Calls the hooks `unirl_rollout_scored` and `unirl_validated`.

    Args:
        callbacks: Objects that may implement hooks in addition to the installed plugins, such as a trainer's callbacks.

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
            self._register(callback)

    def _register(self, callback: object) -> None:
        name = type(callback).__name__
        try:
            found = implementations(callback)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        unique = f"{name} {id(callback)}" if self._manager.has_plugin(name) else name
        self._manager.register(traced(found, name) if host().options.trace else callback, name=unique)

    def __getstate__(self) -> tuple[object, ...]:
        # Modules cannot be pickled; a spawned process loads the plugins itself.
        return self._callbacks

    def __setstate__(self, callbacks: tuple[object, ...]) -> None:
        self.__init__(callbacks)  # type: ignore[misc]

    def weights(self, rollout: Rollout) -> Tensor | None:
        """The product of the sample weights of all implementations, or None if none returned weights.

        They get a copy of the rollout, so that none of them can change what is trained on.

        Args:
            rollout: A scored rollout.

        Shapes:
            returns (B,) or None.

        Raises:
            UserError: weights have another shape or device, or are negative or not finite.
        """
        hook = self._manager.hook.unirl_rollout_scored
        results, device = hook(rollout=cloned(rollout)), rollout.scores.device
        names = f"unirl_rollout_scored (one of: {', '.join(one.plugin_name for one in hook.get_hookimpls())})"
        weights: Tensor | None = None
        for result in results:
            mismatch = find_mismatch(result, tuple(rollout.scores.shape), device)
            if mismatch is not None:
                raise UserError(f"{names} returned {mismatch}; return a weight for each sample, or None")
            values = plain(result).float()
            if not (torch.isfinite(values) & (values >= 0)).all():
                raise UserError(f"{names} returned a weight of {values.min()}; weights must be finite and 0 or more")
            weights = values if weights is None else weights * values
        if weights is not None and not torch.isfinite(weights).all():
            raise UserError(f"{names} returned weights whose product is not finite; return smaller ones")
        return weights

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Call `unirl_validated`.

        Args:
            metrics: Values by name.
        """
        self._manager.hook.unirl_validated(metrics=dict(metrics))
