"""The network of FID against pytorch-fid's own module, with the same random weights; its weights from files and the net."""

import hashlib
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sdit_jax.errors import InputError
from sdit_jax.metrics.features import inception_weights
from sdit_jax.metrics.features.inception import Inception, prepare

TOLERANCE = 1e-4
THEIRS = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def error(found, expected):
    """Relative, of an array as a whole."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def draw(name, shape, generator):
    """Weights under which activations stay of order 1 through all layers, and which leave no parameter without effect."""
    if name.endswith(("conv.weight", "fc.weight")):
        return generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return generator.uniform(0.5, 1.5, shape) if name.endswith(("bn.weight", "var")) else generator.normal(0, 0.2, shape)


def pictures(side):
    """uint8, two images that have little in common: waves in color, and dark noise."""
    i, j = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(9 * i + 5 * j), np.cos(14 * j), i - j], -1) * 127 + 128
    return np.stack([waves, np.random.default_rng(7).integers(0, 90, (side, side, 3))]).astype(np.uint8)


@pytest.fixture(scope="module")
def shapes():
    """Name and shape of every array, in pytorch-fid's layout."""
    variables = jax.eval_shape(lambda: Inception().init(jax.random.key(0), np.zeros((1, 299, 299, 3), np.float32)))
    found = {}
    for (_, *parents, leaf), array in flatten_dict(variables).items():
        h_w, i_o = array.shape[:-2], array.shape[-2:]
        found[".".join([*parents, THEIRS.get(leaf, leaf)])] = (*i_o[::-1], *h_w) if leaf == "kernel" else array.shape
    return found


@pytest.fixture(scope="module")
def state(shapes):
    generator = np.random.default_rng(0)
    return {name: draw(name, shapes[name], generator).astype(np.float32) for name in sorted(shapes)}


@pytest.fixture(scope="module")
def ours(state):
    """(features, logits) of images, compiled."""
    apply, variables = jax.jit(Inception().apply), inception_weights.convert(state)
    return lambda images: apply(variables, images)


@pytest.fixture(scope="module")
def pytorch_fid():
    """pytorch_fid.inception; beside a torchvision without its compiled operators too, which Inception does not use."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("pytorch_fid")
    library = None  # Its operators go when it does.
    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    from pytorch_fid import inception

    return SimpleNamespace(inception=inception, Inception3=torchvision.models.Inception3, library=library)


@pytest.fixture(scope="module")
def theirs(pytorch_fid, state):
    """pytorch-fid's network with our weights: theirs.network, theirs(images) -> (features, logits)."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(pytorch_fid.Inception3, "load_state_dict", lambda *_: None)
        network = pytorch_fid.inception.fid_inception_v3()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid.inception, "fid_inception_v3", lambda: network)
        pooled = pytorch_fid.inception.InceptionV3().eval()

    @torch.inference_mode()
    def call(images):
        (features,) = pooled(torch.from_numpy(images.transpose(0, 3, 1, 2)).div(255))
        features = features[:, :, 0, 0]
        return features.numpy(), (features @ network.fc.weight.T).numpy()

    return SimpleNamespace(network=network, call=call)


@pytest.mark.parametrize("side", [299, 32, 28])
def test_features_and_logits_are_those_of_pytorch_fid(ours, theirs, side):
    images = pictures(side)
    found, expected = ours(images), theirs.call(images)
    for one, other, width in zip(found, expected, (2048, 1008), strict=True):
        assert one.shape == (2, width)
        assert error(one, other) < TOLERANCE
        assert error(one[0] - one[1], other[0] - other[1]) < TOLERANCE  # What tells images apart is right too.


def test_features_and_logits_are_recorded_ones_of_pytorch_fid(ours):
    features, logits = ours(pictures(32))
    expected = [[0.60059327, 5.748399, 12.566799, 0.24849789], [1.0841336, 8.588903, 16.820223, 0.09992949]]
    np.testing.assert_allclose(features[:, ::512], expected, rtol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [234.19727, 303.26514], rtol=TOLERANCE)
    expected = [[11.157493, -0.8219299, 2.3942554], [14.286034, -2.2707653, 3.832456]]
    np.testing.assert_allclose(logits[:, ::336], expected, rtol=TOLERANCE)


def test_names_and_shapes_are_those_of_pytorch_fid(shapes, theirs):
    unused = {"fc.bias": (1008,)} | {name: () for name in theirs.network.state_dict() if name.endswith("num_batches_tracked")}
    assert {name: tuple(array.shape) for name, array in theirs.network.state_dict().items()} == shapes | unused


@pytest.mark.parametrize("height, width", [(28, 28), (32, 32), (40, 7), (320, 299), (1, 1)])
def test_images_are_resized_as_by_pytorch(height, width):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).random((2, height, width, 3), np.float32)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(images.transpose(0, 3, 1, 2)), size=(299, 299), mode="bilinear", align_corners=False
    )
    expected = 2 * resized.numpy().transpose(0, 2, 3, 1) - 1
    np.testing.assert_allclose(jax.jit(prepare)(images), expected, atol=1e-5)


def test_images_are_resized_by_the_definition():
    images = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 3), np.uint8)
    places = np.clip((np.arange(299) + 0.5) * 28 / 299 - 0.5, 0, 27)  # Between the centres of pixels.
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(28)))
    expected = 2 * np.einsum("yh,xw,bhwc->byxc", weights, weights, images / 255) - 1
    np.testing.assert_allclose(prepare(images), expected, atol=1e-5)
    np.testing.assert_allclose(prepare((images / 255).astype(np.float32)), expected, atol=1e-5)


