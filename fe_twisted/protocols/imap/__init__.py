r"""IMAP as functions of octets (RFC 3501, with RFC 9051's extensions where they are cheap): no I/O.

In:  octets -> :class:`.parse.Parser` (lines, literals, limits) -> :mod:`.arguments` (the table of commands),
:mod:`.fetch` and :mod:`.searchkeys`,
which read with :class:`.grammar.Reader` and :mod:`.elements` -> :class:`.commands.Command`.

Out: :mod:`.render` (FETCH, from rows of columns), :mod:`.responses` (every other line), :mod:`.strings` (quoted, literal, astring).

Beside them: :mod:`.search` (the search program as a tree), :mod:`.ranges` (sets of UIDs, and a session's view of a mailbox), :mod:`.utf7`
and :mod:`.charsets`.
"""
