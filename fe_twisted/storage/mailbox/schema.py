"""The tables of a mailbox file, as numbered migrations (``user_version``)."""

from __future__ import annotations

#: Bits below are the UID, bits above the folder.
FOLDER_SHIFT = 32
UID_MASK = 0xFFFFFFFF

_FIRST = """
-- Single values: mailbox_id, sealing_seed, created_at, last_uidvalidity, indexed and forgotten (words.py).
CREATE TABLE meta(
    name TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE folders(
    id INTEGER PRIMARY KEY AUTOINCREMENT,      -- never used twice: entries.id and the expunge log are made of it
    name TEXT NOT NULL UNIQUE,                 -- Unicode, '/' between levels
    object_id TEXT NOT NULL UNIQUE,            -- MAILBOXID (RFC 8474), survives RENAME
    selectable INTEGER NOT NULL,               -- 0: deleted, but it still has children
    special_use TEXT NOT NULL DEFAULT '',      -- '\\Sent' and so on (RFC 6154)
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    first_recent INTEGER NOT NULL DEFAULT 1,   -- the lowest UID that no session has seen as \\Recent
    messages INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    octets INTEGER NOT NULL DEFAULT 0
);

-- Names, not folders: a subscription outlives its folder (RFC 3501 section 6.3.6).
CREATE TABLE subscriptions(
    name TEXT PRIMARY KEY
) WITHOUT ROWID;

-- Keyword n is bit n + 5 of entries.flags.
CREATE TABLE keywords(
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE
);

-- One row for a message in a folder.
CREATE TABLE entries(
    id INTEGER PRIMARY KEY,                    -- folder id * 2^32 + UID
    message_id INTEGER NOT NULL REFERENCES messages(id),
    flags INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    day INTEGER NOT NULL,                      -- proleptic Gregorian ordinal of INTERNALDATE in its own zone: what SINCE and BEFORE compare
    received_at TEXT NOT NULL,                 -- INTERNALDATE, ISO 8601 UTC
    internaldate BLOB NOT NULL,                -- INTERNALDATE as FETCH answers it, in its own zone
    saved_at TEXT NOT NULL                     -- SAVEDATE (RFC 8514), ISO 8601 UTC
);
CREATE INDEX entries_message ON entries(message_id);
CREATE INDEX entries_modseq ON entries(id >> 32, modseq);
CREATE INDEX entries_day ON entries(id >> 32, day);
CREATE INDEX entries_unseen ON entries(id) WHERE flags & 1 = 0;
CREATE INDEX entries_deleted ON entries(id) WHERE flags & 8 != 0;

-- One row for each distinct content.
CREATE TABLE messages(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,               -- SHA-256 of the content as received
    object_id TEXT NOT NULL,                   -- EMAILID (RFC 8474)
    size INTEGER NOT NULL,                     -- RFC822.SIZE
    header_size INTEGER NOT NULL,
    sent_at TEXT,                              -- Date: field, ISO 8601 UTC
    sent_day INTEGER,                          -- Date: field, ordinal of the day in its own zone
    message_id TEXT NOT NULL,                  -- Message-ID: field
    thread INTEGER NOT NULL,                   -- THREADID (RFC 8474): storage/mailbox/kin.py
    envelope BLOB NOT NULL,                    -- the three answers of FETCH, ready for the wire
    body BLOB NOT NULL,
    structure BLOB NOT NULL,
    parts BLOB NOT NULL                        -- protocols/mime/parts.py
);
CREATE INDEX messages_size ON messages(size);
CREATE INDEX messages_sent_day ON messages(sent_day);
CREATE INDEX messages_thread ON messages(thread);
-- Which thread a Message-ID was seen in, also that of a message that is not here.
CREATE TABLE kin(
    identity INTEGER PRIMARY KEY,              -- hash of the Message-ID, as in orders
    thread INTEGER NOT NULL
);
CREATE INDEX kin_thread ON kin(thread);

-- The content: header, then the body with the attachments cut out of it.
CREATE TABLE headers(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    data BLOB NOT NULL
);
-- Those fields of the header that clients ask for in lists (protocols/mime/section.py); apart, so that a list reads few pages.
CREATE TABLE summaries(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    data BLOB NOT NULL
);
CREATE TABLE bodies(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    coding INTEGER NOT NULL,                   -- 0 as it is, 1 zstd
    data BLOB NOT NULL
);
CREATE TABLE cuts(
    message_id INTEGER NOT NULL REFERENCES messages(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,                 -- octets from the start of the message
    attachment_id INTEGER NOT NULL REFERENCES attachments(id),
    PRIMARY KEY(message_id, position)
) WITHOUT ROWID;
CREATE INDEX cuts_attachment ON cuts(attachment_id);
CREATE TABLE attachments(
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,               -- SHA-256 of the octets as received, transfer encoding and all
    size INTEGER NOT NULL,
    coding INTEGER NOT NULL,
    data BLOB NOT NULL
);

-- What SEARCH compares with, folded (protocols/mime/text.py).
CREATE TABLE fields(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    subject TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    cc TEXT NOT NULL,
    bcc TEXT NOT NULL
);
CREATE TABLE texts(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    header TEXT NOT NULL,                      -- a newline, then 'name: value' and a newline for each field
    body TEXT NOT NULL
);
-- Which message holds which three letters in a row; the second migration puts another index in its place.
CREATE VIRTUAL TABLE grams USING fts5(
    text, content='', contentless_delete=1, detail=none, tokenize='trigram case_sensitive 1'
);

-- What SORT and THREAD compare (protocols/mime/order.py); apart from messages, so that sorting reads few pages.
CREATE TABLE orders(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    sent INTEGER,                              -- Date: field, seconds since 1970; NULL: INTERNALDATE stands for it
    subject TEXT NOT NULL,                     -- base subject
    reply INTEGER NOT NULL,                    -- 1: the subject had 'Re:' or the like
    sender TEXT NOT NULL,                      -- local parts of the first addresses
    recipient TEXT NOT NULL,
    cc TEXT NOT NULL,
    sender_name TEXT NOT NULL,                 -- display names (RFC 5957)
    recipient_name TEXT NOT NULL,
    identity INTEGER NOT NULL,                 -- hash of the Message-ID, 0: none
    refs BLOB NOT NULL                         -- hashes of References or In-Reply-To, 8 octets each, oldest first
);
-- The first words (RFC 8970).
CREATE TABLE previews(
    message_id INTEGER PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE,
    text TEXT NOT NULL
);

-- Annotations (RFC 5464); without a folder they belong to the mailbox as a whole.
CREATE TABLE annotations(
    folder_id INTEGER REFERENCES folders(id) ON DELETE CASCADE,
    entry TEXT NOT NULL,                       -- lower case, '/private/comment'
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX annotations_entry ON annotations(coalesce(folder_id, 0), entry);
CREATE INDEX annotations_folder ON annotations(folder_id);

-- What was expunged at which modseq (RFC 7162).
CREATE TABLE expunged(
    id INTEGER PRIMARY KEY,
    folder_id INTEGER NOT NULL REFERENCES folders(id) ON DELETE CASCADE,
    modseq INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
);
CREATE INDEX expunged_modseq ON expunged(folder_id, modseq);

-- Messages that may have lost their last entry; their content is removed in the background.
CREATE TABLE orphans(
    message_id INTEGER PRIMARY KEY
);

-- Deliveries that were stored, so that one that is repeated after a crash is not stored twice.
CREATE TABLE deliveries(
    id BLOB PRIMARY KEY,
    stored_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX deliveries_stored_at ON deliveries(stored_at);

-- What changes with an idempotency key were answered, so that one that is asked for again over the link is not made twice.
CREATE TABLE answers(
    id BLOB PRIMARY KEY,
    stored_at TEXT NOT NULL,
    answer BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX answers_stored_at ON answers(stored_at);
"""

