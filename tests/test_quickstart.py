"""The quickstart draws digits that a classifier recognises."""

import os
import subprocess

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_quickstart_draws_digits_that_can_be_read_and_a_second_run_skips_what_is_done(small, tmp_path):
    run = tmp_path / "digits"
    command, environment = ["./launch/quickstart.sh"], os.environ | {"RUN": str(run), "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=small.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    picture = run / "quickstart" / "grid.png"
    assert str(picture) in done.stdout
    assert Image.open(picture).size[0] > 600
    both = run / "pretrained" / "grid.png"
    assert str(both) in done.stdout
    assert Image.open(both).size[0] > 2 * Image.open(picture).size[0]

    real = load_digits()
    reader = SVC(C=10).fit(real.data / 16, real.target)
    samples = np.load(run / "quickstart" / "samples.npz")
    read = reader.predict(samples["arr_0"].reshape(-1, 64) / 255)
    assert (read == samples["labels"]).mean() > 0.85  # Chance is 10 %.

    again = subprocess.run(command, cwd=small.root, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
