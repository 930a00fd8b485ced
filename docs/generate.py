"""Write the parts of the documentation that come from the code.

`python docs/generate.py` rewrites docs/models.md, docs/vision_models.md, docs/benchmarks.md, tables in
README.md and docs/recipes.md, and the pictures of patterns in docs/kernels.md and docs/pictures; `--check`
writes nothing and exits with 1 when one of them is stale. tests/test_docs.py does the same.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
from pathlib import Path

from graphrec.pipelines.recipes import SOURCES, SPLITS, Vocabulary, list_recipes, read_recipe
from graphrec.pipelines.recipes.vocabulary import KINDS
from graphrec.registry import Card, card, list_models, model_options
from graphrec.running.tasks import TASKS as RECIPE_TASKS
from graphrec.running.tasks import find_task

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import draw_patterns  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
DRAWN, DRAWN_END = "<!-- pictures: written by docs/generate.py -->", "<!-- end of pictures -->"
LISTED, LISTED_END = "<!-- recipes: written by docs/generate.py -->", "<!-- end of recipes -->"
WORDS, WORDS_END = "<!-- words: written by docs/generate.py -->", "<!-- end of words -->"
START, END = "<!-- models: written by docs/generate.py -->", "<!-- end of models -->"
NOTICE = "<!-- Written by docs/generate.py; edit the cards or the benchmarks instead. -->"
TASKS = {
    "ctr": "Click-through rate",
    "graph": "Graphs",
    "node": "Nodes of graphs",
    "hypergraph": "Hypergraphs",
    "relation": "Relations in text",
    "vision": "Vision",
    "eeg": "EEG",
}


def link(text: str, target: str) -> str:
    """A Markdown link, or the bare text when there is no target."""
    return f"[{text}]({target})" if target else text


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def model_rows(task: str) -> list[list[str]]:
    """Name, title with its paper, and specially treated fields of each model of a task."""
    return [
        [
            link(f"`{c.name}`", f"docs/models.md#{c.name.replace('+', '')}"),
            link(c.title, c.paper),
            ", ".join(f"{kind} fields" for kind in c.uses),
        ]
        for c in map(card, list_models(task=task))
    ]


def between(path: Path, start: str, end: str, body: str) -> str:
    """A page with what stands between two marks replaced."""
    return between_in(path.read_text(encoding="utf-8"), start, end, body)


def between_in(text: str, start: str, end: str, body: str) -> str:
    """A text with what stands between two marks replaced."""
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{body}\n{end}{after}"


def readme() -> str:
    """README.md with a fresh table of models."""
    body = table(["model", "published as", "made for"], model_rows("ctr"))
    return between(ROOT / "README.md", START, END, body)


def kernels() -> str:
    """docs/kernels.md with fresh pictures of the patterns."""
    return between(ROOT / "docs" / "kernels.md", DRAWN, DRAWN_END, draw_patterns.gallery())


def recipes() -> str:
    """docs/recipes.md with fresh tables of the shipped recipes, of sources and of splits."""
    page = ROOT / "docs" / "recipes.md"
    rows = []
    for summary in list_recipes():
        recipe = read_recipe(summary.name)
        origin = recipe.data["origin"] or "generated"
        data = f"<{origin}>" if origin.startswith("https:") and " " not in origin else origin
        rows.append([f"`{summary.name}`", summary.title, ", ".join(recipe.choose([])), data])
    listed = table(["recipe", "what", "runs", "data"], rows)
    words = [f"{title}\n\n{vocabulary(one)}" for title, one in _VOCABULARIES.items()]
    words = "\n\n".join([f"`task`:\n\n{tasks()}", *words])
    return between_in(between(page, LISTED, LISTED_END, listed), WORDS, WORDS_END, words)


def tasks() -> str:
    """What a recipe can ask for."""
    rows = [
        [f"`{one.name}`", KINDS[one.takes], one.about, ", ".join(one.figures)]
        for one in map(find_task, sorted(RECIPE_TASKS))
    ]
    return table(["task", "takes", "what", "pictures"], rows)


_VOCABULARIES = {
    "`data.source`, below which the other keys of `data` are its options:": SOURCES,
    "`split.kind`, likewise:": SPLITS,
}


def vocabulary(words: Vocabulary) -> str:
    """Names that a recipe may use, their options, and what each gives or divides."""
    rows = []
    for entry in words.entries.values():
        fields = entry.options.model_fields.items()
        keys = [name if one.is_required() else f"{name}: {_plain(one.default)}" for name, one in fields]
        shown = f"`{', '.join(keys)}`" if keys else ""
        rows.append([f"`{entry.name}`", ", ".join(KINDS[k] for k in entry.kinds), entry.about, shown])
    return table([words.key, "for", "what", "options"], rows)


def _plain(value: object) -> str:
    """A default as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def options(name: str) -> str:
    """The keyword options of a model and their defaults, as code."""
    pairs = (
        key if default is inspect.Parameter.empty else f"{key}={default!r}"
        for key, default in model_options(name).items()
    )
    return "`" + ", ".join(pairs) + "`"


def entry(c: Card) -> str:
    """The catalogue's section of one model."""
    facts = [
        f"- Paper: <{c.paper}>" if c.paper else "",
        f"- Official code: <{c.code}>{f' ({c.licence})' if c.licence else ''}" if c.code else "",
        "" if c.variants else f"- Labels: {'one or several' if c.multi_label else 'one'}",
        "- Variants: [figures, and speed beside the peer](vision_models.md)" if c.variants else "",
        f"- Options: {options(c.name)}",
        "".join(f"\n- Published {what}: {value}" for what, value in c.published.items()).lstrip(),
        "".join(f"\n- Verified: {what} (`{test}`)" for what, test in c.verified.items()).lstrip(),
        f"- Differs: {c.differs}" if c.differs else "",
    ]
    return f"## {c.name}\n\n{c.title}\n\n" + "\n".join(filter(None, facts))


