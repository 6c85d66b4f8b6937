"""The authors' release, number by number: made by running their PyTorch code on a tiny network that fires."""

import io
import json
import re
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.process import add_noise
from sdit_jax.diffusion.schedule import linear
from sdit_jax.errors import InputError
from sdit_jax.layers.embed import patchify
from sdit_jax.models import build, release

REFERENCE = Path(__file__).parents[1] / "reference"
NPZ, PT = REFERENCE / "sdit_release_tiny.npz", REFERENCE / "sdit_release_tiny.pt"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def theirs():
    """Every array of the reference, images as NHWC."""
    with np.load(NPZ) as file:
        arrays = {name: file[name] for name in file.files}
    images = {name: arrays[name].transpose(0, 2, 3, 1) for name in ("x0", "noise", "xt", "out")}
    return arrays | images | {"meta": json.loads(bytes(arrays["meta"]))}


@pytest.fixture(scope="module", params=["sequential", "associative"])
def ours(request, theirs):
    """Our output, loss terms, gradients and firing rates, for each implementation of WKV."""
    config, params = release.load(NPZ)
    config.wkv = request.param
    model, schedule = build(config), linear(1000)
    x_0, noise, t, y = (jnp.asarray(theirs[name]) for name in ("x0", "noise", "t", "y"))

    def mean_loss(params):
        x_t = add_noise(schedule, x_0, t, noise)
        output, sown = model.apply({"params": params}, x_t, t, y, mutable=["spikes"])
        terms = Objective(schedule).losses(output, x_0, x_t, t, noise)
        return terms["loss"].mean(), {"xt": x_t, "out": output, "rates": sown["spikes"], **terms}

    (_, results), gradients = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(params)
    return results | {"gradients": gradients}


