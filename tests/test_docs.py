"""Docs agree with the code: links resolve, commands parse, examples import, and tables list what the code defines."""

import ast
import functools
import importlib
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

import wasnow
from wasnow import errors
from wasnow.cli import app
from wasnow.cli.rio import wasnow as rio_wasnow
from wasnow.output.layout import OUTPUTS
from wasnow.output.record import RunRecord
from wasnow.output.vector.files import ATTRIBUTES, LAYER
from wasnow.pipeline.options import Options
from wasnow.raster.pair import Reason

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
SHELL = ("sh", "bash", "console", "")
TOOLS = ("wasnow", "rio", "make", "python")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@functools.cache
def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, *languages):
    """The code blocks of a page in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def prose(page):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def spans(page):
    """The text between backticks in the prose of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def shell_lines(page):
    """The words of every command of this project in the shell blocks of a page."""
    for body in blocks(page, *SHELL):
        for line in body.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ")
            if line.split(" ")[0] in TOOLS:
                yield shlex.split(line, comments=True)


def rows(page, heading):
    """The cells of every table row below a heading, without the two header lines; backticks removed."""
    section = re.split(r"^#+ ", text_of(page).split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


# --- links ------------------------------------------------------------------------------------------------------


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "")).strip().lower().replace(" ", "-") for title in titles}


def links(page):
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


@each_page
def test_every_link_resolves_to_a_file_and_heading(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.exists(), f"{page.name} links to {target}"
        assert leads_to.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        if anchor:
            assert anchor in anchors(leads_to), f"{page.name}: no heading #{anchor} in {leads_to.name}"


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if target[0] != "#"]
    assert set(PAGES) <= reached


# --- commands ---------------------------------------------------------------------------------------------------


@functools.cache
def root_command():
    return typer.main.get_command(app)


def verb_of(words):
    """The command named by the words after ``wasnow``, and its arguments."""
    command, rest = root_command(), list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    if hasattr(command, "commands") and rest:
        assert rest[0].startswith("-"), f"wasnow has no verb {rest[0]!r}"
    return command, rest


def options_of(command):
    helps = command.context_settings.get("help_option_names", ["--help", "-h"])
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | set(helps)


def check_options(command, words):
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in options_of(command), f"{command.name} has no option {word}"


@each_page
def test_every_wasnow_command_parses(page):
    for words in shell_lines(page):
        if words[0] == "wasnow":
            command, rest = verb_of(words[1:])
        elif words[:2] == ["rio", "wasnow"]:
            command, rest = rio_wasnow, words[2:]
        else:
            continue
        check_options(command, rest)
        if not {"--help", "-h", "--version"} & set(rest):
            # Parses the arguments, checks types and missing ones, and runs nothing.
            command.make_context(command.name, rest)


@each_page
def test_every_verb_and_option_in_the_prose_exists(page):
    known = known_options()
    for span in spans(page):
        words = span.split()
        if words[0] == "wasnow" and len(words) > 1:
            check_options(*verb_of(words[1:]))
        elif words[0].startswith("--"):
            assert words[0].partition("=")[0] in known, f"{page.name}: no verb has an option {words[0]}"


@functools.cache
def known_options():
    return {name for command in (*all_verbs(), rio_wasnow) for name in options_of(command)}


def all_verbs(command=None):
    command = command or root_command()
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from all_verbs(each)


@each_page
def test_every_make_target_and_script_exists(page):
    targets = re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    typed = [*shell_lines(page), *(span.split() for span in spans(page))]
    for words in typed:
        if words[0] == "make" and len(words) > 1:
            assert words[1] in targets, f"{page.name}: no target {words[1]} in the Makefile"
        if words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), f"{page.name}: no script {words[1]}"


@each_page
def test_python_examples_compile_and_import_what_exists(page):
    for body in blocks(page, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "wasnow":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)


# --- tables -----------------------------------------------------------------------------------------------------


def test_the_exit_codes_are_those_of_the_program():
    real = {value: name for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code): name for code, name, _ in rows(DOCS / "errors.md", "Exit codes")} == real
    assert [int(code) for code, _ in rows(ROOT / "README.md", "Exit codes")] == sorted(real)


def test_every_error_is_listed_with_its_exit_code():
    real = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.WasnowError)
    }
    assert {name: int(code) for name, code, *_ in rows(DOCS / "errors.md", "Exceptions")} == real


def test_every_option_of_detect_is_explained():
    detect = next(command for command in all_verbs() if command.name == "detect")
    page = " ".join(spans(DOCS / "detect.md"))
    for name in options_of(detect) - {"--help", "-h"}:
        if name.startswith("--"):
            assert re.search(rf"{name}(?![\w-])", page), f"detect.md does not explain {name}"
    python = set(spans(DOCS / "python.md"))
    assert set(Options.model_fields) <= python


