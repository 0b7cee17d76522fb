"""Messages as octets: their parts, what IMAP says of them, and the text a person would search for.

Pure functions.  A message is parsed once, by :func:`parse`, when it is stored; afterwards :func:`section` slices octets by the stored part
tree.  ``entity`` finds the parts, ``render`` writes ENVELOPE and BODYSTRUCTURE, ``text`` collects what is searched.  All of it takes any
octets and bounds its own work: depth, number of parts, length of fields and of text.
"""

from fe_twisted.protocols.mime.message import Message
from fe_twisted.protocols.mime.parse import parse
from fe_twisted.protocols.mime.parts import Part, dump, load
from fe_twisted.protocols.mime.section import decode, fields, find, section
from fe_twisted.protocols.mime.text import fold, visible

__all__ = ["Message", "Part", "decode", "dump", "fields", "find", "fold", "load", "parse", "section", "visible"]
