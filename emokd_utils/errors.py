"""The one exception for what a user can mend."""


class InputError(ValueError):
    """What was given cannot be used; the message names the file or value and the mend."""
