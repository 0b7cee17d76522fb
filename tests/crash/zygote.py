"""A process that has imported the whole program and forks a daemon on request, so that a start takes a tenth of a second.

What runs in the fork is ``twistd`` with its ordinary command line; only the imports were made before.  Reads one JSON object a line from
the standard input: ``{"argv": […], "env": {…}, "log": "file"}`` is answered with the process id, ``{"wait": pid}`` with its exit status or
``null`` while it runs.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys


def load() -> None:
    """Import everything but the reactor, whose file descriptors no two processes may share."""
    import fe_twisted

    for module in pkgutil.walk_packages(fe_twisted.__path__, "fe_twisted."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    for name in ("twisted.scripts.twistd", "twisted.scripts._twistd_unix", "twisted.plugins.forwardemail_plugin", "sqlcipher3", "apsw"):
        importlib.import_module(name)
    assert "twisted.internet.reactor" not in sys.modules, "something imports the reactor as a side effect"


def become(argv: list[str], environment: dict[str, str], log: str) -> None:
    """In the fork: turn into the daemon; never returns."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    status = 70
    try:
        from twisted.scripts.twistd import run

        run()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve until the standard input ends."""
    load()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: object
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                become(request["argv"], request["env"], request["log"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
