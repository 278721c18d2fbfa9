"""The exported network gives what the network gives, for any number of slices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from node.cli import app
from qa_engine import onnx_export
from qa_engine.measures import MEASURE_NAMES
from qa_engine.model import Model, load_model
from qa_engine.onnx_export import INPUTS, ExportError, example, export_onnx

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model() -> Model:
    found = load_model()
    assert isinstance(found, Model)
    return found


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """The file as the command writes it, alone in its folder."""
    file = tmp_path_factory.mktemp("onnx") / "compact.onnx"
    done = CliRunner().invoke(app, ["model", "export", str(file), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["file"] == str(file), done.stderr
    assert [f.name for f in file.parent.iterdir()] == ["compact.onnx"]
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("slices", [1, 2, 7, 10])
def test_same_output(session: onnxruntime.InferenceSession, model: Model, slices: int) -> None:
    given = example(slices, torch.Generator().manual_seed(slices))
    with torch.inference_mode():
        expected = model.network(*given)
    axes, logit = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, given, strict=True)})
    assert np.abs(axes - expected.axes.numpy()).max() < 1e-4 and np.abs(logit - expected.weight_logit.numpy()).max() < 1e-4
    assert axes.shape == (slices, 3) and logit.shape == (slices,) and (slices == 1 or axes.std(0).min() > 1e-3)


def test_the_file_says_what_it_is(session: onnxruntime.InferenceSession, model: Model) -> None:
    told = session.get_modelmeta().custom_metadata_map
    assert told["sha256"] == model.identity.sha256 and json.loads(told["measures"]) == list(MEASURE_NAMES)
    assert json.loads(told["axis_std"])["MR"] == pytest.approx(model.network.standard.std[1].tolist())


def test_what_cannot_be_exported_is_one_line(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.card, "rating", {"CT": {"knots": [[0, 0], [100, 100]]}})
    with pytest.raises(ExportError, match="answers in people's ratings"):
        export_onnx(model, tmp_path / "x.onnx")
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_package"))
    monkeypatch.delitem(model.card, "rating")
    with pytest.raises(ExportError, match=r"not installed \(no_such_package\).*mediqa-node\[export\]"):
        export_onnx(model, tmp_path / "x.onnx")
    for args, code in ((["x.txt"], 2), ([str(tmp_path / "none" / "x.onnx")], 1), ([str(tmp_path / "x.onnx"), "--profile", "none"], 1)):
        done = CliRunner().invoke(app, ["model", "export", *args])
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1), args
    assert list(tmp_path.iterdir()) == []
