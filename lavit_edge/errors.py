"""The one exception that a command turns into a single line and exit code 2; and what of this package is not installed."""

from __future__ import annotations

LONGEST = 1000  # characters of a message; a file may quote itself into one
# what an app does without -> what brings it
INSTALL = {
    "torch": "'lavit-edge[torch]'",
    "rich": "'lavit-edge[torch]' to make artifacts, 'lavit-edge[bench]' to time them",
    "onnxruntime": "'lavit-edge[runtime]'",
}


class UserError(Exception):
    """Something the user can mend; its text is one line that says what is wrong and what to do.

    Names and values from files end up in it, so line breaks become spaces, and what a terminal would obey is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """What to say where a module of one of :data:`INSTALL` is missing; None for any other."""
    package = (error.name or "").partition(".")[0]
    if package not in INSTALL:
        return None
    return UserError(f"this needs {package}, which is not installed; pip install {INSTALL[package]}")


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters, cut in the middle when it is very long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
