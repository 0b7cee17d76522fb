"""``forwardemail``: the administrative verbs.

A skin only: what is done is in :mod:`fe_twisted.services.accounts` and :mod:`fe_twisted.app`.  Text for people by default, exactly one JSON
object on the standard output with ``--json``, errors included.  Exit status: 0 done, 1 refused with a reason, 2 wrong usage.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import click

from fe_twisted.app.cli.alias import alias
from fe_twisted.app.cli.check import check
from fe_twisted.app.cli.config import config
from fe_twisted.app.cli.directory import directory
from fe_twisted.app.cli.domain import domain
from fe_twisted.app.cli.init import init
from fe_twisted.app.cli.link import link
from fe_twisted.app.cli.mailbox import mailbox
from fe_twisted.app.cli.reload import reload
from fe_twisted.app.cli.status import status
from fe_twisted.app.cli.terminal import Terminal, code_of, report, verb
from fe_twisted.app.cli.version import version
from fe_twisted.base.errors import MailError

DONE, FAILED, USAGE = 0, 1, 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@verb
def cli() -> None:
    """Administer a mail server with one encrypted file per alias.

    Every command works while the server runs and while it does not.
    The server itself is started with: twistd --nodaemon forwardemail --config FILE
    """


for command in (init, check, directory, domain, alias, mailbox, link, config, reload, status, version):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    terminal = Terminal()
    # Known before parsing, for a wrong usage is reported as JSON too.
    as_json = "--json" in arguments
    try:
        status = cli.main(args=list(arguments), prog_name="forwardemail", standalone_mode=False, obj=terminal)
    except click.Abort:
        report("interrupted, nothing more was done", "interrupted", as_json)
        return FAILED
    except click.UsageError as error:
        if as_json:
            report(error.format_message(), "usage", True)
        else:
            error.show()
        return USAGE
    except click.ClickException as error:
        report(error.format_message(), "usage", as_json)
        return USAGE
    except MailError as error:
        text = f"{error.public} ({error.reason})" if error.reason else error.public
        report(text, code_of(error), as_json)
        return FAILED
    except OSError as error:
        report(str(error), "system", as_json)
        return FAILED
    return status if isinstance(status, int) else DONE
