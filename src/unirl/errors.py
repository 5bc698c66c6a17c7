"""The error that users see, and checks of settings that raise it."""

import difflib
from collections.abc import Iterable

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e4
"""Logits divided by a temperature in this range stay finite."""


class UserError(Exception):
    """An error that the user can fix. The message says what was got, what is allowed and what to do.

    The command line prints it as one line and exits with code 2.
    """


def suggest(name: str, allowed: Iterable[str], count: int = 3, prefix: str = "") -> str:
    """Valid names in place of an unknown one, for an error message.

    Args:
        name: What the user wrote.
        allowed: The valid names.
        count: Maximum number of close names.
        prefix: Put before each name.

    Returns:
        The closest names after "nearest:", or all valid names after "known:" where none is close.

    Example:
        >>> suggest("shwo", ["showo", "janus"]), suggest("emu3", ["showo", "janus"])
        ('nearest: showo', 'known: janus, showo')
    """
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, count, cutoff=0.5)
    return f"{'nearest' if close else 'known'}: {', '.join(prefix + one for one in close or allowed)}"


def check_plugin(option: str, value: object, base: type, is_list: bool = False) -> None:
    """Refuse an argument that is no object of a plugin kind, as a class or a registered name.

    Args:
        option: The argument, for the message.
        value: What was given.
        base: The base class of the kind.
        is_list: Whether several are given as a list.

    Raises:
        UserError: the value is something else.

    Example:
        >>> check_plugin("model.seed", 3, int)
    """
    if is_list and isinstance(value, list | tuple):
        for item in value:
            check_plugin(option, item, base)
    elif not is_list and isinstance(value, base):
        return
    else:
        expected = f"{'a list of objects' if is_list else 'an object'} of class {base.__name__}"
        advice = "unirl.load makes one by its registered name"
        if isinstance(value, type):
            advice = f"make an object: {value.__name__}(...)"
        if is_list and isinstance(value, base):
            advice = "put it in a list: [...]"
        raise UserError(f"{option}: expected {expected}, got {describe(value)}; {advice}")


def describe(value: object) -> str:
    """A value in an error message: its text or number, or its class.

    Args:
        value: Anything.

    Example:
        >>> describe("grpo"), describe(int), describe([1])
        ("'grpo'", 'the class int', 'a list')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    is_plain = value is None or isinstance(value, str | int | float)
    return repr(value) if is_plain else f"a {type(value).__name__}"


def check_range(low: float, high: float, owner: str, **settings: float | None) -> None:
    """Refuse settings outside a closed range. None and NaN are refused, too.

    Args:
        low: Smallest allowed value.
        high: Largest allowed value.
        owner: The option group or class that has the settings, for the message.
        settings: Values by name.

    Raises:
        UserError: for the first setting out of range.

    Example:
        >>> check_range(0, 1, "guards", max_accuracy_drop=0.1, min_diversity=0.7)
    """
    for name, value in settings.items():
        if value is None or not low <= value <= high:
            raise UserError(f"{owner}: {name} {value}; it must be from {low} to {high}")


def check_minimum(minimum: float, owner: str, **settings: float) -> None:
    """Refuse settings below a bound. NaN is refused, too.

    Args:
        minimum: Smallest allowed value.
        owner: The option group or class that has the settings, for the message.
        settings: Values by name.

    Raises:
        UserError: for the first setting below the bound.

    Example:
        >>> check_minimum(0, "grpo", beta=0.2, epsilon=0.0)
    """
    for name, value in settings.items():
        if not value >= minimum:
            raise UserError(f"{owner}: {name} {value}; it must be {minimum} or more")


def check_whole_number(owner: str, value: object, name: str, minimum: int) -> None:
    """Refuse a value from a file that is no whole number, or is below a bound.

    Args:
        owner: The file, for the message.
        value: What the file holds.
        name: The field.
        minimum: Smallest allowed value.

    Raises:
        UserError: the value is something else.

    Example:
        >>> check_whole_number("config.json", 128, "max_text_len", 3)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(f"{owner}: {name} is {value!r}; expected a whole number of {minimum} or more")


def check_temperature(owner: str, temperature: float | None, greedy: bool = True) -> None:
    """Refuse a sampling temperature that logits cannot be divided by.

    Args:
        owner: The option group or class that has the setting, for the message.
        temperature: The setting; a config can set it to null.
        greedy: Whether 0 is allowed and means greedy decoding.

    Raises:
        UserError: the temperature is out of range.

    Example:
        >>> check_temperature("model.rollout.answer_sampling", 0.7)
    """
    if temperature == 0 and greedy:
        return
    if temperature is None or not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        zero = ", or 0 for greedy decoding" if greedy else ""
        allowed = f"from {MIN_TEMPERATURE} to {MAX_TEMPERATURE}{zero}"
        raise UserError(f"{owner}: temperature {temperature}; it must be {allowed}")
