"""Why a class could not be found without importing anything."""


class Unusable(Exception):
    """It can be said for sure that no class will be there; the message says why, on one line."""


class Unclear(Exception):
    """Only running the code would tell; the message says what stands in the way."""
