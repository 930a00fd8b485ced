"""From a recipe to a folder with its results; finished repetitions survive whatever stops the run."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec import runs
from graphrec.errors import ConfigError, GraphrecError, RunError
from graphrec.pipelines.recipes import SOURCES, SPLITS, DataFolder, Divided, Recipe, read_recipe
from graphrec.run_writer import RunWriter
from graphrec.training.display import shared_progress

from .checking import check_metric, check_monitor, check_recipe, wanted_figures
from .fingerprint import fingerprint
from .reporting import finish_folder, write_figure
from .results import RECORD_FILE, Place, Repetition, Summary, flat_metrics, main_metric, summarise
from .tasks import Job, Task

if TYPE_CHECKING:
    from rich.progress import Progress

RECIPE_FILE, DATA_FILE, REPETITIONS = "recipe.yaml", "data.json", "repetitions"


@dataclass(frozen=True)
class RecipeRun:
    """A finished run.

    Attributes:
        folder: Where everything is.
        recipe: What was run, with all changes.
        repetitions: In the order in which they were run.
        summary: Variant -> metric -> mean, std and n.
        metric: Full name of the recipe's metric.
    """

    folder: Path
    recipe: Recipe
    repetitions: list[Repetition]
    summary: Summary
    metric: str


@dataclass
class _Plan:
    """A recipe with its data."""

    recipe: Recipe
    variants: dict[str, Recipe]
    task: Task
    folder: DataFolder
    found: Any
    """What the source gave: the data, perhaps `Divided`."""

    @property
    def data(self) -> Any:
        """What the task takes."""
        return self.found.data if isinstance(self.found, Divided) else self.found

    def places(self) -> list[Place]:
        """All repetitions: the variants in turn on every split, so that an early look compares all.

        Raises:
            ConfigError: The recipe wants splits that there are not.
        """
        found = []
        for seed in self.recipe.repeat.seed_list:
            counts = {name: len(self.splits(name, seed)) for name in self.variants}
            for split in range(max(counts.values())):
                found += [Place(n, seed, split) for n in self.variants if split in self._taken(counts[n])]
        return found

    def _taken(self, count: int) -> Sequence[int]:
        wanted = self.recipe.repeat.splits
        if wanted == "all":
            return range(count)
        for number in wanted:
            if not 0 <= number < count:
                raise ConfigError(f"repeat.splits: there is no split {number}; they are 0 to {count - 1}")
        return wanted

    def splits(self, variant: str, seed: int) -> list[Any]:
        """The splits of a variant for a seed."""
        section = self.variants[variant].split
        if self._drawn is None or self._drawn[0] != (section, seed):
            data = self.found if section["kind"] == "given" else self.data
            self._drawn = ((section, seed), SPLITS.call(section, data, seed, self.folder))
        return self._drawn[1]

    _drawn: tuple[Any, list[Any]] | None = None


def run_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path,
    *,
    data: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] | None = None,
    variants: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    show: bool = False,
) -> RecipeRun:
    """Run a recipe into a folder.

    Args:
        recipe: Name of a shipped recipe, path of a file, a mapping, or a checked recipe.
        out: Folder to make. While repetitions are missing it is called ``NAME.partial``.
        data: Folder below which the recipe's paths lie; by default that of GRAPHREC_DATA, or the current one.
        changes: Values by key in dots, such as ``{"training.epochs": 5}``.
        seeds: How many, or which; in place of the recipe's.
        variants: Those to run; by default those that the recipe chooses. ``["all"]`` for all.
        resume: Continue the unfinished run of that folder; finished repetitions are kept.
        overwrite: Replace that folder.
        show: Progress bars on standard error.

    Raises:
        ConfigError: The recipe or a change is wrong; before any data are read.
        DataError: The data are missing or cannot be used.
        RunError: The folder exists, or its unfinished run had another recipe or other data.
    """
    started = time.perf_counter()
    found = _read(recipe, changes, seeds)
    chosen = {name: found.variant(name) for name in found.choose(variants)}
    task = check_recipe(found, chosen)
    writer = RunWriter(out, resume=resume, overwrite=overwrite)
    folder = DataFolder.find(data, found.data["origin"])
    source = {key: value for key, value in found.data.items() if key != "origin"}
    plan = _Plan(found, chosen, task, folder, SOURCES.call(source, folder))
    check_metric(found.metric, task, plan.data)
    for one in chosen.values():
        check_monitor(task.make(one, one.repeat.seed_list[0], False), task, plan.data)
    places = plan.places()
    writer.start({**found.to_dict(), "chosen": list(chosen)}, RECIPE_FILE)
    try:
        print_of_data = _keep_data(writer.partial, plan.data)
        repetitions = _all(plan, places, writer.partial / REPETITIONS, show)
    except GraphrecError:
        if not any(writer.partial.glob(f"{REPETITIONS}/*/*/{RECORD_FILE}")):
            writer.discard()  # there is nothing to go on with
        raise
    metric = main_metric(found.metric, list(repetitions[0].metrics))
    run = RecipeRun(Path(out), found, repetitions, summarise(repetitions), metric)
    facts = {"task": task, "data": print_of_data, "seconds": time.perf_counter() - started}
    with runs.naming(writer.partial):
        finish_folder(writer.partial, run, facts)
    writer.finish()
    return run


def _read(recipe: Any, changes: Mapping[str, Any] | None, seeds: int | Sequence[int] | None) -> Recipe:
    changes = dict(changes or {})
    if seeds is not None:
        changes["repeat.seeds"] = seeds if isinstance(seeds, int) else list(seeds)
    return read_recipe(recipe.to_dict() if isinstance(recipe, Recipe) else recipe, changes)


def _keep_data(folder: Path, data: Any) -> dict[str, str]:
    """What was read, in words and as a fingerprint; refused where an earlier attempt had something else.

    Raises:
        RunError: It had.
    """
    now = {"data": str(data)[:300], "fingerprint": fingerprint(data)}
    file = folder / DATA_FILE
    if file.exists() and (old := runs.read_json(file)).get("fingerprint") != now["fingerprint"]:
        raise RunError(
            f"{folder}: was started on other data ({old.get('data')}); give the same, or start afresh with "
            "--overwrite"
        )
    with runs.atomic_file(file) as temporary:
        runs.write_json(temporary, now)
    return now


def _all(plan: _Plan, places: Sequence[Place], folder: Path, show: bool) -> list[Repetition]:
    """Every repetition, read where it is finished and carried out where it is not."""
    found: list[Repetition] = []
    for leftover in folder.glob("*/.*.tmp"):  # of a repetition that was killed while it was written
        shutil.rmtree(leftover, ignore_errors=True)
    with shared_progress() if show else nullcontext() as bars:
        for place in _tracked(places, bars):
            target = folder / place.folder
            if (kept := _kept(target)) is not None:
                found.append(kept)
                continue
            first = not any(one.variant == place.variant for one in found)
            found.append(_one(plan, place, target, first, show))
            main_metric(plan.recipe.metric, list(found[-1].metrics))
            if bars is not None:
                bars.console.print(
                    _line(found[-1], plan.recipe.metric, len(found), len(places)), markup=False
                )
    return found


def _kept(folder: Path) -> Repetition | None:
    """A finished repetition; one that cannot be read, as after a power cut, is removed, to be repeated."""
    if not folder.exists():
        return None
    try:
        return Repetition.read(folder)
    except (RunError, OSError) as error:
        warnings.warn(f"{error}; that repetition is made again", UserWarning, stacklevel=2)
        shutil.rmtree(folder)
        return None


def _tracked(places: Sequence[Place], bars: Progress | None) -> Iterator[Place]:
    task = None if bars is None else bars.add_task("repetitions", total=len(places), note="")
    for place in places:
        if bars is not None and task is not None:
            bars.update(task, note=f"{place.variant}, seed {place.seed}, split {place.split}")
        yield place
        if bars is not None and task is not None:
            bars.advance(task)


def _line(one: Repetition, metric: str, number: int, total: int) -> str:
    name = main_metric(metric, list(one.metrics))
    value = one.metrics[name]
    text = "undefined" if value is None else f"{value:.4f}"
    place = f"seed {one.seed}, split {one.split}"
    return (
        f"{number}/{total}  {one.variant}, {place}: {name} {text}  ({one.epochs} epochs, {one.seconds:.1f} s)"
    )


def _one(plan: _Plan, place: Place, target: Path, first: bool, show: bool) -> Repetition:
    """Carry out a repetition and write its folder, which appears when it is complete."""
    recipe, split = plan.variants[place.variant], plan.splits(place.variant, place.seed)[place.split]
    draw = wanted_figures(plan.recipe, plan.task) if first else frozenset()
    start = time.perf_counter()
    job = Job(plan.task, recipe, plan.data, split, place.seed, draw, show)
    try:
        outcome = plan.task.run(job)
    except GraphrecError as error:
        raise type(error)(f"{place.variant}, seed {place.seed}, split {place.split}: {error}") from error
    done = Repetition(
        place.variant,
        place.seed,
        place.split,
        split.describe() if hasattr(split, "describe") else str(split)[:200],
        flat_metrics(outcome.metrics),
        dict(outcome.facts),
        len(outcome.history),
        round(time.perf_counter() - start, 3),
        [dict(row) for row in outcome.history],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with runs.atomic_folder(target) as temporary:
        done.write(temporary)
        for name, figure in outcome.figures.items():
            if name in draw:
                write_figure(temporary / "figures", name, figure)
        if outcome.save is not None and (recipe.save == "all" or (recipe.save == "first" and first)):
            outcome.save(temporary / "model")
    return done
