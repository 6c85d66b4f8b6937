"""The shipped networks, as somebody uses them right after installation: offline, and to the picture that the README shows."""

import json

import numpy as np
import pytest
from PIL import Image

from sdit_jax.metrics import compare
from sdit_jax.metrics.features import classifier_features, extract
from sdit_jax.sampling import weights

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ("mnist", "fashion_mnist")
READ = {"mnist": 0.85, "fashion_mnist": 0.8}  # Of 64 samples; docs/results.md says it of 10,000.


@pytest.fixture(scope="module", params=NAMES)
def drawn(small, request, tmp_path_factory):
    """(name, folder) of what the README's command draws, without a network and without a cache of its own."""
    out = tmp_path_factory.mktemp(request.param)
    offline = {"https_proxy": "http://127.0.0.1:9", "SDIT_JAX_CACHE": str(out / "cache")}
    done = small.run("sample", f"--workdir=pretrained:{request.param}", f"--out={out}", forked=False, **offline)
    assert done.returncode == 0, done.stderr
    return request.param, out


def test_the_readmes_picture_is_drawn_again(small, drawn):
    """Drawn on an Intel Xeon (Emerald Rapids, with AMX), and to the bit there; other processors round products differently.

    On an AMD EPYC, with an earlier form of the denoiser, the mean difference was 0.3 of 255 levels, the largest in a pixel 23.
    """
    name, out = drawn
    with Image.open(out / "grid.png") as found, Image.open(small.root / "docs" / f"{name}.png") as shown:
        difference = np.abs(np.asarray(found, float) - np.asarray(shown, float))
    assert difference.mean() < 1, f"mean difference {difference.mean():.3g} of 255, another seed's is 30"


def test_the_samples_are_read_as_what_was_asked_for(drawn):
    name, out = drawn
    extractor = classifier_features(name)
    with np.load(out / "samples.npz") as samples:
        found = compare.score_alone(extractor, extract(extractor, samples["arr_0"]), samples["labels"])
    assert found["accuracy_classifier"] >= READ[name]


def test_a_shipped_file_is_small_and_its_figures_are_those_of_its_weights(small, drawn):
    name, out = drawn
    assert (weights.PRETRAINED / f"{name}.safetensors").stat().st_size < 8e6
    with np.load(out / "samples.npz") as samples:
        protocol = json.loads(str(samples["protocol"]))
    reported = json.loads((small.root / "docs" / "results" / f"{name}.json").read_text())
    assert reported["protocol"]["weights_sha256"] == protocol["weights_sha256"]
    assert reported["protocol"]["step"] == protocol["step"]
