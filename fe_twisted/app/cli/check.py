"""``forwardemail check``: is everything in place for the server to run?"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import click

from fe_twisted.app.cli.terminal import table, terminal, verb
from fe_twisted.app.inspect import Finding, inspect


@click.command()
@verb
def check() -> int:
    """Look at settings, secrets, directory, mailbox files, certificate and ports. Nothing is changed."""
    out = terminal()
    settings = out.settings()
    findings = list(inspect(settings, datetime.datetime.now(datetime.UTC)))
    bad = sum(finding.status == "problem" for finding in findings)
    away = any(finding.status == "away" for finding in findings)
    well = "Nothing is wrong here, but not everything elsewhere answers." if away else "All is well."
    verdict = well if not bad else "1 problem." if bad == 1 else f"{bad} problems."
    text = "\n".join([table((), _rows(findings)), "", verdict])
    result = {"ok": not bad, "checks": [{"check": each.check, "status": each.status, "detail": each.detail} for each in findings]}
    out.say(text, result)
    return 1 if bad else 0


def _rows(findings: list[Finding]) -> Iterator[tuple[str, str, str]]:
    for finding in findings:
        yield finding.status, finding.check, finding.detail
