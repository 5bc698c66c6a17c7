"""What `register` is inside a registering hook."""

from dataclasses import dataclass, field

from unirl.hooks.plugin import Registered


@dataclass
class Collector:
    """Takes down what one plugin registers of one kind.

    Args:
        distribution: The package that registers.
        version: Its version.
        items: What it has registered.
    """

    distribution: str
    version: str
    items: list[Registered] = field(default_factory=list)

    def __call__(self, name: str, path: str) -> None:
        """Offer a class under a name.

        Args:
            name: What configs say; no dots, or it would look like a class path.
            path: `package.module:Class`.

        Raises:
            ValueError: either is malformed, or the name was offered before.
        """
        if not isinstance(path, str):
            raise TypeError(f"register({name!r}, ...) got {path!r}; give its import path as text, package.module:Class")
        module, _, attribute = path.partition(":")
        if not module or not attribute:
            raise ValueError(f'register({name!r}, {path!r}): an import path has a colon, "package.module:Class"')
        if not name or "." in name:
            raise ValueError(f"register({name!r}, {path!r}): a name is not empty and has no dots")
        if any(item.name == name for item in self.items):
            raise ValueError(f"{name!r} is registered twice")
        self.items.append(Registered(name, path, self.distribution, self.version))

    def __str__(self) -> str:
        return f"registers {', '.join(item.name for item in self.items) or 'nothing'}"
