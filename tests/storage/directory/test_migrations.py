"""Migrations: what they make is what the program expects, on both kinds of database."""

from __future__ import annotations

import os

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from fe_twisted.base.errors import BadSettings, Later, NewerFile
from fe_twisted.storage.directory import migrations
from fe_twisted.storage.directory.schema import HEAD, metadata
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

KEY = bytes(range(32))


def test_the_newest_migration_is_the_one_the_program_expects() -> None:
    assert ScriptDirectory.from_config(migrations.config()).get_heads() == [HEAD]


def test_the_migrated_database_is_the_schema(directory: SqlDirectory) -> None:
    with directory._engine.connect() as connection:
        assert migrations.revision(connection) == HEAD
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_scripts_are_found_from_any_folder(tmp_path: os.PathLike[str], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = open_directory(where, KEY)
    assert directory.domains() == []
    directory.close()


def test_a_newer_database_is_refused(directory: SqlDirectory, where: str) -> None:
    with directory._writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerFile):
        open_directory(where, KEY)


@pytest.mark.parametrize("url", ["sqlite:///x", "mysql://x", "postgresql://x/y", "nonsense://", "postgresql+psycopg://h:port/x", "://"])
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(BadSettings):
        open_directory(url, KEY)


def test_a_server_that_does_not_answer_is_for_later(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(Later) as caught:
        open_directory(f"postgresql+psycopg://user:secret@/x?host={tmp_path}", KEY)
    assert "secret" not in f"{caught.value} {caught.value.reason}"
