"""The compression layer of a connection (RFC 4978): raw DEFLATE in both directions, flushed after each piece of output."""

from __future__ import annotations

import zlib

_RAW = -15
#: What is made at once of compressed input, in octets: a few of them can stand for a thousand times as many.
MAX_PIECE = 65_536


class Deflate:
    """Both directions of one connection.  About 300 KiB while it lives."""

    def __init__(self) -> None:
        self._out = zlib.compressobj(wbits=_RAW)
        self._in = zlib.decompressobj(wbits=_RAW)
        self._waiting = bytearray()

    def compress(self, data: bytes) -> bytes:
        """Output, complete up to its last octet (``Z_SYNC_FLUSH``)."""
        return self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)

    def feed(self, data: bytes) -> None:
        """Store input."""
        self._waiting += data

    @property
    def waiting(self) -> int:
        """Octets of input that :meth:`more` has not read yet."""
        return len(self._waiting)

    def more(self) -> bytes:
        """The next octets of input, at most :data:`MAX_PIECE`; empty when there are none yet.

        :raises ValueError: it is not DEFLATE, or it has ended.
        """
        while True:
            try:
                piece = self._in.decompress(bytes(self._waiting), MAX_PIECE)
            except zlib.error as error:
                raise ValueError("not a compressed stream") from error
            if self._in.eof and not piece:
                raise ValueError("the compressed stream has ended")
            before = len(self._waiting)
            self._waiting[:] = self._in.unconsumed_tail
            if piece or not self._waiting or len(self._waiting) == before:
                return piece
