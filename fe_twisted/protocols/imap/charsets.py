"""Character sets that SEARCH understands (RFC 3501 section 6.4.4).

A fixed table made from Python's aliases: asking :mod:`codecs` for a name that a client made up would import a module by
that name and remember the failure for ever, and some of Python's codecs (``unicode_escape``, ``punycode``) are no character sets.
"""

from __future__ import annotations

from encodings.aliases import aliases

from fe_twisted.base.errors import UnknownCharset

_NAMES = """
    ascii utf_8 utf_7 utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le latin_1 koi8_r koi8_u koi8_t
    iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9
    iso8859_10 iso8859_11 iso8859_13 iso8859_14 iso8859_15 iso8859_16
    cp437 cp850 cp852 cp855 cp858 cp862 cp866 cp874 cp932 cp949 cp950 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258
    gb2312 gbk gb18030 hz big5 big5hkscs euc_jp euc_kr shift_jis johab tis_620 mac_roman mac_cyrillic
    iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_3 iso2022_jp_ext iso2022_kr ptcp154 kz1048
"""
_CODECS = frozenset(_NAMES.split())


def _key(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_").replace(":", "_")


_KNOWN = {codec: codec for codec in _CODECS} | {_key(alias): codec for alias, codec in aliases.items() if codec in _CODECS}


def codec(charset: str) -> str:
    """The name of Python's codec for a charset.

    :raises UnknownCharset: it is none that we convert.
    """
    found = _KNOWN.get(_key(charset))
    if found is None:
        raise UnknownCharset
    # RFC 3501 lets a client omit CHARSET and clients then send UTF-8 all the same; US-ASCII is a part of it
    return "utf_8" if found == "ascii" else found
