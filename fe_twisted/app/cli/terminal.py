"""How every verb reads its options and says what it did: text for people, or one JSON object."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from fe_twisted.base.errors import MailError
from fe_twisted.base.load import load
from fe_twisted.base.settings import PREFIX, Settings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Terminal:
    """What was said before, between and after the verbs."""

    config: Path | None = None
    json: bool = False

    def settings(self) -> Settings:
        """The settings file that was named.

        :raises BadSettings:
        :raises click.UsageError: none was named.
        """
        file = self.config or os.environ.get(f"{PREFIX}CONFIG")
        if not file:
            raise click.UsageError(f"which settings? Give --config FILE, or set {PREFIX}CONFIG")
        return load(file, os.environ)

    def say(self, text: str, result: dict[str, Any]) -> None:
        """The one answer of a verb."""
        click.echo(json.dumps(result, ensure_ascii=False, default=str) if self.json else text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns of plain text, as wide as they need to be; long lines are left to the terminal."""
    console = Console(width=10_000, color_system=None, highlight=False, markup=False, emoji=False)
    made = Table(*heads, box=None, pad_edge=False, show_header=bool(heads))
    for row in rows:
        made.add_row(*row)
    with console.capture() as capture:
        console.print(made)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def verb(function: F) -> F:
    """Add ``--config`` and ``--json`` to a command; also to the groups, so that both places work."""

    def set_config(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            _of(context).config = value

    def set_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            _of(context).json = True

    file = click.Path(dir_okay=False, path_type=Path)
    with_json = click.option("--json", is_flag=True, expose_value=False, callback=set_json, help="Print one JSON object instead of text.")
    with_config = click.option(
        "--config", type=file, metavar="FILE", expose_value=False, callback=set_config, help=f"The settings file; else {PREFIX}CONFIG."
    )
    decorated: F = with_config(with_json(function))
    return decorated


def terminal() -> Terminal:
    """Of the command that runs now."""
    return _of(click.get_current_context())


def _of(context: click.Context) -> Terminal:
    return context.find_root().ensure_object(Terminal)


def password_from_input() -> str:
    """One line of the standard input without its end, asked for without echo when that is a terminal.

    :raises click.UsageError: nothing came.
    """
    asked = sys.stdin.isatty()
    password = str(click.prompt("Password", hide_input=True, err=True)) if asked else sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("a password was expected on the standard input, and nothing came")
    return password


def code_of(error: MailError) -> str:
    """The class name of an error in small letters: ``already_exists``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def report(text: str, code: str, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """An error: the object on the standard output, or a line on the standard error."""
    if as_json:
        click.echo(json.dumps({"error": text, "code": code, **(more or {})}, ensure_ascii=False))
    else:
        click.echo(f"forwardemail: {text}", err=True)
