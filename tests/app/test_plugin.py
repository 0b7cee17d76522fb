"""The plugin is found from a checkout, and the metadata say what the program needs."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def twistd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """twistd as a process, in the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORWARDEMAIL_")}
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=False, timeout=60
    )


def test_twistd_knows_the_plugin() -> None:
    assert re.search(r"^ +forwardemail +A mail server", twistd("--help").stdout, re.MULTILINE)


def test_its_own_help() -> None:
    done = twistd("forwardemail", "--help")
    assert done.returncode == 0 and "--config" in done.stdout


def test_bad_settings_end_it_with_status_1_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "forwardemail.toml"
    file.write_text("hostname = 7\nimap_prot = 1\n")
    for done in (
        twistd("-n", "--pidfile=", "forwardemail", "--config", str(file)),
        twistd("-n", "--pidfile=", "forwardemail", FORWARDEMAIL_CONFIG=str(file)),
    ):
        assert done.returncode == 1
        assert "2 problems" in done.stderr and "did you mean imap_port?" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_no_settings_named_is_said() -> None:
    done = twistd("-n", "--pidfile=", "forwardemail")
    assert done.returncode == 1 and "FORWARDEMAIL_CONFIG" in done.stdout


def test_the_plugin_folder_is_no_package_of_its_own() -> None:
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_locks_hold_every_requirement_with_hashes() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    extras = metadata["options.extras_require"]
    wanted = {"requirements.lock": metadata["options"]["install_requires"] + extras["build"]}
    wanted["requirements-test.lock"] = wanted["requirements.lock"] + extras["test"] + extras["lint"]
    for name, requirements in wanted.items():
        text = (ROOT / name).read_text()
        pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+) \\\n    --hash=sha256:", text, re.MULTILINE))
        assert text.count("==") == len(pinned)
        assert "://" not in text
        for requirement in filter(None, requirements.splitlines()):
            found = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert found and re.sub(r"[._-]+", "-", found[0]).lower() in pinned, requirement