def catalogue() -> str:
    """docs/models.md."""
    parts = [
        f"# Models\n\n{NOTICE}\n\n`graphrec models` prints this list and `graphrec.create_model(name, spec)`"
        " makes one. A figure under *published* is the paper's, not ours; what was measured here is in"
        " [benchmarks](benchmarks.md).",
        *(entry(card(name)) for task in TASKS for name in list_models(task=task)),
    ]
    return "\n\n".join(parts) + "\n"


def hub_link(repository: str) -> str:
    """A link to a repository of weights on the Hugging Face hub, or nothing."""
    return link("converted", f"https://huggingface.co/{repository}") if repository else ""


def variants(c: Card) -> list[list[str]]:
    """One row for each published variant of a system."""
    return [
        [
            f"`{name}`",
            f"{one.size}",
            f"{one.parameters:.2f}",
            "" if one.gflops is None else f"{one.gflops:g}",
            "" if one.top1 is None else f"{one.top1:g}",
            link("official", one.weights) if "://" in one.weights else hub_link(one.weights),
            one.note if one.counted is None else f"{one.counted:g} GFLOPs are counted: {one.note}",
        ]
        for name, one in c.variants.items()
        if one.published
    ]


def beside_peers() -> dict[str, str]:
    """What benchmarks/vision_cpu.py recorded, as a line for each system's name."""
    jobs = []
    for recorded in ("vision_cpu", "vision_cpu_bf16"):
        file = ROOT / "benchmarks" / "results" / f"{recorded}.json"
        jobs += json.loads(file.read_text(encoding="utf-8"))["jobs"]
    lines: dict[str, list[str]] = {}
    for ours, theirs in zip(jobs[::2], jobs[1::2], strict=True):
        variant, dtype, batch, what = ours["name"].partition(": ")[2].split(", ")
        key = "mb" if "memory" in what else "ms"
        of_ours, of_theirs = (statistics.median(run[key] for run in one["runs"]) for one in (ours, theirs))
        kept = lines.setdefault(variant, [])
        kept.append(f"{what} {of_ours / of_theirs:.2f} ({dtype}, {batch})")
    page = link("timm's or the official code's", "benchmarks.md#backbones-on-a-cpu")
    return {name: f"`{name}` on a CPU, over {page}: {', '.join(told)}." for name, told in lines.items()}


def measured(c: Card) -> str:
    """The lines of a system's variants in the table of speeds."""
    lines = beside_peers()
    return "".join(f"\n\n{lines[name]}" for name in c.variants if name in lines)


def verified(c: Card) -> str:
    """What of a system was compared here, with the page that names the tests; what was not is not in it."""
    told = f"; {link('the tests', f'models.md#{c.name}')}" if c.verified else ""
    return f"\n\nVerified here: {'; '.join(c.verified) or 'nothing'}{told}."


def vision_models() -> str:
    """docs/vision_models.md: every variant of every backbone."""
    cards = [card(name) for name in list_models(task="vision")]
    header = ["variant", "pixels", "parameters (M)", "GFLOPs", "top-1 (%)", "weights", "note"]
    count = sum(one.published for c in cards for one in c.variants.values())
    parts = [
        f"# Vision models\n\n{NOTICE}\n\n{count} variants of {len(cards)} systems. Figures are the papers' or"
        " the official repositories': parameters (with the digits that the official code counts), billions of"
        " multiplications with addition for one image, accuracy on ImageNet-1K of the official weights."
        " `tests/vision/test_published.py` counts parameters to 1% and operations"
        " to 3% of them, or says why not; `vision.count_operations` counts any model. Accuracies were not"
        " measured here: logits, feature maps and gradients were compared, as each"
        " [card](models.md) says.",
        *(
            f"## {link(c.title, c.paper)}\n\n{table(header, variants(c))}{verified(c)}{measured(c)}"
            for c in cards
        ),
    ]
    return "\n\n".join(parts) + "\n"


def benchmarks() -> str:
    """docs/benchmarks.md: every recorded result, newest state of each question."""
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    parts = [
        f"# Benchmarks\n\n{NOTICE}\n\nEach table was written by the script named in it, with graphrec and the"
        " peers interleaved in one run on one machine. How to repeat them:"
        " [benchmarks/README.md](../benchmarks/README.md).",
        *(path.read_text(encoding="utf-8").strip() for path in results),
    ]
    return "\n\n".join(parts) + "\n"


def outputs() -> dict[Path, str]:
    """File -> what it should hold."""
    return {
        ROOT / "README.md": readme(),
        ROOT / "docs" / "models.md": catalogue(),
        ROOT / "docs" / "vision_models.md": vision_models(),
        ROOT / "docs" / "benchmarks.md": benchmarks(),
        ROOT / "docs" / "kernels.md": kernels(),
        ROOT / "docs" / "recipes.md": recipes(),
        **{PICTURES / name: text for name, text in draw_patterns.pictures().items()},
    }


def stale() -> list[Path]:
    """Files that do not hold what the code says, and pictures that it no longer draws."""
    wanted = outputs()
    old = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    return old + sorted(set(PICTURES.glob("*")) - set(wanted))


def main() -> int:
    """Write, or with ``--check`` only compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 when a file is stale")
    if parser.parse_args().check:
        old = stale()
        for path in old:
            print(f"stale: {path.relative_to(ROOT)}; run python docs/generate.py", file=sys.stderr)
        return int(bool(old))
    wanted = outputs()
    PICTURES.mkdir(exist_ok=True)
    for path in set(PICTURES.glob("*")) - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
