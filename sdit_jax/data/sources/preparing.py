"""A tensorflow-datasets folder from original archives, as the official builders make it, but in the original order."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdit_jax.data.datasets import Images
from sdit_jax.data.sources import originals
from sdit_jax.data.sources.archives import originals_of
from sdit_jax.errors import InputError
from sdit_jax.files import make_folder

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Official version, reader, shape, class names.
DATA_SETS = {
    "mnist": ("3.0.1", originals.idx_pair, (28, 28, 1), tuple("0123456789")),
    "fashion_mnist": ("3.0.1", originals.idx_pair, (28, 28, 1), FASHION),
    "cifar10": ("3.0.2", originals.cifar10, (32, 32, 3), CIFAR),
}


def prepared_folder(name: str, out: Path) -> Path:
    """The folder of a data set inside a tensorflow-datasets folder."""
    return out / name / DATA_SETS[name][0]


def is_prepared(name: str, out: Path) -> bool:
    """Whether a data set is there and complete."""
    return (prepared_folder(name, out) / "dataset_info.json").is_file()


def prepare(name: str, archives: Path | None, out: Path, field: str = "archives") -> Path:
    """Makes the folder of a data set in DATA_SETS atomically, unless it exists, and returns it.

    It has the official name, version and features, and array_record files of PNG images in the original order. Raises
    InputError for missing or damaged archives (see `archives.originals_of`) and a folder that cannot be written.
    """
    folder = prepared_folder(name, out)
    if is_prepared(name, out):
        return folder
    if folder.exists():
        raise InputError(f"{folder}: in the way, it holds no dataset_info.json")
    _, read, _, _ = DATA_SETS[name]
    with originals_of(name, archives, field) as place:
        splits = {split: read(split, place) for split in originals.SPLITS}
    make_folder(folder.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial_", dir=out) as partial:
            build(name, splits, partial).replace(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    return folder


def build(name: str, splits: dict[str, Images], out: str | Path) -> Path:
    """Writes a data set below `out` and returns its folder."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import skip_registration

    data_set, (version, _, shape, classes) = name, DATA_SETS[name]
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=classes)}
    if name == "cifar10":
        features["id"] = tfds.features.Text()

    with skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            name = data_set
            VERSION = tfds.core.Version(version)

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=f"{data_set}, in the order of its original files.",
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager):
                del dl_manager
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split):
                images, labels = splits[split].images, splits[split].labels
                for i in tqdm(range(len(images)), f"{data_set} {split}", unit=" images", mininterval=0.5):
                    example = {"image": _png(images[i]), "label": int(labels[i])}
                    yield i, example | ({"id": f"{split}_{i:05d}"} if "id" in features else {})

    tfds.disable_progress_bar()
    builder = Builder(data_dir=out, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # It prints a folder that is only temporary.
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)


def _png(image: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return io.BytesIO(file.getvalue())
