"""From nothing to a running service, by the command line alone."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
from pathlib import Path

from tests.whole.daemon import Daemon, simple, until
from tests.whole.wire import Imap, Smtp


def test_first_run_to_first_message(tmp_path: Path) -> None:
    """The path of the how-to: init, domain, alias, password, start, send, read."""
    daemon = Daemon(tmp_path / "var")
    daemon.init()
    daemon.cli("alias", "add", "hello@example.com")
    answer = daemon.json("alias", "password", "hello@example.com")
    assert answer["address"] == "hello@example.com"
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", answer["password"]), "24 characters that need no quoting anywhere"
    daemon.start()
    message = simple("first message")
    daemon.send("hello@example.com", message)
    client = daemon.imaps()
    client.login("hello@example.com", answer["password"])
    assert client.select("INBOX")[1] == [b"1"]
    stored = client.fetch("1", "(BODY.PEEK[])")[1][0]
    assert isinstance(stored, tuple) and stored[1].endswith(message)
    client.logout()
    daemon.stop()


def test_secrets_are_for_the_owner_only(fresh: Daemon) -> None:
    fresh.owner("hello")
    for path in fresh.files():
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.suffix not in (".toml",) and "certificate" not in path.name:
            assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
    for folder in [fresh.data, *(path for path in fresh.data.rglob("*") if path.is_dir())]:
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0, folder


def test_init_twice_keeps_what_is_there(fresh: Daemon) -> None:
    """A second init on the same folder changes nothing."""
    owner = fresh.owner("hello")
    before = {path: path.read_bytes() for path in fresh.files()}
    again = fresh.run("init", "--data", str(fresh.data), "--development")
    assert again.returncode in (0, 1) and "Traceback" not in again.stderr
    assert {path: path.read_bytes() for path in fresh.files()} == before
    fresh.start()
    assert fresh.messages(owner) == []


def test_loopback_only_in_development(fresh: Daemon) -> None:
    fresh.start()
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for door in ("mx", "imap", "imaps"):
        port = f"{fresh.port(door):04X}"
        addresses = re.findall(rf"^\s*\d+: ([0-9A-F]+):{port} [0-9A-F:]+ 0A ", listening, re.MULTILINE)
        assert addresses and set(addresses) <= {"0100007F", "00000000000000000000000001000000"}, (door, addresses)


def test_check_says_all_is_well(fresh: Daemon) -> None:
    fresh.owner("hello")
    fresh.cli("check")
    fresh.start()
    fresh.cli("check")


def test_check_names_what_is_wrong(fresh: Daemon) -> None:
    """A server key that others can read is refused by check and by the daemon, with the file's name."""
    (key,) = [path for path in fresh.files() if path.name == "server.key"]
    key.chmod(0o644)
    text = fresh.cli("check", status=1)
    assert "server.key" in text
    fresh.start(wait=False)
    assert fresh.process is not None
    assert fresh.process.wait(30) != 0
    fresh.process = None
    assert "server.key" in fresh.log()
    assert "Traceback" not in fresh.log()


def test_a_bad_settings_file_is_refused_with_all_its_problems(fresh: Daemon) -> None:
    with fresh.config.open("a") as file:
        file.write('\nhostnam = "x"\nmx_timeout_seconds = "soon"\n')
    fresh.start(wait=False)
    assert fresh.process is not None
    assert fresh.process.wait(30) != 0
    fresh.process = None
    log = fresh.log()
    assert "hostname" in log and "mx_timeout_seconds" in log, log
    assert "Traceback" not in log


def test_version_and_help() -> None:
    daemon = Daemon(Path("/nonexistent"))
    version = daemon.run("version")
    assert version.returncode == 0 and re.search(r"\d+\.\d+", version.stdout)
    assert json.loads(daemon.run("version", "--json").stdout)
    assert daemon.run("--help").returncode == 0
    assert daemon.run("config", "describe").returncode == 0


