"""What looks like it belongs to a person: e-mail addresses, telephone and card numbers in free text.

Patterns see shapes and not meanings, so they err both ways. Known: an e-mail address without a dot in its domain, a
telephone number written as bare digits without `+` (only Chinese mobile numbers are known in that form) and whatever
is spelled out pass; a part number shaped like a telephone number (`415-555-0132`) is taken for one, as is one in about
ten of the 15- and 16-digit numbers that begin like a card's. Names and postal addresses are not looked for: nothing
short of a model finds them, and it would err more.
"""

import re

_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"]{1,64}@[^\s@<>()\[\],;:\"]{1,255}\.[^\W\d_]{2,24}")
_TELEPHONE = re.compile(
    r"""(?<![\w+.-])(?:
        (?:\+|00)[1-9](?:[\s().-]{0,2}\d){6,14}                 # international: ITU-T E.164, 7 to 15 digits
      | \(\d{3}\)\s?\d{3}[\s.-]\d{4}                            # North America, in its usual groups
      | \d{3}([.-])\d{3}\1\d{4}
      | 1[3-9]\d[\s-]?\d{4}[\s-]?\d{4}                          # Chinese mobile
    )(?![\w-])""",
    re.VERBOSE,
)
_DIGITS = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){13,18}(?![\w-])")
_ISSUERS = re.compile(
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|4\d{15}|(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12}"
    r"|(?:6011|64[4-9]\d|65\d\d|35(?:2[89]|[3-8]\d))\d{12}|62\d{14,17}"
)
"""What numbers of the large card schemes begin with, and how long they are (ISO/IEC 7812). The 13 digits of an article
number (GTIN) are none."""


def redact(text: str) -> str:
    """`text` without what looks like it belongs to a person; unchanged where nothing does."""
    found = _EMAIL.sub(" ", text)
    found = _DIGITS.sub(lambda match: " " if _is_card(match[0]) else match[0], found)
    found = _TELEPHONE.sub(" ", found)
    return text if found == text else " ".join(found.split())


def is_personal(text: str) -> bool:
    """Whether something in `text` looks like it belongs to a person."""
    return redact(text) != text


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return _ISSUERS.fullmatch(digits) is not None and _luhn(digits)


def _luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    total = sum(map(int, digits[-1::-2])) + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return total % 10 == 0
