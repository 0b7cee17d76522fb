"""A folder whose waiting mail is encrypted under another server key is left as it is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fe_twisted.app.keymark import NAME, QUEUED, TEMPORARY, foreign, keep
from fe_twisted.base.errors import BadSettings

OWN, OTHER = bytes(32), bytes(31) + b"\x01"
KEY = Path("server.key")


def test_the_mark_is_left_once_and_tells_nothing(tmp_path: Path) -> None:
    keep(tmp_path, OWN, TEMPORARY, KEY)
    before = (tmp_path / NAME).stat()
    assert stat.S_IMODE(before.st_mode) == 0o600
    assert OWN.hex() not in (tmp_path / NAME).read_text()
    keep(tmp_path, OWN, TEMPORARY, KEY)
    assert (tmp_path / NAME).stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(("waiting", "name"), [
    (TEMPORARY, "a1-tmp.sqlite"), (TEMPORARY, "a1-tmp.saving-1"), (QUEUED, "1/a1.sqlite"), (QUEUED, "2/a1.saving-3"),
])  # fmt: skip
def test_another_key_is_refused_while_something_waits(tmp_path: Path, waiting: tuple[str, ...], name: str) -> None:
    keep(tmp_path, OWN, waiting, KEY)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert foreign(tmp_path, OTHER, waiting)
    with pytest.raises(BadSettings, match=r"waits in .* under another server key than the one in server\.key"):
        keep(tmp_path, OTHER, waiting, KEY)
    assert not foreign(tmp_path, OWN, waiting)
    keep(tmp_path, OWN, waiting, KEY)
    # Lost for good: the way that the refusal names.
    (tmp_path / NAME).unlink()
    keep(tmp_path, OTHER, waiting, KEY)
    assert foreign(tmp_path, OWN, waiting)


@pytest.mark.parametrize("name", ["a1.sqlite", "a1-tmp.damaged-1", "b"])
def test_where_nothing_waits_the_key_may_be_a_new_one(tmp_path: Path, name: str) -> None:
    """Mailboxes open by passwords alone."""
    keep(tmp_path, OWN, TEMPORARY, KEY)
    (tmp_path / name).touch()
    keep(tmp_path, OTHER, TEMPORARY, KEY)
    assert not foreign(tmp_path, OTHER, TEMPORARY)


def test_a_mark_that_was_cut_short_stops_nobody_for_ever(tmp_path: Path) -> None:
    """It is put in place whole; what is left of an attempt is written over."""
    (tmp_path / f".{NAME}.new").write_bytes(b"12")
    keep(tmp_path, OWN, TEMPORARY, KEY)
    assert not foreign(tmp_path, OWN, TEMPORARY)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
