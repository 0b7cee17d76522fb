"""Octets to text by the charset a message names (RFC 2045 section 6, RFC 2978), for any name and any octets.

Only names that Python is known to have are ever looked up: an unknown name would be remembered for good inside the interpreter, and a
few of Python's codecs (punycode, unicode_escape) are no charsets of mail and can be made slow on purpose.
"""

from __future__ import annotations

import encodings
import encodings.aliases
from functools import lru_cache

#: Names seen in mail that Python does not know, or decodes more narrowly than their senders mean.
_ALIASES = {
    "ansi_x3.110_1983": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "x_gbk": "gb18030",
    "euc_cn": "gb18030",
    "gb_2312_80": "gb18030",
    "big5": "cp950",
    "ks_c_5601_1987": "cp949",
    "ks_c_5601": "cp949",
    "ksc_5601": "cp949",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "sjis": "cp932",
    "x_sjis": "cp932",
    "iso_2022_jp": "iso2022_jp_ext",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "iso_8859_6_i": "iso8859_6",
    "latin_1": "cp1252",
    "latin1": "cp1252",
    "iso_8859_1": "cp1252",
    "iso8859_1": "cp1252",
    "l1": "cp1252",
    "us_ascii": "utf_8",
    "ascii": "utf_8",
    "utf8mb4": "utf_8",
    "unicode_1_1_utf_8": "utf_8",
    "unicode_1_1_utf_7": "utf_7",
    "windows_874": "cp874",
    "x_mac_roman": "mac_roman",
    "x_mac_cyrillic": "mac_cyrillic",
    "iso_8859_9": "cp1254",
    "iso_8859_11": "cp874",
    "tis_620": "cp874",
}
# fmt: off
_REFUSED = {
    "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem",
    "base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec",
}
#: Codecs of the standard library that have no entry in its table of aliases.
_UNLISTED = {
    "cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_r", "koi8_t", "koi8_u", "utf_8_sig",
    "mac_croatian", "mac_arabic", "mac_farsi",
}
# fmt: on
#: Read together here: an unknown name, UTF-8 and Windows-1252.
_ASCII_BASED = ("", "utf_8", "cp1252")
_KNOWN = {name: codec for name, codec in encodings.aliases.aliases.items() if codec not in _REFUSED}
_KNOWN |= {codec: codec for codec in [*_KNOWN.values(), *_UNLISTED]}


@lru_cache(maxsize=512)
def codec(charset: str) -> str:
    """Python's name for a charset of mail, or an empty string when there is none."""
    if len(charset) > 40 or not charset.isascii():
        return ""
    name = encodings.normalize_encoding(charset.strip(" \t\"'")).lower()
    return _ALIASES.get(name) or _KNOWN.get(name, "")


def decode(raw: bytes, charset: str = "") -> str:
    """Text of any octets.

    A missing or unknown charset, and ASCII with 8-bit octets, is read as UTF-8 if it is that, else as Windows-1252.  Octets that the
    charset does not have become U+FFFD, and so does NUL.
    """
    plain = raw.isascii() and (not charset or codec(charset) in _ASCII_BASED)
    text = raw.decode("ascii") if plain else _decode(raw, charset)
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _decode(raw: bytes, charset: str) -> str:
    name = codec(charset) if charset else "utf_8"
    if name not in _ASCII_BASED:
        text = raw.decode(name, "replace")
        # UTF-7 can say half a surrogate pair, which nothing could store
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if name == "utf_7" else text
    if name == "cp1252":
        return _western(raw)
    try:
        return raw.decode("utf_8")
    except UnicodeDecodeError:
        if charset.lower().replace("-", "") == "utf8":
            return raw.decode("utf_8", "replace")
        return _western(raw)


def _western(raw: bytes) -> str:
    """Windows-1252, and Latin-1 where an octet is one of the five that it leaves undefined."""
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin_1")