_WORDS = """
-- The full-text index is made in the background; until then SEARCH compares the texts.  What there was of it is emptied there, too
-- (discarded.py): all at once it would take as much room again as it has.
ALTER TABLE grams_data RENAME TO discarded_1;
ALTER TABLE grams_idx RENAME TO discarded_2;
ALTER TABLE grams_docsize RENAME TO discarded_3;
DROP TABLE grams;
DELETE FROM meta WHERE name = 'indexed';
-- Which message has which words: 2 * its id is the header, 2 * its id + 1 the body.
CREATE VIRTUAL TABLE terms USING fts5(
    words, content='', contentless_delete=1, detail=none, tokenize='ascii'
);
-- All words of it.
CREATE TABLE vocabulary(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    common INTEGER NOT NULL,                   -- 1: these words are on no later page
    words BLOB NOT NULL                        -- UTF-8, a newline before each and after the last
);
CREATE INDEX vocabulary_common ON vocabulary(id) WHERE common;
-- Which page of the vocabulary has which three characters in a row.
CREATE VIRTUAL TABLE grams USING fts5(
    words, content='', contentless_delete=1, detail=none, tokenize='trigram case_sensitive 1'
);
"""

_TOUCHED = """
-- Which messages got a new modseq (touched.py), in place of an index that had a row for every message.
DROP INDEX entries_modseq;
CREATE TABLE touched(
    folder_id INTEGER NOT NULL REFERENCES folders(id) ON DELETE CASCADE,
    modseq INTEGER NOT NULL,
    first INTEGER NOT NULL,                    -- a range of UIDs: messages with this modseq are among them
    last INTEGER NOT NULL,
    PRIMARY KEY(folder_id, modseq, first)
) WITHOUT ROWID;
ALTER TABLE folders ADD COLUMN logged_since INTEGER NOT NULL DEFAULT 0;  -- from this modseq on touched is whole
UPDATE folders SET logged_since = modseq;
"""

_GAPS = """
-- What was expunged longer ago than what expunged still holds, in fewer words (expunged.py).
CREATE TABLE gaps(
    folder_id INTEGER NOT NULL REFERENCES folders(id) ON DELETE CASCADE,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    modseq INTEGER NOT NULL,                   -- the highest at which one of these UIDs was expunged
    PRIMARY KEY(folder_id, first)
) WITHOUT ROWID;
CREATE INDEX gaps_modseq ON gaps(folder_id, modseq, last);
"""

#: Forward only, one transaction each; the file's ``user_version`` is how many of them it has seen.
MIGRATIONS: tuple[str, ...] = (_FIRST, _WORDS, _TOUCHED, _GAPS)
