"""Arguments of the commands that take no config."""

import argparse
from typing import NoReturn

from unirl.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """argparse's, whose refusals are one line; where a page of usage would be printed, it is named."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.prog.removeprefix('unirl ')}: {message}; see `{self.prog} --help`")
