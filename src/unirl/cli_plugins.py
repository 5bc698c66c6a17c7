"""`unirl plugins`: what is installed, by kind."""

from unirl import cli_show
from unirl.errors import UserError
from unirl.hooks.host import host


def main(argv: list[str]) -> None:
    """Print every registered name, where it comes from, and every plugin that did not load.

    Args:
        argv: Empty, or `show` and a name.

    Raises:
        UserError: there were arguments, or two plugins register one name.
    """
    if argv and argv[0] == "show":
        cli_show.main(argv[1:])
        return
    if argv and argv[0] in ("-h", "--help"):
        print("usage: unirl plugins [show [KIND] NAME]")
        return
    if argv:
        raise UserError(f"'unirl plugins' takes no arguments, got {' '.join(argv)!r}")
    for kind, names in host().registry.items():
        for name, item in sorted(names.items()):
            print(f"{kind:<10}{name:<14}{item}")
    for failure in host().failures:
        print(f"failed    {failure}")
