"""The corpus is what it says: otherwise the tests that use it would test nothing."""

from __future__ import annotations

import pytest

from tests.corpus.mail import crlf, everything, from_packages, from_python, generated


def test_generated_messages_have_crlf_lines_only() -> None:
    for sample in generated():
        assert sample.content.endswith(b"\r\n"), sample.name
        rest = sample.content.replace(b"\r\n", b"")
        assert b"\r" not in rest and b"\n" not in rest, sample.name


def test_names_and_contents_are_unique() -> None:
    samples = everything()
    assert len({sample.name for sample in samples}) == len(samples) > 80
    assert len({sample.content for sample in samples}) == len(samples)


def test_words_stand_in_their_messages() -> None:
    """An ASCII word that is transported as itself must be in the octets; encoded ones are covered by the SEARCH tests."""
    plain = [sample for sample in generated() if sample.name.startswith(("broken/", "structure/"))]
    for sample in plain:
        for word in sample.words:
            assert word.encode() in sample.content, sample.name


def test_crlf_changes_line_ends_only() -> None:
    assert crlf(b"a\nb\r\nc\rd") == b"a\r\nb\r\nc\r\nd\r\n"
    assert crlf(b"a\r\n\r\n") == b"a\r\n\r\n"


def test_real_messages_are_read_as_they_are() -> None:
    """Of each source that is installed here, all messages are taken."""
    sources = [found for found in (from_python(), from_packages()) if found]
    if not sources:
        pytest.skip("neither Python's tests nor a package with sample messages is installed")
    for found in sources:
        assert all(sample.content for sample in found)
    if from_python():
        assert len(from_python()) >= 40
