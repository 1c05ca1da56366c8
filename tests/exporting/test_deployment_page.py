"""The examples of docs/deployment.md run on what the commands of the page write."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcft_cli.exporting.export import export
from dcft_cli.merging.merge import merge
from tests.families import save_base
from tests.jobs import recipe, train
from tests.test_docs import ROOT, blocks


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_three_forms_give_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base", "deberta-v2", initializer_range=0.3)
    job = train(recipe("sst2", tmp_path, base, "training.learning_rate=0.05"), tmp_path / "run")
    merge(str(base), str(job.folder), str(tmp_path / "merged"))
    export(str(job.folder), str(tmp_path / "reviews-onnx"), to="onnx")
    export(str(job.folder), str(tmp_path / "reviews-peft"), to="peft")
    monkeypatch.chdir(tmp_path)
    plain, onnx, peft = blocks(ROOT / "docs" / "deployment.md", "python")

    def run(block: str) -> Any:
        variables: dict[str, Any] = {}
        exec(block.replace("microsoft/deberta-v3-base", str(base)), variables)
        return variables

    onnx_logits, peft_logits = run(onnx)["logits"], run(peft)["logits"].numpy()
    np.testing.assert_allclose(onnx_logits, peft_logits, atol=1e-5)
    (found,) = run(plain)["classify"](["A gripping film."], top_k=1)
    exponentials = np.exp(onnx_logits[0])
    assert found[0]["label"] == ("negative", "positive")[exponentials.argmax()]
    assert found[0]["score"] == pytest.approx(exponentials.max() / exponentials.sum(), abs=1e-5)
