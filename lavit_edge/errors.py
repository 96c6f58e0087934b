"""The one exception that a command turns into a single line and exit code 2."""

from __future__ import annotations

LONGEST = 1000  # characters of a message; a file may quote itself into one


class UserError(Exception):
    """Something the user can mend; its text is one line that says what is wrong and what to do.

    Names and values from files end up in it, so line breaks become spaces, and what a terminal would obey is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters, cut in the middle when it is very long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
