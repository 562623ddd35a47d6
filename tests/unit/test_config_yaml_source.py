"""What YAML is read as, and what is refused."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import yaml_source
from common.config.yaml_source import parse, read
from common.platform.errors import ConfigError


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), "configs/f.yml")
    return str(caught.value).removeprefix("configs/f.yml:")


def test_scalars_are_text_numbers_booleans_and_null() -> None:
    text = "a: x y\nb: 12\nc: -1.50\nd: true\ne: null\nf:\ng: '12'\nh: |\n  no\n  12\ni: [1, {j: ~}]\nk: 0 6 * * *\n"
    assert parse(text.encode(), "f").data == {
        "a": "x y",
        "b": 12,
        "c": Decimal("-1.50"),
        "d": True,
        "e": None,
        "f": None,
        "g": "12",
        "h": "no\n12\n",
        "i": [1, {"j": None}],
        "k": "0 6 * * *",
    }


def test_decimals_keep_every_digit() -> None:
    assert str(parse(b"v: 1.10", "f").data["v"]) == "1.10"


def test_every_key_and_list_item_knows_its_line() -> None:
    source = parse(b"# comment\na:\n  b:\n    - 1\n    - c: 2\n", "f")
    lines = {"/".join(map(str, location)): line for location, line in source.lines.items()}
    assert lines == {"": 2, "a": 2, "a/b": 3, "a/b/0": 4, "a/b/1": 5, "a/b/1/c": 5}


def test_a_missing_key_is_reported_on_the_line_of_what_should_hold_it() -> None:
    assert str(parse(b"a: 1\nb:\n  c: 2\n", "f").problem(("b", "d", "e"), "is required.")) == "f:2: b.d.e: is required."


NUMBERS = "012 00 0x1F 0o17 1_000 1e3 1.5e3 .5 1. +1 12:30 12:30:45.5 .inf .NaN 1234567890123456789"
OTHERS = ("no", "Yes", "on", "TRUE", "Null", "=", "2026-01-15", "2026-01-15T00:00:00Z")


@pytest.mark.parametrize("scalar", [*NUMBERS.split(), *OTHERS])
def test_a_plain_scalar_that_readers_disagree_on_must_be_quoted(scalar: str) -> None:
    assert refusal(f"a: 1\nb:\n  - {scalar}\n") == (
        "3: b[0]: is read differently by different YAML readers. Put it in quotes."
    )
    assert parse(f"b: '{scalar}'".encode(), "f").data == {"b": scalar}


def test_a_key_twice_is_refused_with_both_lines() -> None:
    assert refusal("a:\n  b: 1\n  c: 2\n  b: 3\n") == "4: a.b: is given twice, first in line 2. Remove one."


@pytest.mark.parametrize("key", ["1", "true", "null", "[a]", "{a: b}", "? [a]\n  "])
def test_a_key_that_is_not_text_is_refused(key: str) -> None:
    assert refusal(f"a:\n  {key}: 1\n").startswith("2: a: has a key that is not text.")


def test_a_key_that_readers_disagree_on_must_be_quoted() -> None:
    assert "Put it in quotes" in refusal("on: 1\n")


def test_merge_keys_are_refused() -> None:
    assert refusal("<<: {a: 1}\n").startswith("1: ")


def test_several_mistakes_are_listed_at_once() -> None:
    assert refusal("a: no\nb: yes\n").count("\n") == 1


@pytest.mark.parametrize("text", ["a: &x 1\n", "a: 1\nb: *x\n", "a: &x [1]\nb: [*x, *x]\n"])
def test_anchors_and_aliases_are_refused_before_they_can_multiply(text: str) -> None:
    assert "anchors and aliases are not allowed" in refusal(text)


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x\n", "a: !x 1\n", "a: ! 1\n", "a: !!str 1\n"])
def test_tags_are_refused(text: str) -> None:
    assert refusal(text) == "1: column 4: tags (!...) are not allowed. Remove it."


def test_nesting_ends_at_a_bound_and_not_in_a_recursion_error() -> None:
    deepest = yaml_source.MAX_DEPTH - 2  # below the mapping and around the number
    assert parse(b"a: " + b"[" * deepest + b"1" + b"]" * deepest, "f").data
    assert "nested deeper than 32 levels" in refusal("a: " + "[" * 100_000)
    assert "nested deeper than 32 levels" in refusal("- " * 100_000)


def test_size_ends_at_a_bound() -> None:
    fits = b"a: 1\n" + b"#" * (yaml_source.MAX_BYTES - 5)
    assert parse(fits, "f").data == {"a": 1}
    assert refusal(fits + b"#") == "1: (file): has 262145 bytes, at most 262144 are read. Split it."


def test_a_file_too_large_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(b"#" * (yaml_source.MAX_BYTES + 1))
    monkeypatch.setattr(yaml_source, "_read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ConfigError, match="at most 262144"):
        read(path, "f.yml")


def test_a_tab_is_refused_with_line_and_column() -> None:
    message = refusal("a:\n  b: 1\n\tc: 2\n")
    assert message.startswith("3: column 1: is not YAML:") and message.endswith("Indent with spaces.")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "2: column 2: "),
        ("a: b: c\n", "1: column 5: "),
        ('a: "x\n', "2: column 1: "),
        ("}", "1: column 1: "),
    ],
)
def test_a_syntax_error_is_refused_with_line_and_column(text: str, place: str) -> None:
    assert refusal(text).startswith(f"{place}is not YAML:")


def test_a_second_document_is_refused() -> None:
    assert refusal("a: 1\n---\nb: 2\n").startswith("2: column 1: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text\n", "12\n"])
def test_anything_but_a_mapping_is_refused(text: str) -> None:
    assert refusal(text) == "1: (file): must be a mapping of keys to values at its top level."


def test_what_is_not_utf_8_is_refused_with_its_line() -> None:
    assert refusal(b"a: 1\nb: caf\xe9\n") == "2: (file): is not UTF-8. Save it as UTF-8."


@pytest.mark.parametrize("text", ["a: 1\nb: \x07\n", 'a: 1\nb: "\\0"\n', 'a: 1\nb: "\\ud800"\n', 'a: 1\n"b\\r": 1\n'])
def test_control_characters_and_lone_surrogates_are_refused_with_their_line(text: str) -> None:
    assert refusal(text).startswith("2: ") and "control character" in refusal(text)


@pytest.mark.parametrize("text", ['a: "\\UFFFFFFFF"\n', f"%YAML 1.{'9' * 5000}\n---\na: 1\n"])
def test_numbers_that_the_yaml_library_trips_over_are_refused(text: str) -> None:
    assert "is not YAML" in refusal(text)


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n", "f").data == {"a": 1}


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"configs/no.yml:1: \(file\): can't be read: No such file"):
        read(tmp_path / "no.yml", "configs/no.yml")
    with pytest.raises(ConfigError, match="its path is not valid"):
        read(tmp_path / "n\0.yml", "configs/no.yml")


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("a: 1\n", "utf-8")
    first = read(path, "f.yml")
    assert read(path, "f.yml") is first
    path.write_text("a: 12\n", "utf-8")
    assert read(path, "f.yml").data == {"a": 12}


@given(st.binary(max_size=200))
def test_random_bytes_are_data_or_a_config_error(raw: bytes) -> None:
    try:
        parse(raw, "f")
    except ConfigError as error:
        assert str(error).startswith("f:")


@given(st.text(alphabet="ab:- \n[]{}\"'\\#&*!|>%@?,0x\tu", max_size=60))
def test_random_yaml_punctuation_is_data_or_a_config_error(text: str) -> None:
    try:
        parse(text.encode(), "f")
    except ConfigError as error:
        assert str(error).startswith("f:")
