"""What a database says, as an operator should read it."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from fe_twisted.base.errors import Later
from fe_twisted.storage.directory.faults import translate


@pytest.mark.parametrize(
    ("said", "remedy"), [("fe_sendauth: no password supplied", True), ("Connection refused\n\tIs the server running?", False)]
)
def test_a_password_file_that_was_passed_over(said: str, remedy: bool) -> None:
    """libpq does not read one that others can read, and tells nobody who is not at the terminal."""
    error = translate(OperationalError("", {}, psycopg.OperationalError(f"connection failed: {said}")))
    assert type(error) is Later
    assert error.reason.startswith(f"connection failed: {said.partition(chr(10))[0]}")
    assert ("chmod 600" in error.reason) is remedy