def test_the_defaults_of_detect_are_those_of_the_program():
    detect = next(command for command in all_verbs() if command.name == "detect")
    by_name = {name: each for each in detect.params for name in each.opts}
    explained = {
        name: default
        for names, default, _ in rows(DOCS / "detect.md", "Options by purpose")
        for name in names.split(", ")
        if name in by_name
    }
    assert len(explained) > 15
    for name, written in explained.items():
        real = by_name[name].default
        if by_name[name].required:
            assert written == "required", name
        elif real is None:
            assert written in ("none", "the model's", "by colour", "the file's own"), name
        else:
            assert written == ("off" if real is False else f"{real:g}" if isinstance(real, float) else str(real)), name


def test_the_reference_lists_every_public_name():
    listed = set(re.findall(r"^::: wasnow\.(\w+)$", text_of(DOCS / "reference.md"), re.MULTILINE))
    described_with_errors = {name for name in wasnow.__all__ if hasattr(errors, name)}
    assert listed - {"errors"} == set(wasnow.__all__) - described_with_errors - {"__version__"}


def test_every_file_of_a_result_folder_is_described():
    assert {row[0] for row in rows(DOCS / "result-folder.md", "The result folder")} == set(OUTPUTS)
    assert LAYER in spans(DOCS / "result-folder.md")
    assert set(OUTPUTS) <= set(spans(ROOT / "README.md"))


def test_every_column_reason_and_field_is_described():
    page = DOCS / "result-folder.md"
    columns = [name for row in rows(page, "changes.gpkg and changes.parquet") for name in row[0].split(", ")]
    assert columns == ATTRIBUTES.names
    assert [row[0] for row in rows(page, "Codes")] == [reason.text for reason in Reason if reason != Reason.PROCESSED]
    fields = [name for row in rows(page, "run.json") for name in row[0].split(", ")]
    assert sorted(fields) == sorted(RunRecord.model_fields)


# --- architecture -----------------------------------------------------------------------------------------------


def test_the_architecture_page_lists_every_package():
    listed = {row[0] for row in rows(DOCS / "architecture.md", "Packages")}
    assert listed == {f"wasnow.{name}" for name in imported_layers().allowed_imports()}


@each_page
def test_every_module_and_public_name_in_the_prose_exists(page):
    for span in spans(page):
        if re.fullmatch(r"wasnow(\.\w+)+", span):
            assert exists(span), f"{page.name} names {span}"


def exists(name):
    """Whether a dotted name is a module or an attribute of one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def imported_layers():
    """docs/pictures/make_layers_picture.py as a module."""
    return picture_script("make_layers_picture")


def picture_script(name):
    sys.path.insert(0, str(DOCS / "pictures"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("name", ["layers", "flow"])
def test_the_diagrams_are_up_to_date(name):
    script = picture_script(f"make_{name}_picture")
    drawn = (DOCS / f"pictures/{name}.svg").read_text(encoding="utf-8")
    assert drawn == script.picture(), f"run python docs/pictures/make_{name}_picture.py"


def test_every_module_in_the_data_flow_exists():
    script = picture_script("make_flow_picture")
    for name in script.MODULES:
        importlib.import_module(f"wasnow.{name}")
        assert name in script.picture()


def test_a_cycle_between_packages_is_not_drawn():
    with pytest.raises(ValueError, match="import cycle: a -> b -> a"):
        imported_layers().ranks({"a": {"b"}, "b": {"a"}})


def test_an_import_that_a_path_implies_is_not_drawn():
    drawn = imported_layers().direct({"cli": {"run", "errors"}, "run": {"errors"}, "errors": set()})
    assert drawn == {"cli": {"run"}, "run": {"errors"}, "errors": set()}


@functools.cache
def names_of_tests():
    defined = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"^def (test_\w+)", text_of(path), re.M)
    }
    return defined | {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


@each_page
def test_every_test_in_the_prose_exists(page):
    for span in spans(page):
        if re.fullmatch(r"test_\w+", span):
            assert span in names_of_tests(), f"{page.name} names {span}"
        if "NAME" not in span and re.fullmatch(r"(tests|src|benchmarks|mini|docs)/[\w./-]+", span):
            assert (ROOT / span).exists(), f"{page.name} names {span}"


# --- what must not appear ---------------------------------------------------------------------------------------

MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|work|tmp|mnt|opt|srv|var|usr|etc|Users|Volumes)/|\b[A-Z]:\\")
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|anaconda\.org|conda-forge\.org|npmjs\.|download\.pytorch\.org|ghcr\.io|quay\.io"
    r"|docker\.(io|com)|huggingface\.co|crates\.io|index-url|localhost:\d"
)


@each_page
def test_no_page_contains_a_machine_path_or_a_package_index(page):
    assert not MACHINE_PATH.search(text_of(page))
    assert not REGISTRY.search(text_of(page))


def test_every_picture_is_small_and_has_a_script_that_renders_it():
    pictures = [path for path in (DOCS / "pictures").iterdir() if path.suffix in (".png", ".jpg")]
    assert pictures
    for path in pictures:
        assert path.stat().st_size < 600_000, path.name
        assert (DOCS / "pictures" / f"make_{path.stem}_picture.py").exists()
