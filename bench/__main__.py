"""``python -m bench [--quick] [--only NAME …] [--json FILE]``: run the benchmarks and print the table of ratios."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import imap, mx, report, sessions, workers
from bench.dovecot import VARIANTS

Benchmark = Callable[[report.Report, argparse.Namespace], None]
BENCHMARKS: dict[str, Benchmark] = {
    "mx": mx.run,
    "merge": sessions.run_merge,
    "login": sessions.run_login,
    "idle": sessions.run_idle,
    "imap": imap.run,
    "tls": imap.run_tls,
    "memory": sessions.run_memory,
    "crowd": sessions.run_crowd,
    "workers": workers.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages and fewer rounds")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--large", action="store_true", help="also with 100,000 messages")
    parser.add_argument("--sessions", type=int, metavar="N", help="in crowd: so many")
    parser.add_argument("--peers", metavar="NAME,…", help="only these of Dovecot's formats in imap and tls: " + ", ".join(VARIANTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    options = parser.parse_args()
    results = report.Report()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the servers are ended too
    benchmarks = BENCHMARKS | ({"large": imap.run_large} if options.large else {})
    for name, run in benchmarks.items():
        if not options.only or name in options.only or name == "large":
            print(f"{name} …", flush=True)
            run(results, options)
    print(results.table())
    if options.json:
        options.json.write_text(results.as_json() + "\n")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
