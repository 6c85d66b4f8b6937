"""environment.sh refuses an old Python with one line, and installs packages only once."""

OLD_PYTHON = 'if [ "$1" = --version ]; then echo Python 3.10.13; else exit 1; fi'
NEW_PYTHON = """case "$*" in
  *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  *pip*) echo "$*" >> installed;;
esac"""


def test_an_old_python_is_one_line(checkout):
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        checkout.fake(name, OLD_PYTHON)
    done = checkout.run("-c", ". launch/environment.sh")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: found Python 3.10.13; Python 3.11 to 3.14 is needed (set PYTHON=/path/to/python)"
    ]
    assert not (checkout.path / ".venv").exists()


def test_the_environment_is_installed_once_and_again_when_it_changed(checkout):
    checkout.fake("python3.12", NEW_PYTHON)

    def installs(extras=""):
        done = checkout.run("-c", ". launch/environment.sh", EXTRAS=extras)
        assert done.returncode == 0, done.stderr
        return len((checkout.path / "installed").read_text().splitlines())

    assert installs() == 1
    assert installs() == 1
    assert installs("test") == 2
    assert installs() == 2
    with (checkout.path / "constraints.txt").open("a") as file:
        file.write("# newer\n")
    assert installs("test") == 3
    assert "--constraint constraints.txt" in (checkout.path / "installed").read_text()
