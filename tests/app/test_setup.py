"""A new data folder: complete or not there at all."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509

from fe_twisted.app import setup
from fe_twisted.app.certificates import create_certificate, days_left
from fe_twisted.app.setup import CONFIG, UNFINISHED, Made, create
from fe_twisted.app.store import opened
from fe_twisted.base.errors import BadSettings, Refused, StorageFailed
from fe_twisted.servers.tls import ServerTLS

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)


def make(data: Path, **more: object) -> Made:
    arguments = {"hostname": "mail.example.org", "development": False, "port_offset": None, "example": False} | more
    return create(data, now=NOW, **arguments)  # type: ignore[arg-type]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_production_folder(tmp_path: Path) -> None:
    made = make(tmp_path / "data")
    assert made.new and not made.passwords
    assert made.settings.hostname == "mail.example.org"
    assert made.settings.ports() == {"mx": 25, "imap": 143, "imaps": 993}
    assert made.settings.plaintext_login_from_loopback is False
    ServerTLS(made.settings.certificate_file, made.settings.certificate_key_file)
    assert days_left(made.settings.certificate_file, NOW) == 825
    with opened(made.settings) as store:
        assert store.accounts.domains() == []
    assert not (tmp_path / "data" / UNFINISHED).exists()


def test_nobody_else_can_read_anything(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, development=True, example=True)
    assert data.stat().st_mode & 0o077 == 0
    for path in data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_example_aliases_have_mailboxes_that_their_passwords_open(tmp_path: Path) -> None:
    made = make(tmp_path / "data", development=True, example=True, hostname=None, port_offset=3000)
    assert [each.address for each in made.passwords] == ["hello@example.com", "world@example.com"]
    assert made.settings.ports()["mx"] == 3025
    with opened(made.settings) as store:
        for each in made.passwords:
            alias, key = store.accounts.unlock(each.address, each.password)
            assert store.files.check(alias.mailbox_id or "", key) == []


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "data", development=True, example=True)
    before = everything(tmp_path / "data")
    again = make(tmp_path / "data", development=True, example=True, hostname="other.example")
    assert not again.new and not again.passwords
    assert again.settings.hostname == "mail.example.org"
    assert everything(tmp_path / "data") == before


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="not empty"):
        make(tmp_path)
    assert everything(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool) -> None:
    data = tmp_path / "data"
    if existed:
        data.mkdir()

    def fail(*_: object, **__: object) -> None:
        raise StorageFailed

    monkeypatch.setattr(setup, "opened", fail)
    with pytest.raises(StorageFailed):
        make(data)
    assert data.exists() is existed
    assert list(tmp_path.rglob("*")) == ([data] if existed else [])


def test_what_a_killed_start_left_is_made_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "secrets").mkdir(parents=True)
    (data / "secrets" / "server.key").write_bytes(b"half")
    (data / CONFIG).write_text("")
    (data / UNFINISHED).touch()
    assert make(data).new
    assert not (data / UNFINISHED).exists()


@pytest.mark.parametrize("hostname", ["no name", 'a"b', "", "-x.example"])
def test_bad_host_name_is_refused_before_anything_is_made(tmp_path: Path, hostname: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup._own_name, "__defaults__", (lambda: "localhost",))
    with pytest.raises(BadSettings):
        make(tmp_path / "data", hostname=hostname)
    assert not (tmp_path / "data").exists()


def test_a_secondary_has_no_directory_of_its_own(tmp_path: Path) -> None:
    url = "postgresql://forwardemail@db.example.org/mail?passfile=/etc/pass"
    made = make(tmp_path / "data", primary="wss://one.example.org:7443", directory_url=url)
    settings = made.settings
    assert (settings.role, settings.primary, settings.directory_url) == ("secondary", "wss://one.example.org:7443", url)
    assert not settings.directory_file.exists() and settings.server_key_file.exists() and settings.certificate_file.exists()
    assert not (tmp_path / "data" / UNFINISHED).exists()


@pytest.mark.parametrize("primary", ["ws://one.example.org:7443", "one.example.org", 'wss://"\n:1'])
def test_a_primary_that_cannot_be_leaves_nothing_behind(tmp_path: Path, primary: str) -> None:
    with pytest.raises(BadSettings):
        make(tmp_path / "data", primary=primary, directory_url="postgresql://a@b/c")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("address", ["127.0.0.2", "2001:db8::7"])
def test_a_certificate_for_an_address(tmp_path: Path, address: str) -> None:
    """A peer that was told an address looks for it among the addresses of the certificate, not among the names."""
    create_certificate(tmp_path / "c.pem", tmp_path / "k.pem", address, NOW)
    names = x509.load_pem_x509_certificate((tmp_path / "c.pem").read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    found = [str(each) for each in names.value.get_values_for_type(x509.IPAddress)]
    assert found == [address, "127.0.0.1", "::1"]
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
