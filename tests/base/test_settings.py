"""The settings file: every bad one says all that is wrong with it, and the example in conf/ is what the declaration says."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from fe_twisted.base.errors import BadSettings
from fe_twisted.base.load import load
from fe_twisted.base.settings import BY_NAME, SETTINGS, Settings, describe

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BAD = sorted(path for path in (HERE / "badconfigs").iterdir() if path.is_dir())


def write(folder: Path, text: str) -> Path:
    file = folder / "forwardemail.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_bad_file_is_refused_with_everything_that_is_wrong(folder: Path) -> None:
    file = folder / "forwardemail.toml"
    with pytest.raises(BadSettings) as refused:
        load(file, {})
    assert str(refused.value).replace(str(file), "FILE") + "\n" == (folder / "expected.txt").read_text()


def test_every_problem_names_its_line_and_a_remedy() -> None:
    for folder in BAD:
        for line in (folder / "expected.txt").read_text().splitlines()[1:]:
            assert re.match(r"  line \d+: .+; .+", line), line


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="No such file or directory; make one with: forwardemail init"):
        load(tmp_path / "none.toml", {})


def test_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "forwardemail.toml"
    file.write_bytes(b'hostname = "\xff"\n')
    with pytest.raises(BadSettings, match="not UTF-8"):
        load(file, {})


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""), {})
    for setting in SETTINGS:
        assert getattr(settings, setting.name) == setting.default
    assert settings.data_folder == tmp_path
    assert settings.ports() == {"mx": 25, "imap": 143, "imaps": 993}


def test_development_has_defaults_of_its_own_that_a_line_overrides(tmp_path: Path) -> None:
    settings = load(write(tmp_path, 'development = true\nlog_addresses = "none"\n'), {})
    assert settings.interfaces == ["127.0.0.1", "::1"]
    assert settings.ports() == {"mx": 2025, "imap": 2143, "imaps": 2993}
    assert settings.plaintext_login_from_loopback is True
    assert settings.log_addresses == "none"


def test_port_zero_switches_a_door_off(tmp_path: Path) -> None:
    assert load(write(tmp_path, "development = true\nimap_port = 0\n"), {}).ports() == {"mx": 2025, "imaps": 2993}


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "imap_port = 1143\nhostname = 'a.example'\n")
    settings = load(
        file,
        {
            "FORWARDEMAIL_IMAP_PORT": "2143",
            "FORWARDEMAIL_DEVELOPMENT": "yes",
            "FORWARDEMAIL_INTERFACES": "127.0.0.1, ::1",
            "FORWARDEMAIL_WORKERS": "0",
            "FORWARDEMAIL_CONFIG": "elsewhere",
            "FORWARDEMAIL_CRASH_AT": "deliver.start",
            "HOME": "/root",
        },
    )
    assert settings.imap_port == 2143
    assert settings.hostname == "a.example"
    assert settings.development is True
    assert settings.interfaces == ["127.0.0.1", "::1"]


def test_environment_problems_stand_beside_those_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as refused:
        load(
            write(tmp_path, "cipher = 'none'\n"),
            {
                "FORWARDEMAIL_WORKERS": "two",
                "FORWARDEMAIL_HOSTNAM": "x",
                "FORWARDEMAIL_imap_port": "1",
                "FORWARDEMAIL_DEVELOPMENT": "maybe",
            },
        )
    assert str(refused.value).splitlines()[1:] == [
        '  line 1: cipher: "none" is none of the choices; write one of: chacha20, aegis',
        '  environment FORWARDEMAIL_DEVELOPMENT: "maybe" is neither true nor false; write true or false, without quotes',
        "  environment FORWARDEMAIL_HOSTNAM: no such setting; did you mean FORWARDEMAIL_HOSTNAME?",
        '  environment FORWARDEMAIL_WORKERS: "two" is not a whole number (processes); write it without quotes, for example -1',
        "  environment FORWARDEMAIL_imap_port: no such setting; did you mean FORWARDEMAIL_IMAP_PORT?",
    ]


def test_a_password_in_the_url_is_not_repeated() -> None:
    assert "hunter2" not in (HERE / "badconfigs" / "password" / "expected.txt").read_text()


def test_relative_data_starts_at_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, 'data = "mail"\ntls_certificate = "/etc/c.pem"\ntls_key = "k.pem"\n'), {})
    assert settings.mailbox_folder == tmp_path / "mail" / "mailboxes"
    assert settings.certificate_file == Path("/etc/c.pem")
    assert settings.certificate_key_file == tmp_path / "mail" / "k.pem"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""), {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.hostname = "x"  # type: ignore[misc]


def test_example_file_is_fresh() -> None:
    stale = "conf/forwardemail.toml is stale; run: forwardemail config describe > conf/forwardemail.toml"
    assert (ROOT / "conf" / "forwardemail.toml").read_text() == describe(), stale


def test_example_file_names_every_setting_once_with_its_default() -> None:
    lines = [line[1:] for line in describe().splitlines() if re.match(r"#[a-z_]+ = ", line)]
    assert tomllib.loads("\n".join(lines)) == {setting.name: setting.default for setting in SETTINGS}


def test_example_file_as_it_is_gives_the_defaults() -> None:
    assert load(ROOT / "conf" / "forwardemail.toml", {}).hostname == "localhost"


def test_declaration_is_sound() -> None:
    assert set(BY_NAME) == {field.name for field in dataclasses.fields(Settings)} - {"file"}
    for setting in SETTINGS:
        assert setting.text.endswith("."), setting.name
        assert setting.section
        assert isinstance(setting.default, setting.type)
        if setting.type is int:
            assert setting.minimum is not None and setting.maximum is not None
            for default in (setting.default, setting.default_for(True)):
                assert setting.minimum <= default <= setting.maximum
        if setting.choices:
            assert setting.default in setting.choices
            assert setting.default_for(True) in setting.choices