def error(found, expected):
    """Relative, of an array as a whole."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["xt", "out", "mse", "vb", "loss"])
def test_outputs_and_loss_terms_are_those_of_the_release(ours, theirs, name):
    assert error(ours[name], theirs[name]) < TOLERANCE
    for found, expected in zip(ours[name], theirs[name], strict=True):  # Every example for itself.
        assert error(found, expected) < TOLERANCE


@pytest.mark.slow
def test_parameters_are_applied_as_they_are_loaded(theirs):
    """Numpy arrays, outside of a compiled program."""
    config, params = release.load(NPZ)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
    output = build(config).apply({"params": params}, theirs["xt"], theirs["t"], theirs["y"])
    assert error(output, theirs["out"]) < TOLERANCE


def test_every_gradient_is_that_of_the_release(ours, theirs):
    expected = release.to_params({name[5:]: array for name, array in theirs.items() if name.startswith("grad/")})
    paths = jax.tree_util.tree_leaves_with_path(jax.tree.map(error, ours["gradients"], expected))
    assert len(paths) == 19 + 2 * 19 + 2 + 12  # Middle block, stacked blocks, skips, outside.
    assert {jax.tree_util.keystr(path): e for path, e in paths if not e < TOLERANCE} == {}


def test_stacked_gradients_are_right_block_by_block(ours, theirs):
    expected = release.to_params({name[5:]: array for name, array in theirs.items() if name.startswith("grad/")})
    for group in ("in_blocks", "out_blocks"):
        for i in range(2):
            errors = jax.tree.map(lambda a, b: error(a[i], b[i]), ours["gradients"][group], expected[group])
            assert max(jax.tree.leaves(errors)) < TOLERANCE, (group, i, errors)


def test_firing_rates_are_those_of_the_release(ours, theirs):
    neurons, found = {"lif1": "time_neurons", "lif2": "channel_neurons"}, {}
    for name in theirs["meta"]["rates"]:
        *blocks, lif = name.split(".")
        (rate,) = ours["rates"][blocks[0]][neurons[lif]]["firing_rate"]
        found[name] = float(rate[int(blocks[1])] if len(blocks) == 2 else rate)
    assert len(found) == 10
    assert found == pytest.approx(theirs["meta"]["rates"], abs=1e-6)


def test_sizes_are_read_off_the_arrays(theirs):
    config, params = release.load(NPZ)
    found = [config[name] for name in ("image_size", "channels", "patch_size", "width", "depth", "num_classes")]
    assert found == [theirs["meta"][name] for name in ("size", "channels", "patch", "hidden", "depth", "num_classes")]
    assert config.learned_variance and config.spiking_steps == 4
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == theirs["meta"]["n_params"] == 91_959


def test_patches_times_our_kernel_are_the_strided_convolution_of_the_release(theirs):
    _, params = release.load(NPZ)
    kernel, bias = theirs["param/x_embedder.proj.weight"], theirs["param/x_embedder.proj.bias"]
    x = theirs["x0"]
    expected = np.zeros((4, 16, 32))
    for i in range(16):
        for row in range(2):
            for column in range(2):
                pixel = x[:, 2 * (i // 4) + row, 2 * (i % 4) + column]
                expected[:, i] += pixel @ kernel[:, :, row, column].T
    found = patchify(jnp.asarray(x), 2) @ params["patch_embed"]["kernel"] + params["patch_embed"]["bias"]
    np.testing.assert_allclose(found, expected + bias, atol=1e-5)


def test_a_checkpoint_of_pytorch_holds_the_same_weights():
    pytest.importorskip("torch")
    config, params = release.load(PT)
    expected_config, expected = release.load(NPZ)
    assert config.to_dict() == expected_config.to_dict()
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def stored(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def parameters():
    with np.load(NPZ) as file:
        return {name: file[name] for name in file.files if name.startswith("param/")}


def without(name):
    return lambda: stored({key: array for key, array in parameters().items() if key != name})


def changed(name, change):
    return lambda: stored(parameters() | {name: change(parameters()[name])})


def flipped():
    """A few bytes changed inside a parameter."""
    data = bytearray(NPZ.read_bytes())
    place = data.index(b"param/mid_block.att.key.weight.npy") + 1000
    data[place : place + 100] = bytes(100)
    return bytes(data)


DAMAGES = {
    "empty": lambda: b"",
    "text": lambda: b"<html>404</html>",
    "cut": lambda: NPZ.read_bytes()[:300_000],
    "flipped": flipped,
    "no arrays": lambda: stored({}),
    "another model": lambda: stored({"param/conv1.weight": np.ones(3)}),
    "pickled": lambda: stored(parameters() | {"param/pos_embed": np.array([{}], object)}),
    "no position": without("param/pos_embed"),
    "no leaf": without("param/out_blocks.1.ffn.value.weight"),
    "axes": changed("param/pos_embed", lambda a: a[0]),
    "tokens": changed("param/pos_embed", lambda a: a[:, :-1]),
    "width": changed("param/mid_block.att.key.weight", lambda a: a[:, :-1]),
    "stack": changed("param/in_blocks.1.att.time_decay", lambda a: a[:-1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path, damage):
    file = tmp_path / "weights.npz"
    file.write_bytes(DAMAGES[damage]())
    with pytest.raises(InputError, match=f"^{re.escape(str(file))}: ") as error:
        release.load(file)
    assert "\n" not in str(error.value)


def test_a_missing_array_is_named_too(tmp_path):
    file = tmp_path / "weights.npz"
    file.write_bytes(without("param/mid_block.att.key.weight")())
    with pytest.raises(InputError, match=r"mid_block\.att\.key\.weight is missing"):
        release.load(file)


@pytest.mark.parametrize("name", ["missing.npz", "missing.pt", "weights.bin", "folder.npz"])
def test_a_missing_file_or_another_kind_is_named(tmp_path, name):
    (tmp_path / "weights.bin").write_bytes(NPZ.read_bytes())
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name))}: "):
        release.load(tmp_path / name)


@pytest.mark.parametrize("damage", ["cut", "text", "no model"])
def test_a_damaged_pytorch_file_is_named(tmp_path, damage):
    torch = pytest.importorskip("torch")
    file = tmp_path / "weights.pt"
    if damage == "no model":
        torch.save({"ema": {}}, file)
    else:
        file.write_bytes({"cut": PT.read_bytes()[:100_000], "text": b"<html>404</html>"}[damage])
    with pytest.raises(InputError, match=f"^{re.escape(str(file))}: ") as error:
        release.load(file)
    assert "\n" not in str(error.value)


def test_the_pytorch_reference_holds_nothing_but_tensors():
    """Its pickle names tensors alone, so that weights_only=True suffices."""
    with zipfile.ZipFile(PT) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        names = set(re.findall(rb"c([\w.]+)\n([\w.]+)\n", archive.read(name)))
    assert names and {module.split(b".")[0] for module, _ in names} <= {b"torch", b"collections"}
