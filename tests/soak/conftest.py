"""What all tests with several processes need."""

from __future__ import annotations

from tests.storage.directory.conftest import postgresql, postgresql_url

__all__ = ["postgresql", "postgresql_url"]
