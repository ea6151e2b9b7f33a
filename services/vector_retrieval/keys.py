"""Names for what items have many of: one short key for each tag, attribute value, attribute name and the like.

A key is a digest, so it has one length and one alphabet whatever the text it stands for: it cannot break out of
an expression, hold a separator or a wildcard, or outgrow a field. At 96 bits, two of 2^48 texts would share one.
"""

import hashlib

KEY_CHARS = 25
"""A letter for the kind of key, which also keeps it from reading as a number, and 96 bits in hexadecimal."""


def tag(value: str) -> str:
    """The item has the tag `value`."""
    return _key("t", value)


def has(field: str) -> str:
    """The item has a value in `field` (a field of the item, or `attributes.<name>`)."""
    return _key("f", field)


def attribute(name: str, value: str) -> str:
    """The attribute `name` has the text `value`."""
    return _key("a", name, value)


def number(name: str, position: int) -> str:
    """The attribute `name` has more than `position` different numbers; also where that number, counted from the
    smallest, is found."""
    return _key("n", name, str(position))


def largest(name: str) -> str:
    """Where the largest number of the attribute `name` is found."""
    return _key("n", name, "max")


def _key(kind: str, *parts: str) -> str:
    digest = hashlib.blake2b(digest_size=12, person=kind.encode())
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "little"))
        digest.update(raw)
    return kind + digest.hexdigest()