@pytest.fixture(scope="module")
def constants(shapes):
    """A state dict in which every array is filled with a number of its own."""
    return {name: np.broadcast_to(np.float32(i), shapes[name]) for i, name in enumerate(shapes)}


def write(path, state, **options):
    if path.suffix == ".npz":
        np.savez_compressed(path, **state)
    else:
        torch = pytest.importorskip("torch")
        filled = {name: torch.tensor(array.flat[0]).expand(array.shape) for name, array in state.items()}
        counters = {"Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(0)}
        torch.save(filled | counters, path, **options)


@pytest.mark.parametrize("file", ["weights.npz", "weights.pth", "weights.pt"])
def test_weights_are_read_from_a_file(tmp_path, constants, file):
    path = tmp_path / file  # As .pt, in the format that PyTorch wrote before 1.6.
    write(path, constants, **({"_use_new_zipfile_serialization": False} if file.endswith(".pt") else {}))
    variables, digest = inception_weights.load(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    jax.tree.map(np.testing.assert_array_equal, variables, inception_weights.convert(constants))
    found = variables["batch_stats"]["Mixed_6c"]["branch7x7dbl_4"]["bn"]["var"]
    np.testing.assert_array_equal(found, constants["Mixed_6c.branch7x7dbl_4.bn.running_var"])


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("fc.weight", None, "fc.weight is missing"),
        ("Mixed_7c.branch3x3_2b.bn.running_mean", None, "Mixed_7c.branch3x3_2b.bn.running_mean is missing"),
        ("fc.weight", np.zeros((1000, 2048), np.float32), r"fc.weight: found float32 .*\(1000, 2048\).*\(1008, 2048\)"),
        ("Conv2d_1a_3x3.conv.weight", np.zeros((3, 3, 3, 32), np.float32), r"\(3, 3, 3, 32\), expected .*\(32, 3, 3, 3\)"),
        ("Mixed_5b.branch1x1.bn.bias", np.zeros(64, int), "Mixed_5b.branch1x1.bn.bias: found int64"),
        ("Mixed_5b.branch1x1.bn.bias", np.full(64, np.nan), "Mixed_5b.branch1x1.bn.bias is not finite"),
    ],
)
def test_an_array_that_does_not_fit_is_named(constants, name, change, message):
    state = {key: array for key, array in constants.items() if key != name} | ({} if change is None else {name: change})
    with pytest.raises(InputError, match=message):
        inception_weights.convert(state)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("missing.pth", None, "no such file"),
        ("weights.h5", b"", r"found suffix '.h5', allowed are .npz, .pth, .pt"),
        ("empty.npz", b"", r"damaged or not weights \(\w+\)$"),
        ("text.npz", b"<html>404</html>", r"damaged or not weights \(\w+\)$"),
        ("empty.pth", b"", r"damaged or not weights \(\w+\)$"),
        ("text.pth", b"<html>404</html>", r"damaged or not weights \(\w+\)$"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(tmp_path, file, content, message):
    path = tmp_path / file
    if path.suffix == ".pth" and content is not None:
        pytest.importorskip("torch")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {message}") as error:
        inception_weights.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["weights.npz", "weights.pth"])
def test_the_weights_of_another_network_are_named(tmp_path, file):
    path = tmp_path / file
    write(path, {"conv1.weight": np.ones((64, 3, 7, 7), np.float32)})
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: not the Inception network of FID, .* is missing$"):
        inception_weights.load(path)


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"needs the torch extra: pip install 'sdit_jax\[torch\]'"):
        inception_weights.load(path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A release page of our own; server.stop() takes it off the net, server.place is where the file belongs."""
    content = b"weights"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop():
        http.shutdown()
        thread.join()
        http.server_close()

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SDIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inception_weights, "URL", f"http://127.0.0.1:{http.server_port}/release/weights.pth")
    monkeypatch.setattr(inception_weights, "SHA256", hashlib.sha256(content).hexdigest())
    yield SimpleNamespace(content=content, place=tmp_path / "cache" / "weights" / "weights.pth", stop=stop)
    if thread.is_alive():
        stop()


def test_weights_are_fetched_once(server):
    assert inception_weights.fetch() == server.place
    assert server.place.read_bytes() == server.content
    server.stop()
    assert inception_weights.fetch() == server.place


def test_a_cut_file_in_the_cache_is_fetched_again(server):
    server.place.parent.mkdir(parents=True)
    server.place.write_bytes(server.content[:3])
    assert inception_weights.fetch().read_bytes() == server.content


def test_a_download_with_another_sha256_is_an_error(server, monkeypatch):
    monkeypatch.setattr(inception_weights, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="cannot be fetched .*sha256 is not 0000.* set it to a file$"):
        inception_weights.fetch()
    assert not list(server.place.parent.iterdir())


def test_offline_the_field_is_named(server):
    server.stop()
    with pytest.raises(InputError, match=r"^--inception: .*weights\.pth cannot be fetched .* set it to a file$") as error:
        inception_weights.fetch("--inception")
    assert "\n" not in str(error.value)
    assert not list(server.place.parent.iterdir())
