"""YAML and overrides, before the schema."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dcft_cli.errors import RecipeError
from dcft_cli.recipe.loading import to_yaml
from dcft_cli.recipe.source import Source, plain_value, read_source


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1e-3", 1e-3),
        ("-2E5", -2e5),
        ("+1.5e+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("8", 8),
        ("-3", -3),
        ("010", 10),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *(
            (text, text)
            for text in [
                *("no", "yes", "on", "off", "y", "n"),
                *("2024-01-01", "1:30", "1_000", "0x10", "0o7"),
                *(".inf", "-.inf", ".nan", "nan", "1e999", "e5", "5e", ".", "+"),
                "1234567890123456789012345678901234567890",
            ]
        ),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = plain_value(text)
    assert (read, type(read)) == (value, type(value))
    if text:
        assert read_source(f"key: {text}", "r").values == {"key": read}


def test_quoted_scalars_and_keys_are_strings() -> None:
    source = read_source("no: \"5\"\n1: 'true'\nlong: |\n  7\n", "r")
    assert source.values == {"no": "5", "1": "true", "long": "7\n"}


def test_every_key_has_a_line() -> None:
    source = read_source("a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n", "r.yaml")
    lines = {path: place.line for path, place in source.places.items()}
    assert lines == {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 1, "d"): 5}
    for path, label in (("ab", "r.yaml:2"), ("ax", "r.yaml:1"), ("x", "r.yaml")):
        assert source.place(tuple(path)).label == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.yaml: the recipe is empty"),
        ("# nothing\n", "r.yaml: the recipe is empty"),
        ("\n- a\n", "r.yaml:2: the recipe is not a mapping"),
        ("rte", "r.yaml:1: the recipe is not a mapping"),
        ("a: 1\nb: [1\n", "r.yaml:3: not valid YAML"),
        ("a: 1\n\tb: 2\n", "r.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2: not valid YAML"),
        ("a: 1\nb: \x00\n", "r.yaml:2: not valid YAML"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", "r.yaml:2: not valid YAML: the tag"),
        ("a: !!int 3\n", "r.yaml:1: not valid YAML: the tag"),
        ("a: &x 1\nb: *x\n", "r.yaml:1: not valid YAML: anchors"),
        ("a: *x\n", "r.yaml:1: not valid YAML: anchors"),
        ("[[[", "r.yaml:1: not valid YAML"),
        ("a: " + "[" * 999 + "]" * 999, "r.yaml:1: not valid YAML: it is nested too deeply"),
    ],
)
def test_text_that_is_not_a_recipe(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_source(text, "r.yaml")
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_duplicate_and_odd_keys_are_problems() -> None:
    source = read_source("a: {b: 1}\nc: 1\na: 2\n[x]: 3\n", "r.yaml")
    assert [(place.line, message) for place, message in source.problems] == [
        (3, "a: given twice (first on line 1)"),
        (4, "top level: a key must be a string"),
    ]
    assert source.values == {"a": {"b": 1}, "c": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        (" 8 ", 8),
        ("null", None),
        ("", None),
        ("[Q, V]", ["Q", "V"]),
        ("{matched: a.jsonl, mismatched: C:\\b}", {"matched": "a.jsonl", "mismatched": "C:\\b"}),
        ('"8"', "8"),
        ("'it''s'", "it's"),
        *(
            (text, text)
            for text in [
                *("C:\\data\\x.csv", "a: b", "# x", "a #b", "- x", "x=y", "~/model", "!x"),
                *("*.query", "&x", "%x", "@x", "`x`", "(q|k)_proj$", "package://p/q", "a, b"),
            ]
        ),
    ],
)
def test_value_of_an_override(text: str, value: object) -> None:
    source = Source("r", {})
    source.override([f"a.b={text}"])
    assert source.values == {"a": {"b": value}}
    assert source.problems == []


@pytest.mark.parametrize(
    "text",
    [
        "a:\n\tb: 1\n",
        "a:\n  b: 1\n\tc: 2\n",
        "a:\n  b: 1\n  \tc: 2\n",
        "a:\n  - 1\n\t- 2\n",
        "a: {\n\tb: 1}\n",
        "a:\tb\n",
        "a: 1\t# one\n",
    ],
)
def test_a_tab_is_named(text: str) -> None:
    with pytest.raises(RecipeError, match="a tab where only spaces may be") as caught:
        read_source(text, "r.yaml")
    line = 1 + text.count("\n", 0, text.index("\t"))
    assert caught.value.message.startswith(f"r.yaml:{line}: ")
    assert "Replace tabs with spaces" in caught.value.hint
    assert read_source("a: 'x\ty'\nb: \"x\n\ty\"\n", "r").values == {"a": "x\ty", "b": "x y"}


@pytest.mark.parametrize(
    "value", ["[Q, V]", "[Q, K, V]", "{matched: a.csv, mismatched: b.csv}", "[[a, b], c]"]
)
def test_a_list_that_the_shell_split_is_one_problem(value: str) -> None:
    source = Source("r", {})
    source.override([*f"a.b={value}".split(" "), "c.d=1"])
    assert [(place.override, message) for place, message in source.problems] == [
        (1, f'the shell split this value at its spaces; quote it: "a.b={value}"')
    ]
    assert source.values == {"c": {"d": 1}}


def test_overrides_replace_whole_values_and_create_sections() -> None:
    source = read_source("a: {b: {c: 1}}\nd:\n", "r.yaml")
    source.override(["a.b=[2]", "a.b=[3, 4]", "d.e.f=5"])
    assert source.values == {"a": {"b": [3, 4]}, "d": {"e": {"f": 5}}}
    assert source.place(("a", "b", 1)).label == 'override "a.b=[3, 4]"'
    assert source.place(("d", "e", "f")).label == 'override "d.e.f=5"'
    assert source.place(("d",)).label == "r.yaml:2"


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("training", "must be KEY=VALUE"),
        ("=5", "must be KEY=VALUE"),
        (" = 5", "must be KEY=VALUE"),
        ("a..b=5", "must be KEY=VALUE"),
        ("a.=5", "must be KEY=VALUE"),
        ("a.b.c=5", "a.b: is not a section (value 1)"),
        ("a.b=[Q, V", "a.b: not valid YAML"),
        ("a.b=[Q], [V]", "a.b: not valid YAML"),
        ('a.b="C:\\x"', "a.b: not valid YAML"),
        ("a.b={x: 1, x: 2}", "a.b.x: given twice"),
        ("a.b=[!!python/name:os.system x]", "a.b: not valid YAML: the tag"),
    ],
)
def test_invalid_overrides_are_problems(argument: str, problem: str) -> None:
    source = read_source("a: {b: 1}", "r.yaml")
    source.override([argument])
    (place, message), *_ = source.problems
    assert place.label == f'override "{argument}"'
    assert message.startswith(problem)


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("{data: {holdout: {fraction: 0.1}}}", ["data.validation=v.csv"], {"validation": "v.csv"}),
        ("{data: {validation: v}}", ["data.holdout.fraction=1"], {"holdout": {"fraction": 1}}),
        ("{data: {validation: v}}", ["data.holdout={fraction: 1}"], {"holdout": {"fraction": 1}}),
        ("{data: {validation: v}}", ["data.holdout=null"], {"validation": "v", "holdout": None}),
        (
            "{data: {}}",
            ["data.holdout.fraction=1", "data.validation=v"],
            {"holdout": {"fraction": 1}, "validation": "v"},
        ),
        ("{model: {name: a, revision: b}}", ["model.name=c"], {"name": "c"}),
        ("{training: {warmup_ratio: 1}}", ["training.warmup_steps=0"], {"warmup_steps": 0}),
        ("{training: {warmup_steps: 1}}", ["training.warmup_ratio=0.2"], {"warmup_ratio": 0.2}),
    ],
)
def test_an_override_removes_its_alternative(
    recipe: str, overrides: list[str], expected: object
) -> None:
    source = read_source(recipe, "r")
    source.override(overrides)
    (section,) = source.values.values()
    assert section == expected


PLAIN: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**17), 10**17),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["5e-4", "no", "010", ".5", "1e3", "null", "~", "yes", "1:30", "2024-01-01"]),
)
KEYS = st.text(min_size=1, max_size=6)


NESTED: st.SearchStrategy[object] = st.deferred(
    lambda: PLAIN | st.lists(NESTED, max_size=3) | st.dictionaries(KEYS, NESTED, max_size=3)
)


@given(st.dictionaries(KEYS, NESTED, min_size=1, max_size=4))
def test_what_is_written_reads_back_the_same(values: dict[str, object]) -> None:
    text = to_yaml(values)
    source = read_source(text, "r")
    assert (source.values, source.problems) == (values, [])


def test_pyyaml_reads_the_same() -> None:
    texts = ["no", "5e-4", "0x1", "1:30"]
    values = {"a": texts, "b": 5e-05, "c": 1e-3, "d": 2.0, "e": "no"}
    assert yaml.safe_load(to_yaml(values)) == values
