from pathlib import Path

import pytest

from shared.catalogue.__main__ import main


def test_generate_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "items.jsonl.gz"
    assert main(["generate", "--out", str(path), "--items", "120", "--seed", "3"]) == 0
    assert "wrote 120 items" in capsys.readouterr().out
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "120 distinct" in out
    assert "item 3" in out
    assert "rejected    0" in out


def test_check_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sku,name,amount,ean\n" + "1,a,500,7\n1,b,700,7\n2,c,100,7\n,d,100,7\n,e,100,7\n")
    assert main(["check", str(path), "--mapping", "price=amount"]) == 0
    out = capsys.readouterr().out
    assert "2 distinct" in out
    assert "duplicates  1" in out
    assert "2 × id: must not be empty (line 5, line 6)" in out
    assert "not used: ean" in out
    assert "map price=amount/100" in out


def test_check_prints_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "1", "title": "t", "\\ud800": 1}\n')
    assert main(["check", str(path)]) == 0
    assert "not used: \\ud800" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["check", "no.csv"], ["check", "x.xlsx"], ["generate", "--out", "no/such/folder.jsonl"]],
)
def test_failures_are_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["generate"], ["generate", "--out", "x", "--items", "0"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert "price=price/100" in capsys.readouterr().out
