r"""The full-text index: which message holds which words, so that a substring is found, or known not to be there, without the text.

A *word* is a run of letters and digits; whatever else there is between the words (all of ASCII that is neither) separates them.  So a
pattern without separators is in a text if and only if it is within one of its words: to find it means to find the words that have it, and
then the messages that have these, and that is exact.  A pattern with separators is taken apart, and only those texts are compared whose
messages hold all its pieces::

    terms        which message has which words (FTS5); a row for its header, 2 * its id, and one for its body, 2 * its id + 1
    vocabulary   all these words, in pages, b"\nabout\nabove\n"; common ones stand there once, the others once for some dozens of messages
    grams        which three characters in a row a page of the vocabulary has (FTS5), so that few of them are looked through

The index follows the messages at a distance, since it pays only for many at once; ``meta.indexed`` is the last message that is in it, and
the texts of later ones are compared.  So answers are the same at any time.  Words of messages that are gone stay in the vocabulary until
more messages are gone than there are (``meta.forgotten``); then all of it is made anew.  So it is when it proves damaged, and SEARCH does
without it until then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import accumulate, count, takewhile
from typing import Any
from zlib import crc32

import apsw

from fe_twisted.base.errors import DamagedFile
from fe_twisted.storage.mailbox.discarded import put_aside, put_index_aside

#: The last message in the index, as an SQL expression; 0 in a file that has never seen one.
INDEXED = "coalesce((SELECT value FROM meta WHERE name = 'indexed'), 0)"

#: So many messages, or texts of so many octets, go into the index together; a longer text goes alone.
MESSAGES = 128
OCTETS = 1024 * 1024

#: Octets of a common word, and so many of them there are before no more are looked upon as common.
MAX_LENGTH = 20
MAX_COMMON = 50_000

#: Words on a page of the vocabulary.
PAGE = 200

#: Octets of a text that are taken apart at a time.
STEP = 256 * 1024

#: Characters of a piece of a long word.  The next piece begins half a piece further, so that no pattern up to PATTERN characters is cut.
PIECE = 64
PATTERN = PIECE // 2 + 1

#: Characters that are looked up together.
GRAM = 3
#: Up to this many trigrams of a long pattern are looked up: more would not make the pages fewer.
MAX_GRAMS = 24
#: So many words may have the pattern; for more it is better to compare texts.
MAX_WORDS = 500

#: Messages that are gone before it is asked whether the vocabulary should be made anew, each time.
FORGOTTEN = 1000

#: The parts of a message.
HEADER, BODY = 0, 1
BOTH = (HEADER, BODY)

_SEPARATORS = bytes(octet for octet in range(128) if not chr(octet).isalnum())
_SPACES = bytes.maketrans(_SEPARATORS, b" " * len(_SEPARATORS))


#: See :func:`unused`.
_unused: ContextVar[bool] = ContextVar("_unused", default=False)


class IndexDamaged(DamagedFile):
    """The index cannot be read or written; nothing is known against the rest of the file.

    SQLite may have ended the transaction, and if not, it does nothing more in it.
    """


@contextlib.contextmanager
def _in_index() -> Iterator[None]:
    """:raises IndexDamaged: what is done with the index alone met damage."""
    try:
        yield
    except apsw.CorruptError as error:
        raise IndexDamaged(reason=f"the full-text index: {error}") from error


def words_of(text: str) -> set[bytes]:
    """The distinct words of a folded text; of a long one the pieces."""
    words = _split(text)
    _cut(words, _long(words))
    return words


def _split(text: str) -> set[bytes]:
    octets = text.encode().translate(_SPACES)
    words: set[bytes] = set()
    at = 0
    while at < len(octets):
        # A little of a long text at a time: all its words take much more memory than the distinct ones.
        end = octets.find(b" ", at + STEP)
        end = end if end >= 0 else len(octets)
        words.update(octets[at:end].split())
        at = end
    return words


def _long(words: set[bytes]) -> set[bytes]:
    return {word for word in words if len(word) > PIECE}


def _cut(words: set[bytes], long: set[bytes]) -> None:
    """Put the pieces of those that are long into their place."""
    for word in long & words:
        words.discard(word)
        words.update(_pieces(word.decode()))


def _pieces(word: str) -> Iterator[bytes]:
    return (word[at : at + PIECE].encode() for at in range(0, max(1, len(word) - PIECE // 2), PIECE // 2))


# -- asking ---------------------------------------------------------------------------------------


def is_word(pattern: str) -> bool:
    """Whether :func:`holding` is exact for this folded pattern: it lies within a word, and within a piece of it."""
    octets = pattern.encode()
    return 0 < len(pattern) <= PATTERN and octets.translate(None, _SEPARATORS) == octets


def holding(connection: apsw.Connection, pattern: str, parts: tuple[int, ...]) -> set[int] | None:
    """The indexed messages that hold all pieces of a folded pattern, each in one of the parts; None when the index is of no use for it.

    To be called in a transaction, in which :data:`INDEXED` is asked for too.

    :raises IndexDamaged: see :func:`unused`.
    """
    if _unused.get():
        return None
    with _in_index():
        return _holding(connection, pattern, parts)


@contextlib.contextmanager
def unused() -> Iterator[None]:
    """Have :func:`holding` do without the index, which is damaged, for as long as the block lasts."""
    token = _unused.set(True)
    try:
        yield
    finally:
        _unused.reset(token)


def _holding(connection: apsw.Connection, pattern: str, parts: tuple[int, ...]) -> set[int] | None:
    found: set[int] | None = None
    for needle in _needles(pattern):
        words = _words_with(connection, needle)
        if len(words) <= MAX_WORDS:
            some = _with_words(connection, words, parts)
            found = some if found is None else found & some
            if not found:
                break
    return found


def _needles(pattern: str) -> list[str]:
    """The words of a pattern, with a newline for a beginning or an end that is known; the longest first, and none that is too short."""
    words = pattern.encode().translate(_SPACES).decode().split(" ")
    found = set()
    for number, word in enumerate(words):
        if word:
            end = "\n" if number < len(words) - 1 and len(word) <= PATTERN else ""
            found.add(("\n" if number else "") + word[:PATTERN] + end)
    return sorted((needle for needle in found if len(needle) >= GRAM), key=len, reverse=True)


def _words_with(connection: apsw.Connection, needle: str) -> set[str]:
    """The words of which this is part; once they are too many, not all."""
    grams = sorted({needle[at : at + GRAM] for at in range(len(needle) - GRAM + 1)})[:MAX_GRAMS]
    query = " AND ".join([f'"{gram}"' for gram in grams])
    octets = needle.encode()
    found: set[bytes] = set()
    pages: Iterator[Any] = connection.execute(
        "SELECT words FROM vocabulary WHERE id IN (SELECT rowid FROM grams WHERE grams MATCH ?)", (query,)
    )
    for (words,) in pages:
        if len(found) > MAX_WORDS:
            break
        at = words.find(octets)
        while at >= 0:
            # A newline of the needle is the one before the word, or the one after it.
            inside = at + (octets[0] == 10)
            end = words.index(b"\n", inside)
            found.add(words[words.rindex(b"\n", 0, inside) + 1 : end])
            at = words.find(octets, end)
    return {word.decode() for word in found}


def _with_words(connection: apsw.Connection, words: set[str], parts: tuple[int, ...]) -> set[int]:
    """The messages that have one of the words in one of the parts."""
    found: set[int] = set()
    for word in words:
        rows: Iterator[Any] = connection.execute("SELECT rowid FROM terms WHERE terms MATCH ?", (f'"{word}"',))
        found.update([row >> 1 for (row,) in rows if row & 1 in parts])
    return found


# -- bringing in ----------------------------------------------------------------------------------


def index_some(connection: apsw.Connection) -> int:
    """Bring the next messages into the index if there are enough for which it pays; returns how many, 0 when there are not.

    :raises IndexDamaged:
    """
    rows: list[Any] = connection.execute(
        "SELECT message_id, octet_length(header) + octet_length(body) FROM texts"
        f" WHERE message_id > {INDEXED} ORDER BY message_id LIMIT {MESSAGES}"
    ).fetchall()
    sums = list(accumulate(octets for _, octets in rows))
    if len(rows) < MESSAGES and (not sums or sums[-1] < OCTETS):
        return 0
    count = max(1, sum(1 for _ in takewhile(lambda octets: octets <= OCTETS, sums)))
    _bring_in(connection, rows[0][0], rows[count - 1][0])
    connection.execute("INSERT OR REPLACE INTO meta(name, value) VALUES('indexed', ?)", (rows[count - 1][0],))
    return count


def _bring_in(connection: apsw.Connection, first: int, last: int) -> None:
    texts: list[Any] = connection.execute(
        "SELECT message_id, header, body FROM texts WHERE message_id BETWEEN ? AND ? ORDER BY message_id", (first, last)
    ).fetchall()
    with _in_index():
        _add(connection, texts)
    settle(connection)


def _add(connection: apsw.Connection, texts: list[Any]) -> None:
    rows = [(2 * message + part, _split(text)) for message, *both in texts for part, text in zip(BOTH, both, strict=True)]
    distinct = set().union(*(words for _, words in rows))
    long = _long(distinct)  # of all at once: to look at each word of each message costs as much as to take the text apart
    if long:
        _cut(distinct, long)
        for _, words in rows:
            _cut(words, long)
    connection.executemany("INSERT INTO terms(rowid, words) VALUES(?, ?)", [(row, b" ".join(words).decode()) for row, words in rows])
    _learn(connection, distinct)


def _learn(connection: apsw.Connection, words: set[bytes]) -> None:
    """Put those that are not among the common ones into the vocabulary."""
    known: set[bytes] = set()
    pages: Iterator[Any] = connection.execute("SELECT words FROM vocabulary WHERE common")
    for (page,) in pages:
        known.update(page[1:-1].split(b"\n"))
    fresh = words - known
    # Words of a language come again; numbers, names of machines and signatures do not.  What is looked for is among the one or the other.
    common = {word for word in fresh if len(word) <= MAX_LENGTH and (word.isalpha() or not word.isascii())}
    _write(connection, sorted(common), len(known) < MAX_COMMON)
    _write(connection, sorted(fresh - common), False)


def _write(connection: apsw.Connection, words: list[bytes], common: bool) -> None:
    for at in range(0, len(words), PAGE):
        page = b"\n" + b"\n".join(words[at : at + PAGE]) + b"\n"
        connection.execute("INSERT INTO vocabulary(common, words) VALUES(?, ?)", (common, page))
        connection.execute("INSERT INTO grams(rowid, words) VALUES(?, ?)", (connection.last_insert_rowid(), page.decode()))


# -- forgetting -----------------------------------------------------------------------------------


def forget(connection: apsw.Connection, message_id: int) -> None:
    """A message is removed for good; to be followed by :func:`settle`.

    :raises IndexDamaged:
    """
    with _in_index():
        connection.execute("DELETE FROM terms WHERE rowid IN (?, ?)", (2 * message_id + HEADER, 2 * message_id + BODY))
    connection.execute("INSERT INTO meta(name, value) VALUES('forgotten', 1) ON CONFLICT(name) DO UPDATE SET value = value + 1")
    forgotten = int(connection.execute("SELECT value FROM meta WHERE name = 'forgotten'").get)
    if forgotten % FORGOTTEN == 0 and forgotten >= int(connection.execute("SELECT count(*) FROM messages").get):
        settle(connection)
        _begin_anew(connection)


def settle(connection: apsw.Connection) -> None:
    """Write what FTS5 has gathered.  Else the COMMIT would do it, and damage to the index would undo the work of others.

    :raises IndexDamaged:
    """
    with _in_index():
        for table in ("terms", "grams"):
            connection.execute(f"INSERT INTO {table}({table}) VALUES('flush')")


def renew(connection: apsw.Connection) -> int:
    """Make it anew, because it is damaged; returns how many messages are not in it, which is all.

    None of its pages is looked at, whichever is damaged, but for one case: a page of it that lies just behind the root pages of the file,
    or points there, is in the way of the new tables (see :mod:`fe_twisted.storage.mailbox.discarded`).

    :raises apsw.CorruptError: this is the case; nothing was done, and texts are compared from then on.
    """
    _begin_anew(connection, damaged=True)
    return unindexed(connection)


def _begin_anew(connection: apsw.Connection, *, damaged: bool = False) -> None:
    """An empty index takes the place of this one; it is made like that of a file that has never seen one."""
    for table in ("terms", "grams"):
        put_index_aside(connection, table, damaged=damaged)
    own: list[Any] = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'vocabulary'").fetchall()
    ((old, sql),) = own
    put_aside(connection, "vocabulary")
    # Its own index stays with it, to be dropped when it is empty, and has the name until then.
    taken = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    name = next(name for name in (f"vocabulary_common_{number}" for number in count(1)) if name not in taken)
    connection.execute(sql.replace(old, name, 1))
    connection.execute("DELETE FROM meta WHERE name IN ('indexed', 'forgotten')")


# -- checking -------------------------------------------------------------------------------------


def unindexed(connection: apsw.Connection) -> int:
    """How many messages are not yet in the index."""
    return int(connection.execute(f"SELECT count(*) FROM previews WHERE message_id > {INDEXED}").get)


def problems(connection: apsw.Connection) -> Iterator[str]:
    """What is wrong with the index, as sentences: it is compared with the texts.  Makes a temporary table."""
    for table in ("terms", "grams"):
        try:
            list(connection.execute(f"INSERT INTO {table}({table}, rank) VALUES('integrity-check', 0)"))
        except apsw.Error as error:
            yield f"the full-text index is damaged in {table}: {error}"
    vocabulary: set[bytes] = set()
    pages: Iterator[Any] = connection.execute("SELECT words FROM vocabulary")
    for (page,) in pages:
        vocabulary.update(page[1:-1].split(b"\n"))
    listed: dict[int, int] = {}
    connection.execute("CREATE VIRTUAL TABLE temp.term_rows USING fts5vocab(main, terms, instance)")
    try:
        rows: Iterator[Any] = connection.execute("SELECT term, doc FROM temp.term_rows")
        for term, row in rows:
            word = term.encode()
            listed[row] = listed.get(row, 0) + crc32(word)
            if word not in vocabulary:
                yield f"a word of row {row} is not in the vocabulary"
    finally:
        connection.execute("DROP TABLE temp.term_rows")
    texts: Iterator[Any] = connection.execute(f"SELECT message_id, header, body FROM texts WHERE message_id <= {INDEXED}")
    for message, header, body in texts:
        for part, text in ((HEADER, header), (BODY, body)):
            if listed.pop(2 * message + part, 0) != sum(map(crc32, words_of(text))):
                yield f"the words of message {message} in the full-text index are not those of its text"
    for row in sorted(listed):
        yield f"the full-text index has row {row} of a message that is not there, or not yet"
