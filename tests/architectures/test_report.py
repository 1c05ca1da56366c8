"""docs/architectures.md says what is so; what it excuses still needs an excuse."""

from collections.abc import Iterable

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import CONFIG_MAPPING

from tests.architectures import exceptions, tiny
from tests.architectures.describe import ENCODER, architecture, kind_by_rule
from tests.architectures.report import COMMAND, PAGE, page, share, types_of, version_of
from tests.architectures.test_conformance import ROLES, SEQUENCES
from tests.architectures.tiny import MODEL_TYPES, UNBUILDABLE, example, tiny_config, tiny_model

TEXT = PAGE.read_text("utf-8")
INSTALLED, SHOWN = Version(transformers.__version__), Version(version_of(TEXT))
REASONS: dict[str, dict[str, str]] = {
    "WITHOUT_ROLES": exceptions.WITHOUT_ROLES,
    "UNREACHED": exceptions.UNREACHED,
    "UNREACHED_BY_TOKENS": exceptions.UNREACHED_BY_TOKENS,
    "UNREACHED_BY_ANSWERS": exceptions.UNREACHED_BY_ANSWERS,
    "ONLY_TRAINS": exceptions.ONLY_TRAINS,
    "SEES_PADDING": exceptions.SEES_PADDING,
    "KINDS": {name: reason for name, (_, reason) in exceptions.KINDS.items()},
    "UNBUILDABLE": UNBUILDABLE,
}


def here(names: Iterable[str]) -> list[str]:
    """Those that the installed transformers has."""
    return [name for name in names if name in MODEL_TYPES]


def test_the_page_is_up_to_date() -> None:
    if INSTALLED != SHOWN:
        pytest.skip(f"docs/architectures.md is written for transformers {SHOWN}")
    assert page() == TEXT, f"docs/architectures.md is stale: {COMMAND}"


def test_every_type_is_on_the_page() -> None:
    shown = types_of(TEXT)
    assert len(shown) == len(set(shown))
    new, gone = set(MODEL_TYPES) - set(shown), set(shown) - set(MODEL_TYPES)
    assert not new, (
        f"New in transformers {INSTALLED}: {', '.join(sorted(new))}. "
        "Run pytest tests/architectures with it. A tiny model that cannot be built takes an entry "
        "in EXCEPTIONS of tiny.py, layers without a role one in targets/roles.py, and what cannot "
        f"be helped one in exceptions.py, with its reason. Then: {COMMAND}"
    )
    assert not gone or INSTALLED < SHOWN, (
        f"No longer in transformers {INSTALLED}: {', '.join(sorted(gone))}. Then: {COMMAND}"
    )


def test_encoders_need_no_hint() -> None:
    encoders = [one for one in map(architecture, MODEL_TYPES) if one.kind == ENCODER]
    complete, count = share(encoders)
    lacking = [one.model_type for one in encoders if not one.complete]
    assert complete >= 0.95 * count, lacking
    assert set(lacking) <= exceptions.NO_ROLE.keys() | UNBUILDABLE.keys()


@pytest.mark.parametrize("name", REASONS)
def test_every_exception_has_a_reason(name: str) -> None:
    assert all(len(reason.split()) > 3 for reason in REASONS[name].values())


def test_every_exception_is_about_a_type() -> None:
    if INSTALLED < SHOWN:
        pytest.skip(f"some of the types came with transformers {SHOWN}")
    named = {name for reasons in REASONS.values() for name in reasons}
    noted = {name for types in exceptions.NOTES.values() for name in types}
    assert named | noted | exceptions.NO_ROLE.keys() <= set(MODEL_TYPES)
    assert set(tiny.EXCEPTIONS) <= set(CONFIG_MAPPING)


def test_no_role_that_is_there_is_excused() -> None:
    assert exceptions.NO_ROLE.keys() == exceptions.WITHOUT_ROLES.keys()
    for name in here(exceptions.NO_ROLE):
        assert not architecture(name).roles & set(exceptions.NO_ROLE[name]), name
        assert set(exceptions.NO_ROLE[name]) <= set(ROLES)


def test_what_can_be_built_is_not_excused() -> None:
    for name in here(UNBUILDABLE):
        with pytest.raises(ImportError):
            tiny_model(name)


def test_what_the_rule_knows_is_not_excused() -> None:
    for name in here(exceptions.KINDS):
        assert kind_by_rule(name) != exceptions.KINDS[name][0], name


def test_what_goes_backward_in_evaluation_is_not_excused() -> None:
    for name in here(exceptions.ONLY_TRAINS):
        inputs = {**example(name, tiny_config(name)), "labels": torch.tensor([0, 1])}
        with pytest.raises(AssertionError):
            tiny_model(name, SEQUENCES)(**inputs).loss.backward()
