"""Exported files: they give the model's numbers for any batch size, take the user's numbers, and need no vaezoo."""

import json
import re
import subprocess
import sys
from functools import cache
from itertools import product

import numpy as np
import onnx
import pandas
import pytest
import safetensors.torch
import torch
from conftest import REPO, command, config
from test_apply import run  # noqa: F401  # a fixture
from test_contract import LIKELIHOODS, MODELS, bits, labels, make

from vaezoo.data import TableData, TextData
from vaezoo.data.array_values import Conversion, convert_array
from vaezoo.data.table import prepare_rows
from vaezoo.distributions import DiscretizedLogisticDistribution
from vaezoo.export import FileReport, comparison, export_model, preprocessing
from vaezoo.export.comparison import measure_difference
from vaezoo.export.files import open_file, write_function
from vaezoo.export.functions import Decoder, Encoder
from vaezoo.instantiate import build
from vaezoo.runs.load import build_model
from vaezoo.runs.setup import wrap_parts

DOCS = (REPO / "docs" / "export.md").read_text()
IMAGES = {"noun": "image", "kind": "binary", "shape": [1, 9, 7]}
# Models whose functions differ; the others have their parts (test_every_model_has_named_outputs).
DIFFERENT = ["mlp_vae", "cvae", "full_cov_vae", "iaf_vae", "ladder_vae", "m2_vae", "planar_vae", "s_vae", "vq_vae"]


def small(name, *more, net="mlp"):
    """An untrained model whose decoder does not start at 0."""
    model = make(name, *more, net=net).eval()
    model.decoder.init_mean(torch.linspace(0.1, 0.9, 63).reshape(1, 9, 7))
    return model


def write(model, folder, description=IMAGES, x=None, y=None):
    """Export a model and check that every file works."""
    x = bits(10, 1, 9, 7) if x is None else x
    reports = export_model(model, description, folder, x, labels(len(x)) if y is None else y)
    assert [report.path.name for report in reports] == ["encoder.onnx", "encoder.pt2", "decoder.onnx", "decoder.pt2"]
    assert {report.path.name: report.describe() for report in reports if not report.works} == {}


def check_files(make_function, model, folder):
    """Write one function of a model of images, and check its files on 1, 3 and 7 examples; return the function."""
    function = make_function(model, preprocessing.Preprocessing(IMAGES)).eval()
    with torch.no_grad():
        inputs = function.example_inputs(bits(2, 1, 9, 7), labels(2))
        described = function.describe(inputs, function(**inputs))
    batches = [(bits(num, 1, 9, 7, seed=num), labels(num)) for num in (1, 3, 7)]
    for path, reason in write_function(function, inputs, folder, described).items():
        report = comparison.compare_file(path, function, batches, reason)
        assert report.works, report
        assert list(report.differences) == [tensor["name"] for tensor in described["outputs"]]
    return function


# That of mlp_vae is exported in test_other_weights_are_found, that of ladder_vae in the test after this one.
@pytest.mark.parametrize("name", [name for name in DIFFERENT if name not in ("mlp_vae", "ladder_vae")])
def test_encoders_give_the_numbers_of_the_model(name, tmp_path):
    """ONNX and torch.export files, for other batch sizes than the graph was recorded with, 2."""
    check_files(Encoder, small(name), tmp_path)


def test_the_encoder_of_a_ladder_and_the_digits_of_small_sigmoids(tmp_path):
    """A wide q from below is weighted by a small sigmoid against the prior, whose digits onnxruntime's own loses; the
    other layers are as they begin.
    """
    model = small("ladder_vae")
    dim = model.dims[1]
    with torch.no_grad():
        model.upwards[1].net.layers[-1].bias[dim : 2 * dim] += 5
    check_files(Encoder, model, tmp_path)


