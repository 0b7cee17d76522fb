"""Secret files: made closed, and refused when they are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fe_twisted.base.errors import AlreadyExists, BadSettings
from fe_twisted.storage.vault.secret import create_server_key, load_server_key, read_secret, write_secret


def test_a_key_is_made_once_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    old = os.umask(0)
    try:
        key = create_server_key(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) == 32
    assert load_server_key(path) == key
    with pytest.raises(AlreadyExists):
        create_server_key(path)
    assert path.read_bytes() == key


def test_two_keys_differ(tmp_path: Path) -> None:
    assert create_server_key(tmp_path / "a") != create_server_key(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o610, 0o620])
def test_a_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "server.key"
    create_server_key(path)
    path.chmod(mode)
    with pytest.raises(BadSettings, match="chmod 600"):
        load_server_key(path)
    with pytest.raises(BadSettings, match="chmod 600"):
        read_secret(path)


def test_a_link_to_an_open_file_is_judged_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    create_server_key(path)
    (tmp_path / "link").symlink_to(path)
    assert load_server_key(tmp_path / "link") == path.read_bytes()
    path.chmod(0o644)
    with pytest.raises(BadSettings):
        load_server_key(tmp_path / "link")


def test_systemd_credentials_may_show_group_bits_and_nothing_else_may(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    key = create_server_key(path)
    path.chmod(0o440)
    assert load_server_key(path, credentials=tmp_path) == key
    with pytest.raises(BadSettings):
        load_server_key(path, credentials=tmp_path / "elsewhere")
    path.chmod(0o444)
    with pytest.raises(BadSettings):
        load_server_key(path, credentials=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    create_server_key(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(BadSettings, match="another user"):
        load_server_key(path)


@pytest.mark.parametrize("octets", [b"", b"x" * 31, bytes(range(33)), bytes(32), b"\xff" * 32])
def test_what_is_no_key_is_refused(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "server.key"
    write_secret(path, octets)
    with pytest.raises(BadSettings):
        load_server_key(path)


def test_other_secrets_have_any_size_within_reason(tmp_path: Path) -> None:
    write_secret(tmp_path / "token", b"abc\n")
    assert read_secret(tmp_path / "token") == b"abc\n"
    write_secret(tmp_path / "large", b"x" * 65537)
    with pytest.raises(BadSettings, match="too large"):
        read_secret(tmp_path / "large")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("fifo", "missing", "."):
        with pytest.raises(BadSettings):
            read_secret(tmp_path / name)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSettings):
        create_server_key(tmp_path / "missing" / "server.key")


def test_no_message_holds_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_secret(path, b"hunter2")
    with pytest.raises(BadSettings) as caught:
        load_server_key(path)
    assert "hunter2" not in f"{caught.value} {caught.value.reason}"