def test_exit_statuses(fresh: Daemon) -> None:
    """0 done, 1 refused with a reason, 2 wrong usage."""
    assert fresh.run("no-such-verb").returncode == 2
    assert fresh.run("alias", "add").returncode == 2
    assert "nowhere.example" in fresh.cli("alias", "add", "a@nowhere.example", status=1)
    assert fresh.cli("alias", "show", "nobody@example.com", status=1)
    assert fresh.cli("domain", "add", "not a domain", status=1)
    missing = fresh.run("alias", "list", "--config", str(fresh.data / "missing.toml"))
    assert missing.returncode == 1 and "missing.toml" in missing.stderr + missing.stdout
    assert "Traceback" not in missing.stderr


def test_config_from_the_environment(fresh: Daemon) -> None:
    done = fresh.run("domain", "list", env={"FORWARDEMAIL_CONFIG": str(fresh.config)})
    assert done.returncode == 0 and "example.com" in done.stdout


def test_a_port_that_is_taken_is_named(fresh: Daemon) -> None:
    with socket.create_server(("127.0.0.1", fresh.port("imaps"))):
        fresh.start(wait=False)
        assert fresh.process is not None
        assert fresh.process.wait(30) != 0
    fresh.process = None
    assert str(fresh.port("imaps")) in fresh.log()


def test_stop_says_goodbye(fresh: Daemon) -> None:
    """SIGTERM: IMAP sessions get BYE, SMTP ones 421, what was accepted is there after the next start."""
    owner = fresh.owner("hello")
    fresh.start()
    with Smtp(fresh) as smtp, Imap(fresh, owner, "INBOX") as imap:
        smtp.envelope(owner.address)
        assert smtp.data(simple("kept")).startswith(b"250")
        assert fresh.process is not None
        fresh.process.send_signal(signal.SIGTERM)
        answers = imap.rest()
        assert b"* BYE" in answers
        goodbye = smtp.rest()
        assert goodbye.startswith(b"421") or goodbye == b""
        assert fresh.process.wait(30) in (0, -signal.SIGTERM)
    fresh.process = None
    fresh.assert_no_trouble()
    fresh.start()
    (stored,) = fresh.messages(owner)
    assert b"Subject: kept" in stored


def test_sessions_of_the_log(fresh: Daemon) -> None:
    """One line an event with a connection id; never a password, never content; an id from a reply is found in the log."""
    owner = fresh.owner("hello")
    fresh.start()
    fresh.send(owner.address, simple("subject-never-logged", "body-never-logged\r\n"))
    assert len(fresh.messages(owner)) == 1
    client = fresh.imaps()
    try:
        client.login(owner.address, "wrong-password-never-logged")
    except client.error as error:
        assert "AUTHENTICATIONFAILED" in str(error)
    else:
        raise AssertionError("a wrong password was taken")
    with Smtp(fresh) as smtp:
        smtp.hello()
        smtp.ask(b"MAIL FROM:<sender@example.net>")
        reply = smtp.ask(b"RCPT TO:<nobody@example.com>")
        assert reply.startswith(b"550")
    log = fresh.log()
    for secret in (owner.password, "wrong-password-never-logged", "subject-never-logged", "body-never-logged"):
        assert secret not in log
    until(lambda: re.search(r"mx\.\w+.*conn=[0-9a-f]{10}", fresh.log()), "an MX event with its connection id")
    assert re.search(r"imap\.\w+.*conn=[0-9a-f]{10}", log)
    assert re.search(r"reason=", log)
    assert owner.address in log, "the development default is to log addresses in full"


def test_addresses_can_be_kept_out_of_the_log(fresh: Daemon) -> None:
    owner = fresh.owner("hello")
    for choice in ("hashed", "none"):
        fresh.log_file.unlink(missing_ok=True)
        fresh.start({"FORWARDEMAIL_LOG_ADDRESSES": choice})
        fresh.send(owner.address, simple(), sender="someone-far-away@example.net")
        fresh.messages(owner)
        fresh.stop()
        log = fresh.log()
        assert "mx." in log and "imap." in log
        assert "hello@" not in log and "someone-far-away" not in log, choice
    fresh.start({"FORWARDEMAIL_LOG_FORMAT": "json"})
    fresh.send(owner.address, simple())
    events = [json.loads(line) for line in fresh.log().splitlines() if line.startswith("{")]
    assert any(str(event.get("event", "")).startswith("mx.") for event in events)