# That of mlp_vae with bits is exported in test_convolutions_and_the_report, and by the command line.
@pytest.mark.parametrize(
    ("name", "likelihood"),
    [("cvae", None), *product(["mlp_vae"], ["continuous_bernoulli", "coupled_mixture", "normal_optimal"])],
)
def test_decoders_give_the_numbers_of_the_model(name, likelihood, tmp_path):
    check_files(Decoder, small(name, *[f"model/likelihood={likelihood}"] * (likelihood is not None)), tmp_path)


def test_convolutions_and_the_report(tmp_path):
    """All files of a model with residual and transposed convolutions of images with odd sizes."""
    write(small("mlp_vae", net="resnet"), tmp_path)
    report = json.loads((tmp_path / "export.json").read_text())
    assert report["batch_sizes"] == [1, 3, 7, 10]
    assert report["files"]["encoder.onnx"]["works"]
    assert set(report["files"]["decoder.pt2"]["differences"]) == {"mean", "logits"}


def test_other_weights_are_found(tmp_path):
    """The files are right; those of a model whose weights changed afterwards by a thousandth do not pass."""
    function = check_files(Encoder, small("mlp_vae"), tmp_path)
    with torch.no_grad():
        function.model.encoder.net.layers[0].weight[0, 0] += 1e-3
    batches = [(torch.ones(2, 1, 9, 7), labels(2))]
    for suffix in ("onnx", "pt2"):
        report = comparison.compare_file(tmp_path / f"encoder.{suffix}", function, batches)
        assert not report.works
        assert 1e-5 < report.difference < 1e-2


def parts(model):
    """What the exported functions of a model depend on, apart from the networks."""
    encoder = getattr(model, "encoder", None)
    return type(getattr(encoder, "family", model)), model.conditional, getattr(type(model).encode, "__qualname__", None)


@cache
def known_parts():
    return {parts(small(name)) for name in DIFFERENT}


@pytest.mark.parametrize(
    ("name", "more"), [*((name, []) for name in MODELS), *(("mlp_vae", [f"model/likelihood={n}"]) for n in LIKELIHOODS)]
)
def test_every_model_has_named_outputs(name, more):
    """Code and mean are those of encode and decode, and each output has a meaning and is finite.

    The model has the parts of one whose files are tested above.
    """
    model, prepare = small(name, *more), preprocessing.Preprocessing(IMAGES)
    assert parts(model) in known_parts(), f"{name}: add it to DIFFERENT"
    x, y = bits(4, 1, 9, 7), labels(4)
    for function in (Encoder(model, prepare).eval(), Decoder(model, prepare).eval()):
        with torch.no_grad():
            inputs = function.example_inputs(x, y)
            outputs, reference = function(**inputs), function.reference(x, y)
        assert set(reference) <= set(outputs)
        for key, value in reference.items():
            torch.testing.assert_close(outputs[key], value, rtol=0, atol=0)
        assert all(value.isfinite().all() and len(value) == 4 for value in outputs.values())
        described = function.describe(inputs, outputs)
        assert all(tensor["meaning"] != "a parameter of the distribution" for tensor in described["outputs"])
        assert ("labels" in inputs) == (name == "cvae")


def test_the_mean_of_an_exported_mixture_is_the_mean():
    """An exported graph adds the 255 levels in another order."""
    g = torch.Generator().manual_seed(0)
    p = DiscretizedLogisticDistribution(torch.rand(5, 40, generator=g), -7 * torch.rand(5, 40, generator=g))
    torch.testing.assert_close(p.mean_for_export(1 / 255), p.mean, rtol=0, atol=1e-6)


