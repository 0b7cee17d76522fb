"""Results as a table and as JSON, with what is needed to compare them: machine and versions."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("twisted", "apsw-sqlite3mc", "cryptography", "pyopenssl", "sqlalchemy")
PEERS = {"postfix": ["postconf", "-dh", "mail_version"], "dovecot": ["dovecot", "--version"]}


@dataclass(frozen=True)
class Row:
    """One measure: a name, a unit, a figure for each candidate, and which of them is ours.

    ``less_is_better`` says which way the ratio (ours to the best peer) is good; a ratio above 1.00 is always in our favour.
    """

    bench: str
    measure: str
    unit: str
    figures: dict[str, float]
    less_is_better: bool = True
    note: str = ""

    def ratio(self, ours: str, peer: str) -> float | None:
        """How many times better ``ours`` is than ``peer``; None when one of them has no figure."""
        mine, theirs = self.figures.get(ours), self.figures.get(peer)
        if not mine or not theirs:
            return None
        return theirs / mine if self.less_is_better else mine / theirs


@dataclass
class Report:
    """All rows of a run, in the order of measuring, and the failures: a wrong answer is a failure, however fast it came."""

    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take a row and print it at once: a whole run takes minutes."""
        self.rows.append(row)
        figures = "  ".join(f"{name} {_number(value)}" for name, value in row.figures.items())
        print(f"  {row.measure} [{row.unit}]: {figures}", flush=True)

    def fail(self, what: str) -> None:
        """Note a wrong answer."""
        self.failures.append(what)
        print(f"  WRONG: {what}", flush=True)

    def table(self) -> str:
        """The rows by benchmark, a column a candidate, and the ratio of our (first) column to each peer; above 1.00 is in our favour."""
        lines: list[str] = []
        for bench in dict.fromkeys(row.bench for row in self.rows):
            rows = [row for row in self.rows if row.bench == bench]
            names = list(dict.fromkeys(name for row in rows for name in row.figures))
            wide = max(len(row.measure) + len(row.unit) + 3 for row in rows)
            lines += ["", bench, " " * wide + "".join(f"{name:>20}" for name in names)]
            for row in rows:
                cells = [f"{f'{row.measure} [{row.unit}]':{wide}}"]
                for name in names:
                    if name not in row.figures:
                        cells.append(f"{'':>20}")
                        continue
                    ratio = row.ratio(names[0], name) if name != names[0] else None
                    times = f" ×{ratio:.2f}" if ratio is not None else ""
                    cells.append(f"{_number(row.figures[name]) + times:>20}")
                lines.append("".join(cells) + (f"  {row.note}" if row.note else ""))
        lines += ["", "× how many times better the first column is than this one (above 1.00: in favour of the first)"]
        lines += [f"WRONG: {failure}" for failure in self.failures]
        return "\n".join(lines)

    def as_json(self) -> str:
        """Everything, with the machine and the versions."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return json.dumps({"machine": machine(), "rows": rows, "failures": self.failures}, indent=1, ensure_ascii=False)


def _number(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine() -> dict[str, object]:
    """The machine and the versions of everything that is measured."""
    facts: dict[str, object] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "processor": _processor(),
        "load": os.getloadavg(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    for name, command in PEERS.items():
        if shutil.which(command[0]):
            facts[name] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return facts


def _processor() -> str:
    """The model name, where Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
