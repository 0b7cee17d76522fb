"""Link tokens: a slip is noticed, the file is closed to others, several secrets side by side."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fe_twisted.base.errors import BadSettings
from fe_twisted.storage.vault.token import MOST, PREFIX, format_token, new_token, parse_token, read_tokens, write_tokens

SECRET = bytes(range(32))


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(secret: bytes) -> None:
    text = format_token(secret)
    assert parse_token(text) == parse_token(f" {text.upper()}\n") == secret


def test_two_differ() -> None:
    assert new_token() != new_token()
    assert len(parse_token(new_token())) == 32


def test_every_single_slip_is_noticed() -> None:
    """Any character of it replaced by any other that a token may have, and any two neighbours swapped."""
    text = format_token(SECRET)
    for place in range(len(PREFIX), len(text)):
        for other in "abcdefghijklmnopqrstuvwxyz234567":
            if text[place] != other:
                with pytest.raises(BadSettings):
                    parse_token(text[:place] + other + text[place + 1 :])
        if place + 1 < len(text) and text[place] != text[place + 1]:
            with pytest.raises(BadSettings):
                parse_token(text[:place] + text[place + 1] + text[place] + text[place + 2 :])


@pytest.mark.parametrize("text", ["", "felink1_", "felink1_abc", SECRET.hex(), format_token(SECRET)[:-1], format_token(SECRET) + "a"])
def test_other_texts_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadSettings, match="not a link token") as refused:
        parse_token(text)
    assert not text or len(text) < 10 or text not in str(refused.value)


def test_another_version_is_told() -> None:
    with pytest.raises(BadSettings, match="another version"):
        parse_token(format_token(SECRET).replace("felink1_", "felink2_"))


def test_a_secret_of_another_size_is_no_secret() -> None:
    with pytest.raises(ValueError, match="32"):
        format_token(bytes(31))


def test_a_file_with_several_the_first_is_the_newest(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    write_tokens(file, [bytes(32), SECRET])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_tokens(file) == [bytes(32), SECRET]
    write_tokens(file, [SECRET])
    assert read_tokens(file) == [SECRET]
    assert [path.name for path in tmp_path.iterdir()] == ["link.key"]


def test_remarks_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    file.touch(mode=0o600)
    file.write_text(f"# of the box in the cellar\n\n{format_token(SECRET)}\n")
    assert read_tokens(file) == [SECRET]


def test_what_is_wrong_is_told_with_its_line_and_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    file.touch(mode=0o600)
    bad = format_token(SECRET)[:-1] + "2"
    file.write_text(f"{format_token(bytes(32))}\n{bad}\n")
    with pytest.raises(BadSettings, match="line 2: there is a slip") as refused:
        read_tokens(file)
    assert bad not in str(refused.value)
    file.write_text("# nothing\n")
    with pytest.raises(BadSettings, match="no link token"):
        read_tokens(file)
    file.write_bytes(b"\xff\n")
    with pytest.raises(BadSettings, match="not a file of link tokens"):
        read_tokens(file)
    write_tokens(file, [bytes([number]) * 32 for number in range(MOST + 1)])
    with pytest.raises(BadSettings, match="forget-old"):
        read_tokens(file)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    write_tokens(file, [SECRET])
    file.chmod(0o640)
    with pytest.raises(BadSettings, match="chmod 600"):
        read_tokens(file)
