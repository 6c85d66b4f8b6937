"""Files from others, mutated at random: read, or refused in a line; never a traceback, nor memory for what a header claims."""

import io
import resource
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdit_jax.data.sources import arrays
from sdit_jax.errors import InputError
from sdit_jax.files import read_state_dict
from sdit_jax.sampling import weights

GiB = 2**30


def samples(path):
    rng = np.random.default_rng(0)
    np.savez(path, rng.integers(0, 256, (20, 8, 8, 1), np.uint8), labels=np.arange(20) % 10)


def release(path):
    np.savez(path, **{f"model.{i}": np.ones((4, 4), np.float32) for i in range(5)})


def torch_file(path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {f"layer.{i}": torch.ones(4, 4) for i in range(5)}}, path)


def tensors(path):
    save_file({f"a{i}": np.ones((4, 4), np.float32) for i in range(5)}, path, {"format": "sdit_jax 1"})


KINDS = {
    "samples.npz": (samples, arrays.read),
    "weights.npz": (release, read_state_dict),
    "weights.pt": (torch_file, lambda path: read_state_dict(path, entry="model")),
    "weights.safetensors": (tensors, weights.read),
}


def mutated(content, rng):
    """Flipped bytes, bytes put in, a piece cut out, a piece of zeros, or the end cut off."""
    content, place = bytearray(content), int(rng.integers(len(content)))
    match rng.integers(5):
        case 0:
            for i in rng.integers(len(content), size=rng.integers(1, 8)):
                content[i] ^= int(rng.integers(1, 256))
        case 1:
            content[place:place] = rng.bytes(int(rng.integers(1, 64)))
        case 2:
            del content[place : place + int(rng.integers(1, 64))]
        case 3:
            content[place : place + 16] = bytes(16)
        case _:
            del content[place:]
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused(tmp_path, kind):
    (make, read), path, rng = KINDS[kind], tmp_path / kind, np.random.default_rng(0)
    make(path)
    sound = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = []
    for _ in range(100):
        path.write_bytes(mutated(sound, rng))
        try:
            read(path)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refused)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GiB / 2**10


@pytest.mark.parametrize("kind", ["samples.npz", "weights.npz", "weights.safetensors"])
def test_a_header_that_claims_terabytes_is_refused(tmp_path, kind):
    path, (_, read) = tmp_path / kind, KINDS[kind]
    if kind.endswith(".npz"):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**13,)})
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("arr_0.npy", header.getvalue() + b"abc")
    else:
        header = b'{"a":{"dtype":"F32","shape":[10000000000000],"data_offsets":[0,40000000000000]}}'
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(InputError, match=f"{kind}: "):
        read(path)


@pytest.mark.parametrize("kind", ["samples.npz", "weights.npz"])
def test_names_that_lead_out_of_an_archive_write_nothing(tmp_path, kind):
    path, array = tmp_path / "inside" / kind, io.BytesIO()
    path.parent.mkdir()
    np.save(array, np.ones((4, 4)))
    with zipfile.ZipFile(path, "w") as file:
        for name in ("../escaped", f"{tmp_path}/escaped", "arr_0"):
            file.writestr(f"{name}.npy", array.getvalue())
    with suppress(InputError):
        KINDS[kind][1](path)
    assert [found.name for found in tmp_path.rglob("*")] == ["inside", kind]
