"""The reference pages of commands and of configuration fields, generated from the code when the site is built.

Flags describe themselves. A field is described by the comment at its definition; its allowed values are those that the error
message for a wrong value names.
"""

import inspect
import io
import re
import runpy
import sys
import tokenize
from pathlib import Path

from absl import flags

import sdit_jax
from sdit_jax import config, models
from sdit_jax.commands.command_line import VERBS
from sdit_jax.errors import InputError
from sdit_jax.training.setup import make_setup

ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown, page, **_):
    """Adds the generated part to the two pages."""
    generated = {"reference/commands.md": commands, "reference/configuration.md": fields}.get(page.file.src_uri)
    return f"{markdown}\n{generated()}" if generated else markdown


def commands():
    """A section for each verb: its help text and its flags."""
    return "\n".join(_command(verb) for verb in VERBS)


def _command(verb):
    before = set(flags.FLAGS)
    module = runpy.run_module(f"sdit_jax.commands.{verb}")
    required, rows = module.get("REQUIRED", ()), []
    for name in [name for name in flags.FLAGS if name not in before]:
        flag = flags.FLAGS[name]
        values = getattr(flag.parser, "enum_values", None) or [flag.parser.syntactic_help or flag.flag_type()]
        text = flag.help.removeprefix(f"<{'|'.join(values)}>: ")
        default = "required" if name in required else _code(flag.default_as_str and flag.default_as_str.strip("'"))
        rows.append((f"`--{name}`", default, ", ".join(values), text))
        delattr(flags.FLAGS, name)  # Several verbs have flags of the same name.
    argument = f" {module['ARGUMENT'].upper()}" if "ARGUMENT" in module else ""
    return f"## {verb}\n\n`sdit {verb}{argument}`: {module['__doc__']}\n{_table('flag', rows)}"


def fields():
    """A section for each group of fields, then one for each network."""
    source, default = inspect.getsource(config.default_config), config.default_config({})
    known = comments(source)
    groups = {"": [name for name, value in default.items() if not hasattr(value, "items")]}
    groups |= {name: list(value) for name, value in default.items() if hasattr(value, "items") and name != "model"}
    parts = []
    for group, names in groups.items():
        values = default[group] if group else default
        full = {name: f"{group}.{name}" if group else name for name in names}
        names.sort(key=lambda name, full=full: source.index(f"config.{full[name]} = "))
        rows = [_row(full[name], values[name], allowed(full[name]), known.get(full[name], "")) for name in names]
        title = f"config.{group}" if group else "config"
        parts.append(f"## {title}\n\n{known.get(group, '')}\n\n{_table('field', rows)}")
    parts += [_network(name) for name in models.families() if inspect.isclass(models.find(name).module)]
    return "\n".join(parts)


def _network(name):
    family = models.find(name)
    places = [base for base in family.module.__mro__ if base.__module__.startswith("sdit_jax")]
    known = {}
    for place in reversed(places):
        known |= {field: text for field, text in comments(inspect.getsource(place)).items() if text}
    rows = [
        _row(f"model.{field}", value.default, allowed(f"model.{field}", name), known.get(field, ""))
        for field, value in family.fields.items()
    ]
    files = sorted({Path(inspect.getfile(place)).relative_to(ROOT) for place in places}, key=lambda path: path.parts[::-1])
    sources = ", ".join(f"[{path}](../../{path})" for path in files)
    presets = ", ".join(f"`{preset}`" for preset in family.presets)
    what = sys.modules[family.module.__module__].__doc__.splitlines()[0]
    title = f'## config.model, name "{name}"\n\n{what} Defined in {sources}. Presets: {presets}.'
    return f"{title}\n\n{_table('field', rows)}"


def comments(source):
    """{"data.name": "..."}: the comment behind the first line of each assignment, and those on the lines right above it."""
    found, above, start = {}, [], []
    for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(source) + "\n").readline):
        text = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and start:
            found[name(start)] = " ".join([*above, text])
        elif token.type == tokenize.COMMENT:
            above.append(text)
        elif token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            if start and above:
                found.setdefault(name(start), " ".join(above))
            start, above = [], above if token.type != tokenize.NEWLINE else []
        elif token.type != tokenize.NL:
            start.append(token.string)
    return found


def name(tokens):
    """The dotted name that a line begins with, without `config.`."""
    return re.match(r"(?:config\.)?([\w.]*)", "".join(tokens))[1]


def allowed(field, network=models.DEFAULT):
    """What the error message says of wrong values of a field."""
    made = sdit_jax.configure("digits:tiny", {"evaluation.every": "1 steps"})
    if network != models.DEFAULT:
        made.model = models.defaults(network)
    default = config.flattened(made)[field]
    if isinstance(default, bool):
        return "False, True"
    found = []
    for wrong in {str: ("?",), int: (-2,), float: (-2.0, 1e12)}[type(default)]:
        flat = config.flattened(made) | {field: wrong}
        try:
            if field.startswith("model."):
                models.build(config.nested(flat).model)
            else:
                make_setup(config.nested(flat))
        except InputError as error:
            rule = re.match(rf"config\.{re.escape(field)}: found [^,]*, (?:allowed are|must be) (.*)", str(error))
            found += [rule[1]] if rule else []
    return "; ".join(dict.fromkeys(found)) or {str: "text", int: "integer", float: "number"}[type(default)]


def _row(name, default, values, text):
    return f"`{name}`", _code(repr(default).replace("'", '"')), values, text


def _code(value):
    return f"`{value}`" if value else ""


def _cell(text):
    return text.replace("|", "\\|").replace("[", "\\[").replace("\n", " ")


def _table(what, rows):
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join([f"| {what} | default | values | meaning |", "|---|---|---|---|", *lines]) + "\n"