# From the command line.


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):  # noqa: F811
    """Return the folder of an exported run."""
    folder = tmp_path_factory.mktemp("exported")
    done = command("task=export", f"run={run}", f"hydra.run.dir={folder}", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "encoder.onnx" in done.stdout
    assert done.stderr == ""
    return folder


BLOCKED = """
import sys
for name in ("torch", "vaezoo", "lightning", "onnx"):
    sys.modules[name] = None  # an import of it raises ImportError
"""


def test_codes_without_torch_and_vaezoo(cli, run, exported, tmp_path):  # noqa: F811
    """The lines of docs/export.md, in a process that cannot import torch or vaezoo, give the codes of task=encode."""
    code, _out, err, folder = cli("task=encode", f"run={run}", "format=npz")
    assert code == 0, err
    import vaezoo

    data = build(vaezoo.load(run).config["data"], "data", seed=0)
    data.setup()
    np.save(exported / "x.npy", data.test.x.float().numpy())
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "InferenceSession" in block]
    script = f"{BLOCKED}{lines}\nnp.save('codes.npy', outputs['code'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    codes = np.load(folder / "codes.npz")["z"]
    assert np.load(exported / "codes.npy") == pytest.approx(codes, abs=1e-5)
    assert codes.std() > 0.01


def test_a_pt2_file_needs_no_vaezoo(exported):
    script = """
import sys
sys.modules["vaezoo"] = None
import numpy as np, torch
x = np.zeros((3, 1, 8, 8), np.float32)
"""
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "export.load" in block]
    script += f"{lines}\nassert outputs['code'].shape == (3, 20); assert 'images' in metadata['metadata.json']"
    done = subprocess.run([sys.executable, "-c", script], cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metadata(exported):
    """Each file says what its inputs and outputs are, and none has a path of this machine in it."""
    model = onnx.load(exported / "encoder.onnx")
    onnx.checker.check_model(model)
    found = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert [(tensor["name"], tensor["shape"]) for tensor in found["inputs"]] == [("x", ["batch", 1, 8, 8])]
    assert [tensor["name"] for tensor in found["outputs"]] == ["code", "mean", "std"]
    assert found["data"]["noun"] == "image"
    assert found["model"]["prior"] == "StandardNormal"
    (value,) = model.graph.input
    assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    described = json.loads((exported / "model.json").read_text())
    assert described["functions"]["encoder"]["inputs"] == found["inputs"]
    for name in ("encoder.onnx", "decoder.onnx", "encoder.pt2", "decoder.pt2", "model.json", "export.json"):
        content = (exported / name).read_bytes()
        assert str(REPO).encode() not in content, name
        assert b"site-packages" not in content, name


def test_a_file_has_only_its_own_weights(exported):
    """The decoder's weights are not in the encoder's files."""
    numbers = {"encoder": 64 * 8 + 8 + 8 * 40 + 40, "decoder": 20 * 8 + 8 + 8 * 64 + 64}
    for name, num in numbers.items():
        model = onnx.load(exported / f"{name}.onnx")
        assert num <= sum(np.prod(tensor.dims) for tensor in model.graph.initializer) <= num + 200
        state = torch.export.load(exported / f"{name}.pt2").state_dict
        other = "decoder" if name == "encoder" else "encoder"
        assert any(f"{name}.net" in key for key in state)
        assert not any(f"model.{other}." in key for key in state)


def test_weights_as_safetensors(run, exported):  # noqa: F811
    """The model is built from model.json, and its weights are those of the run."""
    import vaezoo

    described = json.loads((exported / "model.json").read_text())
    model = build_model(described["config"], exported).eval()
    model.load_state_dict(safetensors.torch.load_file(exported / "model.safetensors"))
    x = bits(5, 1, 8, 8)
    assert torch.equal(model.encode(x), vaezoo.load(run).encode(x))
    modes = {(exported / name).stat().st_mode for name in ("model.safetensors", "model.json")}
    assert len(modes) == 1  # others can read both, or none


def test_a_difference_is_an_error(cli, run, monkeypatch):  # noqa: F811
    def export_badly(model, description, folder, x, labels, binarize):
        assert (len(x), binarize) == (7, "dynamic")
        (folder / "encoder.onnx").touch()
        return [FileReport(folder / "encoder.onnx", {"code": 1e-6, "std": 2e-5})]

    monkeypatch.setattr("vaezoo.tasks.export.export_model", export_badly)
    code, out, err, folder = cli("task=export", f"run={run}", "num=7")
    assert code == 1
    assert "encoder.onnx cannot be used: it differs from the model by 2.0e-05, more than 1e-05" in err
    assert "encoder.onnx  2.0e-05 (std)" in out
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


def test_mistakes(cli, run, monkeypatch):  # noqa: F811
    _code, _out, err, _folder = cli("task=export", f"run={run}", "num=3")
    assert "num=3 should be an integer >= 7" in err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _out, err, _folder = cli("task=export", f"run={run}")
    assert code == 1
    assert "task=export needs onnxruntime, which cannot be imported: pip install 'vaezoo[export]'" in err


def test_measured_differences():
    a = torch.tensor([0.5, -100.0, torch.nan, torch.inf])
    assert measure_difference(a, a) == 0
    assert measure_difference(a + 0.25, a) == 0.25  # absolute below 1
    assert measure_difference(torch.tensor([-101.0]), torch.tensor([-100.0])) == pytest.approx(0.01)
    assert measure_difference(a.nan_to_num(), a) == torch.inf
    with pytest.raises(ValueError, match="the file gives"):
        measure_difference(a[:2], a)
    with pytest.raises(ValueError, match="the file gives"):
        measure_difference(a.double(), a)


def test_a_function_that_cannot_be_traced_says_why(tmp_path):
    class Branching(Encoder):
        def forward(self, x, labels=None):
            return {"code": x.flatten(1) * (1 if x.sum() > 0 else 2)}

    function = Branching(small("mlp_vae"), preprocessing.Preprocessing(IMAGES)).eval()
    inputs = {"x": bits(2, 1, 9, 7)}
    described = function.describe(inputs, function(**inputs))
    for path, reason in write_function(function, inputs, tmp_path, described).items():
        assert "data-dependent" in reason
        assert "\n" not in reason
        assert not comparison.compare_file(path, function, [], reason).works


# The user's numbers.


def table_model(data):
    """An untrained model of a table."""
    torch.manual_seed(0)
    data.setup()
    node = config("model", "model=mlp_vae", f"data.shape={list(data.shape)}", "model.latent_dim=3")
    node["likelihood"] = data.likelihood_config()
    wrap_parts(node, data, ())
    model = build(node, "model").eval()
    model.decoder.init_from_data(data.mean, data.examples(100).x)
    return model


def test_tables_take_and_give_the_users_numbers(tmp_path):
    """Columns of all kinds, with holes: numbers, days and codes go in, and the mean of each column comes out."""
    rng = np.random.default_rng(0)
    num = 60
    dates = np.datetime64("2024-01-01") + rng.integers(0, 500, num)
    frame = pandas.DataFrame(
        {
            "color": rng.choice(["red", "blue", "green"], num),
            "income": 1e6 + 1e4 * rng.normal(size=num),
            "visits": rng.integers(0, 40, num),
            "day": dates.astype(str),
            "height": 1.7 + 0.1 * rng.normal(size=num),
        }
    )
    frame.loc[::5, "income"] = None
    frame.loc[1::7, "color"] = None
    frame.to_csv(tmp_path / "people.csv", index=False)
    data = TableData(path=str(tmp_path / "people.csv"), batch_size=8)
    model = table_model(data)
    write(model, tmp_path, data.describe(), data.test.x[[0] * 7], torch.full((7,), -1))
    described = json.loads((tmp_path / "model.json").read_text())
    columns = {column["name"]: column for column in described["data"]["columns"]}
    assert list(columns) == ["income", "day", "height", "visits", "color"]
    assert columns["color"]["categories"] == ["blue", "green", "red"]
    raw = frame.assign(
        color=[{"blue": 0, "green": 1, "red": 2}.get(color, np.nan) for color in frame["color"]],
        day=(dates - np.datetime64("1970-01-01")).astype(float),
    )
    u = torch.from_numpy(raw[list(columns)].to_numpy(float))
    outputs = open_file(tmp_path / "encoder.onnx")(x=u)
    x = prepare_rows(frame.assign(day=pandas.to_datetime(frame["day"])), data.describe())
    with torch.no_grad():
        z = model.encode(x)
        px = model.decode(z)
    assert u.isnan().any()
    torch.testing.assert_close(outputs["code"], z, rtol=0, atol=1e-5)
    outputs = open_file(tmp_path / "decoder.onnx")(z=z)
    means = data.transform.inverse(px.mean)
    assert outputs["mean"].dtype == torch.float64
    assert outputs["mean"][:, 0].numpy() == pytest.approx(means["income"].to_numpy(), rel=1e-6)
    assert outputs["mean"][:, 2].numpy() == pytest.approx(means["height"].to_numpy(), rel=1e-6)
    assert [["blue", "green", "red"][int(code)] for code in outputs["mean"][:, 4]] == list(means["color"])
    scale = next(column.scale for column in data.transform.columns if column.name == "income")
    normal = px.parts["real"].base_dist.base.base
    assert outputs["real_std"][:, 0].numpy() == pytest.approx(scale * normal.scale[:, 0].detach().numpy(), rel=1e-6)
    assert outputs["categorical_probs"].sum(-1).numpy() == pytest.approx(1, abs=1e-6)


def test_texts(tmp_path):
    """The decoder's file gives the probability of each token; used token by token, it writes the model's own text."""
    lines = [f"the {'red' if i % 3 else 'blue'} dog sees {i % 20} cats" for i in range(100)]
    (tmp_path / "lines.txt").write_text("\n".join(dict.fromkeys(lines)))
    data = TextData(path=str(tmp_path / "lines.txt"), batch_size=8)
    model = table_model(data)
    x = data.train.x[:10]
    write(model, tmp_path, data.describe(), x, torch.full((10,), -1))
    metadata = {prop.key: json.loads(prop.value) for prop in onnx.load(tmp_path / "decoder.onnx").metadata_props}
    assert metadata["data"]["vocabulary"] == data.vocabulary.names
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    decoder = open_file(tmp_path / "decoder.onnx")
    with torch.no_grad():
        px = model.decode(z)
        expected, text = px.log_prob(x[:5]), px.mean
    log_probs = decoder(z=z, tokens=x[:5])["log_probs"]
    scored = log_probs.gather(-1, x[:5].clamp(min=0)[..., None])[..., 0].where(x[:5] >= 0, 0).sum(-1)
    torch.testing.assert_close(scored, expected, rtol=1e-5, atol=1e-5)
    tokens = torch.full_like(text, -1)
    for t in range(text.shape[1]):
        chosen = decoder(z=z, tokens=tokens)["log_probs"][:, t].argmax(-1)
        ended = (tokens == 1).any(1)
        tokens[:, t] = chosen.where(~ended, -1)
    assert torch.equal(tokens, text)


def test_arrays_with_a_range():
    """The range of the values is in the file, and so is the rounding to 256 levels."""
    u = np.random.default_rng(0).integers(0, 65536, (20, 1, 4, 4)).astype(np.uint16)
    for kind in ("unit", "byte"):
        x = convert_array(u, Conversion(kind=kind, reason="", value_range=(0.0, 65535.0)))
        x = x.float() / 255 if kind == "byte" else x
        prepare = preprocessing.Preprocessing({"kind": kind, "value_range": [0.0, 65535.0]})
        torch.testing.assert_close(prepare(torch.from_numpy(u.astype(np.float32))), x, rtol=0, atol=1e-7)
        assert prepare.mean(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 32767.5, 65535]
    pixels = preprocessing.Preprocessing({"kind": "byte", "value_range": [0, 255]})
    assert torch.equal(pixels(torch.tensor([0.0, 0.2, 1.0])), torch.tensor([0.0, 0.2, 1.0]))


def test_a_threshold_is_in_the_file():
    grey = torch.arange(256) / 255
    prepare = preprocessing.Preprocessing(IMAGES, binarize="threshold")
    assert torch.equal(prepare(grey), (torch.arange(256) > 127).float())
    assert torch.equal(prepare(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]))
    assert torch.equal(preprocessing.Preprocessing(IMAGES, binarize="dynamic")(grey), grey)
