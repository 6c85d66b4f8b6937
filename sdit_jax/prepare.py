"""Makes a tensorflow-datasets folder from original archives, without TensorFlow.

    python -m sdit_jax.prepare mnist                                            downloads what it needs
    python -m sdit_jax.prepare cifar10 --archives=DOWNLOADS --out=DATA          from files that are there

Data sets: mnist, fashion_mnist (their four .gz files), cifar10 (cifar-10-binary.tar.gz, or what is in it). Archives are checked
to the bit; versions and features are the official ones; images keep their original order.
"""

from pathlib import Path

from absl import flags

from sdit_jax import command_line
from sdit_jax.config import InputError
from sdit_jax.data.sources.prepared import default_root
from sdit_jax.data.sources.preparing import DATA_SETS, is_prepared, prepare

ARCHIVES = flags.DEFINE_string(
    "archives", "", "Folder of the original archives; downloaded into the cache where none is named."
)
OUT = flags.DEFINE_string("out", "", "The tensorflow-datasets folder; by default TFDS_DATA_DIR or ~/tensorflow_datasets.")


def main(name: str) -> None:
    if name not in DATA_SETS:
        raise InputError(f"data set: found {name!r}, allowed are {', '.join(DATA_SETS)}")
    out = Path(OUT.value).expanduser() if OUT.value else default_root()
    already = is_prepared(name, out)
    folder = prepare(name, Path(ARCHIVES.value).expanduser() if ARCHIVES.value else None, out)
    print(f"{folder}{': already prepared' if already else ''}")
    flags = f" --config.data.dir={out}" if OUT.value else ""
    print(f"python -m sdit_jax.train --config=configs/{name}.py --workdir=runs/{name} --config.data.name=tfds:{name}{flags}")


if __name__ == "__main__":
    command_line.run(main, positional="data set")
