"""``forwardemail config``: what can be set."""

from __future__ import annotations

import click

from fe_twisted.app.cli.terminal import terminal, verb
from fe_twisted.base.settings import SETTINGS, describe


@click.group()
@verb
def config() -> None:
    """The settings file."""


@config.command("describe")
@verb
def describe_() -> None:
    """Print the example file: every setting with its meaning, limits and default."""
    found = [
        {
            "name": each.name,
            "type": each.type.__name__,
            "unit": each.unit,
            "default": each.default,
            "development": each.default_for(True),
            "choices": list(each.choices),
            "minimum": each.minimum,
            "maximum": each.maximum,
            "text": each.text,
        }
        for each in SETTINGS
    ]
    terminal().say(describe().rstrip("\n"), {"settings": found})
