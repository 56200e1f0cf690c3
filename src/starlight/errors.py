"""Command-line errors: one line on stderr and a non-zero exit code, never a traceback.

Every command of the project is a `OneLineErrors` or in a `CommandGroup`. Loads nothing but click.
"""

from __future__ import annotations

from typing import Any

import click

USER_ERRORS = (ValueError, TypeError, ImportError, OSError)


class CommandError(click.ClickException):
    """What the user sees of an error: `Error: ...`, exit code 2."""

    exit_code = 2

    def __init__(self, error: BaseException) -> None:
        text = str(error) or type(error).__name__
        super().__init__("; ".join(line.strip() for line in text.splitlines() if line.strip()))


class OneLineErrors(click.Command):
    """A command that reports `USER_ERRORS` and misuse as one line; a defect still traces back."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _without_usage(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has gone: click ends quietly
            raise
        except USER_ERRORS as error:
            raise CommandError(error) from error
        except click.UsageError as error:  # of a subcommand
            raise _without_usage(error) from error


def _without_usage(error: click.UsageError) -> click.UsageError:
    """click prints the usage, two lines more, only for an error that knows its context."""
    text = error.format_message()
    if error.ctx is not None:
        text += f" Try '{error.ctx.command_path} --help'."
    return click.UsageError(text)


class CommandGroup(OneLineErrors, click.Group):
    """A group whose commands report `USER_ERRORS` and misuse as one line."""
