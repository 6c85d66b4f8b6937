"""configs/imagenet64.py on a miniature of its data set: the official features and splits, a few pictures of noise."""

import io
import json
from typing import ClassVar

import numpy as np
import pytest

from sdit_jax.images import png

tfds = pytest.importorskip("tensorflow_datasets")
IMAGES = {"train": 40, "validation": 8}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    folder, official = tmp_path_factory.mktemp("imagenet"), tfds.builder("imagenet_resized/64x64").info
    rng = np.random.default_rng(0)
    with tfds.core.registered.skip_registration():

        class ImagenetResized(tfds.core.GeneratorBasedBuilder):
            VERSION = official.version
            BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="64x64", version=official.version)]

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=official.features)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(n) for split, n in IMAGES.items()}

            def _generate_examples(self, n):
                for i in range(n):
                    yield (
                        i,
                        {
                            "image": io.BytesIO(png(rng.integers(0, 256, (64, 64, 3), np.uint8))),
                            "label": int(rng.integers(1000)),
                        },
                    )

        ImagenetResized(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_first_steps_run_streamed_with_a_thousand_classes(small, miniature, tmp_path):
    flags = (
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={miniature}",
        "--config.duration=3 steps",
        "--config.log.every=1 steps",
    )
    done = small.run("train", "--config=imagenet64:tiny", *flags, preset=False)
    assert done.returncode == 0, done.stderr
    assert "tfds:imagenet_resized/64x64 train: 40 images of (64, 64, 3), decoded while training" in done.stderr
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and 0 < losses[-1] < 10
    drawn = small.run(
        "sample", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path}", "--n=2", "--steps=1", "--labels=999", "--guidance=2"
    )
    assert drawn.returncode == 0, drawn.stderr
