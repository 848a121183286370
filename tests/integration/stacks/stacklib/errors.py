"""Errors of the command `stack`.

- StackError: something failed; the message says what, and what to do next
    - CannotRunHereError: this machine or user cannot run any stack
"""


class StackError(Exception):
    """Something failed; the message says what, and what to do next."""

    exit_code = 1


class CannotRunHereError(StackError):
    """This machine or user cannot run any stack; test runners know the code as "skipped"."""

    exit_code = 77
