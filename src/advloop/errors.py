"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input. Its message is one line that names the file, the value and the fix.

    Stages print it without a traceback and exit with status 1.
    """
