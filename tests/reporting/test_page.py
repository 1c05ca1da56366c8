"""The page: complete, free of the network, and laid out for phone and desk by a real browser."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dcft_cli.reporting.page import to_page
from dcft_cli.reporting.report import make_report
from tests.reporting.runs import write_run

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_VOID = {"meta", "br", "use", "path", "rect"}
_NARROW, _WIDE = 390, 1280
# Two frames of one page, as wide as a phone and a desk; what is measured is written into the page.
_HARNESS = """<!doctype html><iframe id="narrow" style="width:{narrow}px;height:900px"
srcdoc="{page}"></iframe><iframe id="wide" style="width:{wide}px;height:900px" srcdoc="{page}">
</iframe><pre id="facts"></pre><script>
addEventListener("load", () => {{
  const facts = {{}};
  for (const id of ["narrow", "wide"]) {{
    const view = document.getElementById(id).contentWindow, page = view.document;
    const all = (name) => [...page.querySelectorAll(name)];
    facts[id] = {{
      overflow: page.documentElement.scrollWidth - view.innerWidth,
      rows: all("tbody tr").length,
      figures: all("figure svg").map((svg) => svg.getBoundingClientRect().width),
      letters: Math.min(...all("figure text").map((text) => text.getBoundingClientRect().height)),
      boxes: all(".scroll").map((box) => box.clientWidth),
      background: view.getComputedStyle(page.body).backgroundColor,
      text: view.getComputedStyle(all("figure text")[0]).fill,
    }};
  }}
  document.getElementById("facts").textContent = JSON.stringify(facts);
}});
</script>"""


class _Reader(HTMLParser):
    """Checks that tags match, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self.addresses += [v or "" for name, v in attrs if name in ("src", "href", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for name, v in attrs if name in ("src", "href", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables: one of three groups with three seeds, one of a single run; a broken run."""
    root = tmp_path_factory.mktemp("runs")
    for kernel in (2, 4, 8):
        for seed in (1, 2, 3):
            write_run(
                root / f"d{kernel}-{seed}", f"adapter.kernel_size={kernel}",
                "training.learning_rate=0.0125", seed=seed, best=0.7 + seed / 100,
                adapter_parameters=2000 // kernel, scores=[(3, 0.6), (6, 0.7 + seed / 100)],
            )  # fmt: skip
    write_run(root / "other", "model.name=a<b>&c")
    (write_run(root / "stopped") / "metrics.json").unlink()
    return root


@pytest.fixture(scope="module")
def page(runs: Path) -> str:
    return to_page(make_report([str(runs)]))


def test_tables_figures_and_notes(page: str, runs: Path) -> None:
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert [reader.tags.count(tag) for tag in ("table", "svg", "figcaption")] == [2, 6, 6]
    assert reader.tags.count("tr") == 2 + (2 + 3) + (2 + 1)
    assert "<h1>Comparison of 10 runs in 4 groups</h1>" in page
    assert "stopped: not finished: the last step in its log is 6" in page
    assert f"dcft train {runs}/d2-1/recipe.yaml --output {runs}/d2-1-again" in page
    assert page.count("dcft train") == 10
    assert re.search(r"Page made by dcft \S+ with Python \S+, torch \S+, transformers", page)
    assert "a&lt;b&gt;&amp;c" in page and "<b>" not in page


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    reader = _Reader()
    reader.feed(page)
    assert all(address.startswith("#") for address in reader.addresses)
    assert "://" not in page
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_the_same_runs_give_the_same_page(page: str, runs: Path) -> None:
    assert to_page(make_report([str(runs)])) == page


@pytest.mark.parametrize(("scheme", "dark"), [(1, False), (0, True)])
def test_in_a_browser(page: str, tmp_path: Path, scheme: int, dark: bool) -> None:
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(_BROWSERS)}")
    harness = tmp_path / "harness.html"
    harness.write_text(_HARNESS.format(page=escape(page), narrow=_NARROW, wide=_WIDE), "utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,2000",
         f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", harness.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="facts">(.+?)</pre>', done.stdout)
    assert found, done.stderr
    facts = json.loads(unescape(found[1]))
    for name, width in (("narrow", _NARROW), ("wide", _WIDE)):
        seen = facts[name]
        assert seen["overflow"] == 0  # only tables scroll, inside their boxes
        assert seen["rows"] == 8
        assert len(seen["figures"]) == 6
        assert all(300 <= figure <= width for figure in seen["figures"])
        assert seen["letters"] >= 11  # pixels
        assert all(box > 300 for box in seen["boxes"])
        light = "rgb(255, 255, 255)"
        assert (seen["background"] == light) is not dark
        assert seen["text"] == ("rgb(230, 237, 243)" if dark else "rgb(31, 35, 40)")
