"""What takes long: the tests at both ends of the ranges in pyproject.toml (`nox -s oldest`,
`nox -s newest`), known vulnerabilities (`nox -s audit`) and mutated files (`nox -s fuzz`)."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
PYTHON = PROJECT["requires-python"].removeprefix(">=")
# What transformers before 5.23 calls, and this torch has deprecated: no fault of ours.
OLD_NEWS = "`torch.jit.script` is deprecated"
# torch 2.8 leaves log files of its compiler open. A dot for the colon, which ends a field.
UNCLOSED = "Exception ignored in. <_io.FileIO"

nox.options.sessions = ["oldest", "newest"]


@nox.session(python=PYTHON)
def oldest(session: nox.Session) -> None:
    """With the first release in each of our ranges."""
    requirements = [*map(Requirement, PROJECT["dependencies"]), *extra("test")]
    pinned = [oldest_in_range(session, requirement) for requirement in requirements]
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join(pinned) + "\n", "utf-8")
    session.log("constraints: %s", " ".join(pinned))
    session.install("-e", ".[test]", "--constraint", str(constraints))
    ignore_in_all_processes(session, OLD_NEWS)
    filters = (
        "error",
        f"ignore:{OLD_NEWS}:DeprecationWarning",
        f"ignore:{UNCLOSED}:pytest.PytestUnraisableExceptionWarning",
    )
    session.run(
        "pytest", "--override-ini", "filterwarnings=" + "\n".join(filters), *session.posargs
    )


@nox.session
def newest(session: nox.Session) -> None:
    """With the last releases that our ranges admit."""
    session.install("--upgrade", "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look up known vulnerabilities of every package that the tests and the quickstart install."""
    session.install("--upgrade", ".[quickstart,test]", "pip-audit>=2.9,<3")
    # Only what it requires is on the index. Without --strict, packages that could not be looked up
    # would pass.
    session.run("python", "-m", "pip", "uninstall", "--yes", PROJECT["name"])
    session.run("pip-audit", "--strict", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Mutated adapter files, recipes and data files: many of each, for an hour or so."""
    session.install("-e", ".[test]")
    for kind, count in (("adapters", 100_000), ("recipes", 10_000), ("data", 10_000)):
        failures = Path(session.create_tmp()) / kind
        session.run(
            *("python", "-m", "tests.fuzz", kind),
            *("--count", str(count), "--failures", str(failures)),
        )


def extra(name: str) -> Iterator[Requirement]:
    """What an extra requires, with the extras that it names."""
    for requirement in map(Requirement, PROJECT["optional-dependencies"][name]):
        if requirement.name == PROJECT["name"]:
            for named in sorted(requirement.extras):
                yield from extra(named)
        else:
            yield requirement


def oldest_in_range(session: nox.Session, requirement: Requirement) -> str:
    """The first release on the index that a requirement admits, as a constraint."""
    name = requirement.name
    listed = session.run("python", "-m", "pip", "index", "versions", name, silent=True)
    versions = re.search(r"^Available versions: (.*)$", str(listed), re.MULTILINE)
    if versions is None:
        session.error(f"The package index has no versions of {name}: {listed}")
    admitted = requirement.specifier.filter(versions.group(1).split(", "))
    return f"{name}=={min(admitted, key=Version)}"


def ignore_in_all_processes(session: nox.Session, message: str) -> None:
    """Keeps a deprecation from being an error in processes that tests start with `-W error`."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(str(session.run("python", "-c", where, silent=True)).strip())
    ignored = f"import warnings; warnings.filterwarnings('ignore', {message!r}, DeprecationWarning)"
    (packages / "ignored_warning.pth").write_text(f"{ignored}\n", "utf-8")
