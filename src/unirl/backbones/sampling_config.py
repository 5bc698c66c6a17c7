"""How a checkpoint was measured, as a file beside its weights: the default of everything that samples from it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from unirl.backbones.checkpoints import locate, read_json
from unirl.errors import UserError, check_range, check_temperature
from unirl.types import AnswerSampling, ImageSampling

FILE_NAME = "sampling_config.json"
"""The file in the folder of a checkpoint."""

Settings = TypeVar("Settings", ImageSampling, AnswerSampling)


@dataclass(frozen=True)
class SamplingConfig:
    """The sampling settings of a checkpoint, as transformers' `GenerationConfig` has those of a language model.

    A run writes the settings of its validation beside the model that it exports. `Backbone.sampling_config` reads them
    back.

    Args:
        image_sampling: How images are generated.
        answer_sampling: How questions are answered.

    Example:
        >>> import tempfile
        >>> config = SamplingConfig(ImageSampling(guidance=0.25, temperature=0.6))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config.save_pretrained(folder)
        ...     SamplingConfig.from_pretrained(folder) == config
        True
    """

    image_sampling: ImageSampling = ImageSampling()
    answer_sampling: AnswerSampling = AnswerSampling()

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path) -> "SamplingConfig":
        """The settings of a checkpoint; the defaults where it has none.

        Args:
            path_or_id: A local folder, `package:folder`, or a hub id.

        Raises:
            UserError: there is no such checkpoint, or its file is broken.
        """
        path = locate(str(path_or_id), files=[FILE_NAME]) / FILE_NAME
        if not path.is_file():
            return cls()
        values = read_json(path)
        if unknown := values.keys() - {"image_sampling", "answer_sampling"}:
            raise UserError(f"{path}: {min(unknown)!r} is unknown; known: image_sampling, answer_sampling")
        images = _settings(ImageSampling(), values.get("image_sampling", {}), path)
        answers = _settings(AnswerSampling(), values.get("answer_sampling", {}), path)
        check_range(1, 10_000, str(path), steps=images.steps, max_tokens=answers.max_tokens)
        check_range(-1, 1000, str(path), guidance=images.guidance)
        check_range(0, 1e30, str(path), confidence_noise=images.confidence_noise)
        for temperature in (images.temperature, answers.temperature):
            check_temperature(str(path), temperature)
        return cls(images, answers)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the settings into the folder of a checkpoint.

        Args:
            folder: Made where it does not exist.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / FILE_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def _settings(defaults: Settings, values: Any, path: Path) -> Settings:
    """Settings with the values of a file. A whole number may stand for a real one, and not the other way round."""
    name = "image_sampling" if isinstance(defaults, ImageSampling) else "answer_sampling"
    own: dict[str, Any] = asdict(defaults)
    if not isinstance(values, dict):
        raise UserError(f"{path}: {name} is {values!r}; expected an object with some of {', '.join(own)}")
    for key, value in values.items():
        if key not in own:
            raise UserError(f"{path}: {name} has no {key!r}; known: {', '.join(own)}")
        kind = type(own[key])
        if isinstance(value, bool) or not isinstance(value, int | kind):
            expected = "a whole number" if kind is int else "a number"
            raise UserError(f"{path}: {name}.{key} is {value!r}; expected {expected}")
        own[key] = kind(value)
    return type(defaults)(**own)
