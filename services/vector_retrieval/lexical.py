"""Text → words, the same for items and queries on every home, whatever the store's own analysers can do.

The words are joined by spaces and the store is told to split at spaces; it counts them (BM25) and knows no language.

    NFKC, lower case            Ｗｉ‐Ｆｉ → wi-fi
    Latin and the like          English stems (Snowball), Lucene's English stop words left out
    numbers                     1,000 → 1000   2.5 → 2_5   1/2 → 1__2   (one word each)
    number and unit             500 GB, 500gb → 500 500gb       12", 12 inches → 12 12in
    Chinese, Japanese, Korean   overlapping pairs, as Lucene's CJKBigramFilter; a run of one stands alone. Items
                                get the single characters too, so that a query of one character finds them.
    marks on letters            by their code, where no letter holds them: हिन्दी → ह_93fन_94dद_940

Words hold letters, digits and underscores only, since Milvus Lite's analyser splits at anything else, marks too.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import snowballstemmer

MAX_QUERY_CHARS = 2_000
"""The most of a query that is looked at: no query needs more, and each word costs the store a list to scan."""
MAX_INDEXED_BYTES = 60_000
"""Of an item's words, joined: fits a 65,535-byte field with room to spare."""

_CJK = (
    r"\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)

# What shops write for one unit, so that any spelling finds any other.
_UNITS = {
    spelling: unit
    for unit, spellings in {
        "in": 'in inch inches " ” ″',
        "ft": "ft foot feet ' ’ ′",
        "yd": "yd yard yards",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "sqft": "sqft",
        "g": "g gram grams",
        "kg": "kg kilogram kilograms kilo kilos",
        "mg": "mg milligram milligrams",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "l": "l liter liters litre litres",
        "gal": "gal gallon gallons",
        "qt": "qt quart quarts",
        "kb": "kb",
        "mb": "mb",
        "gb": "gb gigabyte gigabytes",
        "tb": "tb terabyte terabytes",
        "w": "w watt watts",
        "kw": "kw",
        "v": "v volt volts",
        "a": "amp amps",
        "mah": "mah",
        "hz": "hz",
        "khz": "khz",
        "mhz": "mhz",
        "ghz": "ghz",
        "mp": "mp",
        "k": "k",
        "pc": "pc pcs piece pieces",
        "pk": "pk pack packs",
        "ct": "ct count",
    }.items()
    for spelling in spellings.split()
}

_SYMBOLS = "".join(spelling for spelling in _UNITS if not spelling.isalpha())
_UNIT = "|".join(sorted((spelling for spelling in _UNITS if spelling.isalpha()), key=len, reverse=True))
_LATIN = rf"(?:(?![{_CJK}])[^\W_])"
# Vowels of Hindi, tones of Thai: part of the word, and none of \w. Not what only makes a picture of a letter (™️, a⃣).
# Beyond the first plane are no scripts that shops write in, and such marks would make all texts slower to read.
_MARKS = "".join(
    character
    for character in map(chr, range(0x300, 0x10000))
    if unicodedata.category(character) in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"
)
_MARK = re.compile(f"[{_MARKS}]")
_LETTER = rf"(?:{_LATIN}[{_MARKS}]*+)"
_DOT_ABOVE = "\u0307"
_TOKEN = re.compile(
    # \w leaves out marks among them (・) and what Unicode has not assigned yet.
    rf"(?P<cjk>(?:(?=\w)[{_CJK}])+)"
    # Atomic, so that 1000xm4 cannot be read as 100 and 0xm4.
    rf"|(?P<number>(?>\d+(?:,\d{{3}})*(?:[./]\d+)?))(?!{_LATIN})"
    rf"(?:[ -]?(?P<mark>[{_SYMBOLS}]|(?:{_UNIT})(?!{_LATIN})))?"
    rf"|(?P<glued>(?>\d+(?:\.\d+)?))(?P<unit>(?:(?!\d){_LETTER}){{1,12}})(?!{_LATIN})"
    rf"|(?P<word>{_LETTER}+(?:['’]{_LETTER}+)*)"
)

# Lucene's EnglishAnalyzer: frequent enough to cost time, too frequent to tell items apart.
_STOP_WORDS = frozenset(
    re.split(
        " ",
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
        "they this to was will with",
    )
)

_local = threading.local()


def index_text(parts: Iterable[str]) -> str:
    """The words of an item, most important part first, as the store is given them. Cut at `MAX_INDEXED_BYTES`."""
    taken: list[str] = []
    size = 0
    for part in parts:
        for word in _words(part, single_characters=True):
            size += len(word.encode()) + 1
            if size > MAX_INDEXED_BYTES:
                return " ".join(taken)
            taken.append(word)
    return " ".join(taken)


def query_text(text: str) -> str:
    """The words of a query, as the store is given them; empty when it has none."""
    return " ".join(_words(text[:MAX_QUERY_CHARS], single_characters=False))


def _words(text: str, *, single_characters: bool) -> Iterator[str]:
    # Lower case makes two characters of İ, the second a mark; who types istanbul means the first.
    lowered = unicodedata.normalize("NFKC", text).lower().replace("i" + _DOT_ABOVE, "i")
    for match in _TOKEN.finditer(lowered):
        kind = match.lastgroup
        if match["cjk"]:
            yield from _cjk_words(match["cjk"], single_characters=single_characters)
        elif match["number"]:
            yield from _number_words(match["number"], match["mark"])
        elif kind == "unit":
            yield from _glued_words(match["glued"], match["unit"])
        else:
            word = _stem(match["word"].replace("’", "'"))
            if word:
                yield word


def _cjk_words(run: str, *, single_characters: bool) -> Iterator[str]:
    if len(run) == 1:
        yield run
        return
    for index, character in enumerate(run):
        if single_characters:
            yield character
        if index + 1 < len(run):
            yield run[index : index + 2]


def _number_words(number: str, mark: str | None) -> Iterator[str]:
    word = _number_word(number)
    yield word
    if mark is not None:
        yield word + _UNITS[mark]


def _glued_words(number: str, unit: str) -> Iterator[str]:
    """`500gb`. What follows the number but is no unit (`4x`, `3d`) stays one word with it."""
    known = _UNITS.get(unit)
    if known is None:
        yield _number_word(number) + _spelled(unit)
    else:
        yield _number_word(number)
        yield _number_word(number) + known


def _number_word(number: str) -> str:
    return number.replace(",", "").replace(".", "_").replace("/", "__")


def _spelled(word: str) -> str:
    """`word` with its marks in characters that no analyser splits at."""
    return _MARK.sub(lambda mark: f"_{ord(mark[0]):x}", word)


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    """The stem of a lower-case word; empty for a stop word."""
    if word in _STOP_WORDS:
        return ""
    if not word.isascii():
        return _spelled(word.replace("'", ""))
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        # One a thread: a stemmer keeps the word it works on.
        stemmer = _local.stemmer = snowballstemmer.stemmer("english")
    return str(stemmer.stemWord(word)).replace("'", "")
