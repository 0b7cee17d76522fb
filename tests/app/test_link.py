"""``forwardemail link``: the token goes from box to box by standard output and input, and lies in files of mode 0600."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fe_twisted.app.secrets import link_secrets, own_link_secret
from fe_twisted.base.errors import BadSettings
from fe_twisted.base.load import load
from fe_twisted.storage.vault.token import format_token, parse_token, read_tokens
from tests.app.test_cli import Shell, shell

__all__ = ["shell"]

KEY = bytes(range(32))


def secret_file(shell: Shell) -> Path:
    return shell.data / "secrets" / "link.key"


def secondary(shell: Shell) -> None:
    lines = 'role = "secondary"\nprimary = "wss://one.example.org:7443"\ndirectory_url = "postgresql://forwardemail@/mail"\n'
    shell.config.write_text(shell.config.read_text() + lines)


def test_the_token_is_made_once_and_printed_again(shell: Shell) -> None:
    made = shell.json("link", "token")
    assert made["changed"] and made["accepted"] == 1
    assert stat.S_IMODE(secret_file(shell).stat().st_mode) == 0o600
    assert read_tokens(secret_file(shell)) == [parse_token(made["token"])]
    assert made["token"] in shell("link", "token")
    assert shell.json("link", "token") == {"token": made["token"], "accepted": 1, "changed": False}


def test_a_new_one_and_the_old_one_until_it_is_forgotten(shell: Shell) -> None:
    old, new = shell.json("link", "token")["token"], shell.json("link", "token", "--new")["token"]
    assert old != new
    assert read_tokens(secret_file(shell)) == [parse_token(new), parse_token(old)]
    assert "--forget-old" in shell("link", "token")
    assert shell.json("link", "token", "--forget-old") == {"token": new, "accepted": 1, "changed": True}
    assert read_tokens(secret_file(shell)) == [parse_token(new)]


def test_a_secondary_takes_it_over_from_the_standard_input(shell: Shell) -> None:
    secondary(shell)
    first, second = format_token(KEY), format_token(bytes(32))
    assert first not in shell("link", "join", stdin=f"  {first}\n")
    assert stat.S_IMODE(secret_file(shell).stat().st_mode) == 0o600
    assert "was there already" in shell("link", "join", stdin=first)
    assert shell.json("link", "join", stdin=f"{second}\n") == {"accepted": 2, "changed": True}
    assert read_tokens(secret_file(shell)) == [bytes(32), KEY]
    assert "a primary" in shell("link", "token", status=1)


def test_a_slip_changes_nothing_and_is_not_repeated(shell: Shell) -> None:
    bad = format_token(KEY)[:-3] + "222"
    text = shell("link", "join", stdin=f"{bad}\n", status=1)
    assert "slip" in text and bad not in text
    shell("link", "join", stdin="\n", status=2)
    assert not secret_file(shell).exists()


def test_it_is_never_an_argument(shell: Shell) -> None:
    shell("link", "join", format_token(KEY), status=2)


def test_what_a_process_calls_with_and_accepts(shell: Shell) -> None:
    settings = load(shell.config, {})
    own = own_link_secret(KEY)
    assert link_secrets(settings, KEY) == [own]
    assert own != KEY and own != own_link_secret(bytes(32))
    with pytest.raises(BadSettings, match="link token"):
        link_secrets(load(shell.config, {"FORWARDEMAIL_LINK_PORT": "7443"}), KEY)
    token = parse_token(shell.json("link", "token")["token"])
    assert link_secrets(settings, KEY) == [token, own]


def test_a_secondary_without_one_is_told_what_to_do(shell: Shell) -> None:
    secondary(shell)
    settings = load(shell.config, {})
    with pytest.raises(BadSettings, match="link join"):
        link_secrets(settings, KEY)
    shell("link", "join", stdin=format_token(KEY))
    assert link_secrets(settings, KEY) == [KEY, own_link_secret(KEY)]


URL = "postgresql://forwardemail@/mail"


def test_init_of_a_secondary(shell: Shell, tmp_path: Path) -> None:
    call = (
        "init",
        "--data",
        str(tmp_path / "two"),
        "--role",
        "secondary",
        "--primary",
        "wss://one.example.org:7443",
        "--hostname",
        "two.example.org",
    )
    text = shell(*call, "--directory-url", URL)
    assert "link join" in text and "link_authority" in text
    again = shell.json(*call, "--directory-url", URL)
    assert (again["new"], again["role"], again["aliases"]) == (False, "secondary", [])


@pytest.mark.parametrize(
    "options",
    [
        ("--role", "secondary"),
        ("--role", "secondary", "--primary", "wss://a:1"),
        ("--role", "secondary", "--directory-url", URL),
        ("--role", "secondary", "--primary", "wss://a:1", "--directory-url", URL, "--development", "--example"),
        ("--primary", "wss://a:1"),
    ],
)
def test_half_a_secondary_is_wrong_usage(shell: Shell, tmp_path: Path, options: tuple[str, ...]) -> None:
    shell("init", "--data", str(tmp_path / "two"), *options, status=2)
    assert not (tmp_path / "two").exists()


def test_check_looks_at_what_links_need(shell: Shell) -> None:
    def findings(status: int) -> dict[str, tuple[str, str]]:
        checks = shell.json("check", status=status)["checks"]
        return {each["check"]: (each["status"], each["detail"]) for each in checks if each["check"].startswith("link")}

    assert findings(0) == {}
    shell.config.write_text(shell.config.read_text() + 'link_port = 7443\nlink_authority = "tls/primaries.pem"\n')
    found = findings(1)
    assert found["link token"][0] == "problem" and "link token" in found["link token"][1]
    assert found["link authority"][0] == "problem"
    shell("link", "token")
    certificate = (shell.data / "tls" / "certificate.pem").read_bytes()
    (shell.data / "tls" / "primaries.pem").write_bytes(certificate * 2)
    found = findings(0)
    assert found["link token"][0] == "ok" and found["link authority"] == ("ok", f"2 certificates in {shell.data}/tls/primaries.pem")
    shell("link", "token", "--new")
    assert findings(0)["link token"][0] == "note"
    (shell.data / "tls" / "primaries.pem").write_bytes(b"nothing")
    assert findings(1)["link authority"][0] == "problem"


def test_check_names_queued_mail_that_nobody_will_take(shell: Shell) -> None:
    """An alias was removed while its mail waited here for a primary that was away."""
    shell("domain", "add", "example.com")
    shell("alias", "add", "kept@example.com")
    shell("alias", "password", "kept@example.com")
    kept, gone = shell.json("alias", "show", "kept@example.com")["mailbox"], "f" * 24
    folder = shell.data / "queue" / "1"
    folder.mkdir(parents=True)
    for name in (kept, gone):
        (folder / f"{name}.sqlite").write_bytes(b"")
    checks = shell.json("check")["checks"]
    [found] = [each for each in checks if each["check"] == "queue files"]
    assert found["status"] == "note" and f"1/{gone}.sqlite holds mail of a mailbox that was removed" in found["detail"]
