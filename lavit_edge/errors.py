"""The one exception that a command turns into a single line and exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; its text is one line that says what is wrong and what to do."""
