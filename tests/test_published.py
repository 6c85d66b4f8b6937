"""docs/published.md shows the records of docs/published.json, our scores as stored, and flags that `sdit evaluate` has."""

import ast
import json
import re
from pathlib import Path

import pytest

from sdit_jax.diffusion.samplers import SAMPLERS

ROOT = Path(__file__).parent.parent
RECORDS = json.loads((ROOT / "docs/published.json").read_text())
PUBLISHED, OURS = (ROOT / "docs/published.md").read_text().split("\n## Ours\n")
FIELDS = "model year kind dataset resolution fid is energy T calls params_millions protocol source quoted_by confidence notes"
PROTOCOL = "samples reference_split features sampler steps guidance conditional averaged_weights said_by"
DATA = ("MNIST", "Fashion-MNIST", "CIFAR-10")
KINDS = ("spiking diffusion", "spiking VAE", "spiking GAN", "non-spiking diffusion")
READ, QUOTED, NOTES = "read in the source's text", "from a survey or another paper's table", "from our notes, not re-read"


def rows(text):
    """Cells of the rows of a section's table, without its head."""
    return [line.split(" | ") for line in re.findall(r"^\| (.*) \|$", text, re.MULTILINE)[1:]]


def cells(record):
    """The row of a record."""
    shown = lambda value: "-" if value is None else f"{value:,}"
    how, source, energy = record["protocol"], record["source"], record["energy"]
    sampler = " ".join(str(part) for part in (how["sampler"], how["steps"]) if part)
    protocol = [shown(how["samples"]), how["reference_split"], how["features"], sampler]
    at = f"table {source['table']}" if source["table"] else source["text"]
    where = source["arxiv"] + (f", {at}" if at else "") + (f"; via {record['quoted_by']}" if record["quoted_by"] else "")
    scores = [record["fid"], record["is"], energy and energy["value"], record["T"], record["calls"]]
    sure = {READ: "read", QUOTED: "quoted", NOTES: "notes"}[record["confidence"]]
    return [record["model"], record["kind"], *map(shown, scores), " · ".join(p or "-" for p in protocol), where, sure]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record['model']}, {record['dataset']}, {record['T']}")
def test_a_record_has_its_fields(record):
    how, source, energy = record["protocol"], record["source"], record["energy"]
    assert (" ".join(record), " ".join(how)) == (FIELDS, PROTOCOL) and " ".join(source) == "arxiv doi table text repository"
    assert record["dataset"] in DATA and record["kind"] in KINDS and how["reference_split"] in (None, "train", "test")
    assert re.fullmatch(r"\d{4}\.\d{5}", source["arxiv"]) and 2014 < record["year"] < 2030
    assert record["confidence"] == QUOTED if record["quoted_by"] else record["confidence"] in (READ, NOTES)
    assert energy is None or (" ".join(energy) == "value unit per convention" and energy["unit"] == "mJ")


@pytest.mark.parametrize("data", DATA)
def test_the_table_of_a_data_set_shows_its_records(data):
    (section,) = re.findall(rf"^## {data}\n(.*?)^## ", PUBLISHED, re.MULTILINE | re.DOTALL)
    assert rows(section) == [cells(record) for record in RECORDS if record["dataset"] == data] != []


def test_every_number_of_the_text_is_in_the_records():
    numbers = lambda text: set(re.findall(r"\d+\.\d+", text))
    assert numbers(PUBLISHED) - numbers(json.dumps(RECORDS)) == set()


@pytest.mark.parametrize("row", rows(OURS), ids=lambda row: row[0])
def test_our_scores_are_those_of_the_file(row):
    stored = json.loads((ROOT / "docs" / re.findall(r"\((.*)\)", row[0])[0]).read_text())
    distances = {v["reference"]["split"]: v["value"] for v in stored["values"] if v["name"] == "fd_classifier"}
    protocol, energy = stored["protocol"], stored["energy"]
    assert row[4:7] == [f"{protocol['n']:,}", f"{protocol['guidance']:g}", f"{energy['per_image']['forward_passes']}"]
    assert row[7] == f"{distances['train']:.2f} · {distances['test']:.2f}"
    assert row[9] == f"{energy['per_forward']['pJ'] / 1e6:.1f} · {energy['twin']['pJ'] / 1e6:.1f}"


def test_commands_have_flags_of_evaluate():
    sources = [(ROOT / "sdit_jax" / "commands" / f"{name}.py").read_text() for name in ("evaluate", "drawing")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "attr", "").startswith("DEFINE_")]
    commands = re.findall(r"^sdit evaluate ((?:.*\\\n)*.*)", OURS, re.MULTILINE)
    flags = {flag for command in commands for flag in re.findall(r"--(\w+)", command)}
    assert len(commands) >= 6 and {"n", "inception"} <= flags <= {call.args[0].value for call in calls}
    assert set(re.findall(r"--sampler=(\w+)", OURS)) <= set(SAMPLERS)
