"""Commands that only look: models, schema, doctor."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from graphrec.errors import ConfigError

from . import options as o
from .common import AsJson, DataPath, Debug, command, console, names, parse_settings


@command
def models(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of names, such as '*int*'.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only models of this task, such as ctr.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the models: what each is and its paper; of a single one its options as well.

    Examples:

        graphrec models --task ctr

        graphrec models fcn
    """
    from graphrec.registry import card, list_models, model_options

    found = list_models(pattern, task)
    if not found:
        facts = card(pattern) if pattern.isidentifier() else None
        of = f" of task {task}" if task else ""
        hint = f"; {pattern} is of task {facts.task}" if facts else "; `graphrec models` lists all"
        missing = f"there is none{of}" if pattern == "*" else f"none{of} is called {pattern!r}"
        raise ConfigError(f"models: {missing}{hint}")
    if as_json:
        import dataclasses

        listed = [{**dataclasses.asdict(card(n)), "options": model_options(n)} for n in found]
        typer.echo(json.dumps(listed, indent=2, default=str))
        return
    from rich.table import Table

    table = Table("name", "task", "labels", "system", "paper")
    for name in found:
        facts = card(name)
        labels = "several" if facts.multi_label else "one"
        table.add_row(name, facts.task, labels, facts.title, facts.paper)
    console().print(table)
    if len(found) == 1:
        options = ", ".join(f"{key}={value!r}" for key, value in model_options(found[0]).items())
        typer.echo(f"options (--set NAME=VALUE): {options}")


@command
def schema(
    data: DataPath,
    label: o.Label = None,
    weight: o.Weight = None,
    group: o.Group = None,
    time: o.Time = None,
    ignore: o.Ignore = None,
    role: o.RoleOption = None,
    out: Annotated[str | None, typer.Option(help="Write the schema to this YAML file, to edit it.")] = None,
    debug: Debug = False,
) -> None:
    """Show what each column of a table is taken for.

    Example: graphrec schema log.parquet --label click --out schema.yaml
    """
    from graphrec.pipelines.tables import TableSchema, open_table
    from graphrec.runs import atomic_file

    roles = parse_settings(role or [], "--role")
    table = open_table(data)
    labels: Any = names(label) or None
    found = TableSchema.infer(
        table, label=labels, weight=weight, group=group, time=time, roles=roles, ignore=names(ignore)
    )
    typer.echo(str(found))
    if out:
        with atomic_file(out) as temporary:
            found.to_yaml(temporary)
        typer.echo(f"written to {out}; edit it and fit with --schema {out}")


@command
def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Show versions, devices, CPU features, optional packages and the cache.

    Example: graphrec doctor
    """
    from graphrec.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([f._asdict() for f in findings], indent=2))
        return
    from rich.table import Table

    table = Table("section", "what", "found", "note")
    previous = ""
    for finding in findings:
        if previous and finding.section != previous:
            table.add_section()
        table.add_row(finding.section if finding.section != previous else "", *finding[1:])
        previous = finding.section
    console().print(table)
