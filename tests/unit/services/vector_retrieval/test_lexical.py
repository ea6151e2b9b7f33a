import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vector_retrieval.lexical import MAX_INDEXED_BYTES, MAX_QUERY_CHARS, index_text, query_text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Running SHOES for Women", "run shoe women"),
        ("Women's kid’s", "women kid"),
        ("Noise-Cancelling WH-1000XM4", "nois cancel wh 1000xm4"),
        ("Ｗｉ‐Ｆｉ １２ｃｍ", "wi fi 12 12cm"),
        ("Café", "café"),
        ("500 GB", "500 500gb"),
        ("500gb", "500 500gb"),
        ('12" x 14 inches', "12 12in x 14 14in"),
        ("2.5L", "2_5 2_5l"),
        ("1/2 in. pipe", "1__2 1__2in pipe"),
        ("1,000 pcs", "1000 1000pc"),
        ("3D 2x4 5G", "3d 2x4 5 5g"),
        ("iPad2代", "ipad2 代"),
        ("绿茶", "绿茶"),
        ("西湖龙井", "西湖 湖龙 龙井"),
        ("3绿茶 500克", "3 绿茶 500 克"),
        ("スニーカー", "スニ ニー ーカ カー"),
        ("한국어", "한국 국어"),
        ("茶", "茶"),
        ("हिन्दी किताब", "ह_93fन_94dद_940 क_93fत_93eब"),
        ("ที่นอน", "ท_e35_e48นอน"),
        ("5दिन 12ที่", "5द_93fन 12ท_e35_e48"),
        ("x\u0302-Achse l'x\u0302", "x_302 achs lx_302"),
        ("e\u0301te\u0301", "été"),
        ("İSTANBUL I\u0307zmir", "istanbul izmir"),
        ("Nike™️ 1️⃣ a\u20e3 葛\ufe00飾", "niketm 1 葛 飾"),
        ("the of and", ""),
        ("  …!? ", ""),
        ("", ""),
    ],
)
def test_words_of_a_query(text: str, words: str) -> None:
    assert query_text(text) == words


def test_items_have_single_characters_too() -> None:
    assert index_text(["绿茶"]) == "绿 绿茶 茶"


@pytest.mark.parametrize(
    "pair",
    [
        ("500 gb", "500GB"),
        ("12 inch", '12"'),
        ("hiking boots", "Hike boot"),
        ("2,5", "2,5"),
        ("istanbul lamba", "İSTANBUL Lamba"),
    ],
)
def test_spellings_meet(pair: tuple[str, str]) -> None:
    assert query_text(pair[0]) == query_text(pair[1])


@given(st.text() | st.text("aKİिीที่\u0307\u0302'5 茶ガ゙"))
def test_what_a_query_asks_for_its_text_has(text: str) -> None:
    assert set(query_text(text).split()) <= set(index_text([text]).split())


def test_words_that_differ_in_their_marks_differ() -> None:
    assert len({query_text(text) for text in ("कि", "की", "क", "कक", "कि कि")}) == 5


@given(st.text() | st.text("aKİिीที่\u0307\u0302'5 茶ガ゙"))
def test_words_survive_an_analyser_that_splits_at_non_words(text: str) -> None:
    words = index_text([text])
    assert re.findall(r"\w+", words.lower()) == words.split()


def test_long_texts_are_cut_at_a_word() -> None:
    words = index_text(["龙井绿茶" * 20_000])
    assert MAX_INDEXED_BYTES - 8 < len(words.encode()) <= MAX_INDEXED_BYTES
    assert len(query_text("a1 " * MAX_QUERY_CHARS)) <= MAX_QUERY_CHARS


def test_the_title_comes_first() -> None:
    assert index_text(["red shoe", "Acme"]) == "red shoe acm"
