"""Makes a tensorflow-datasets folder from original archives, without TensorFlow.

    sdit prepare mnist                                            downloads the archives
    sdit prepare cifar10 --archives=DOWNLOADS --out=DATA          uses archives in a folder

Data sets: mnist, fashion_mnist (four .gz files each), cifar10 (cifar-10-binary.tar.gz or its contents). Checksums are verified.
Versions and features are the official ones, and images keep their original order.
"""

from pathlib import Path

from absl import flags

from sdit_jax.data.sources.prepared import default_root
from sdit_jax.data.sources.preparing import DATA_SETS, is_prepared, prepare
from sdit_jax.errors import InputError
from sdit_jax.files import check_local

ARCHIVES = flags.DEFINE_string(
    "archives", "", "Folder of the original archives; by default they are downloaded into the cache."
)
OUT = flags.DEFINE_string("out", "", "The tensorflow-datasets folder; by default TFDS_DATA_DIR or ~/tensorflow_datasets.")
ARGUMENT = "data set"


def main(name: str) -> None:
    if name not in DATA_SETS:
        raise InputError(f"data set: found {name!r}, allowed are {', '.join(DATA_SETS)}")
    check_local(OUT.value, "--out")
    out = Path(OUT.value).expanduser() if OUT.value else default_root()
    already = is_prepared(name, out)
    folder = prepare(name, Path(ARCHIVES.value).expanduser() if ARCHIVES.value else None, out, "--archives")
    print(f"{folder}: already prepared" if already else folder)
    place = f" --config.data.dir={out}" if OUT.value else ""
    print(f"sdit train --config={name} --workdir=runs/{name} --config.data.name=tfds:{name}{place}")
