"""Everything at once: twenty clients, and processes and networks that fail at random moments.  ``make soak`` does it for minutes."""

from __future__ import annotations

from pathlib import Path

from tests.soak import faults
from tests.soak.boxes import closing, one, several
from tests.soak.engine import Soak, access, seed


def test_one_box_with_workers(tmp_path: Path) -> None:
    with closing(one(tmp_path, mailbox_access=access("one box"))) as service:
        soak = Soak(service, seed())
        soak.start()
        soak.suffer(faults.ONE)
        soak.end()


def test_several_boxes(tmp_path: Path, postgresql_url: str) -> None:
    how = access("several boxes")
    with closing(several(tmp_path, postgresql_url, shared=how != "link", mailbox_access=how)) as service:
        soak = Soak(service, seed())
        soak.start()
        soak.suffer(faults.SEVERAL)
        soak.end()
