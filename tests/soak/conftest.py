"""What all tests with several processes need."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.storage.directory.conftest import postgresql, postgresql_url

__all__ = ["module_database", "postgresql", "postgresql_url"]


@pytest.fixture(scope="module")
def module_database(postgresql: str) -> Iterator[str]:
    """The URL of an empty database that the tests of a module share."""
    name = f"module_{uuid.uuid4().hex}"
    with psycopg.connect(host=postgresql, user="forwardemail", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql+psycopg://forwardemail@/{name}?host={postgresql}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
