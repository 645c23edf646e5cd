"""The `labkit` command. Commands import what they need when they run, so that `labkit --help` is quick."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from labkit.errors import LabError
from labkit.files import trouble_with_files
from labkit.streams import forgiving_output


class _Sentences(TyperGroup):
    """Prints a user's mistake as a sentence, without a traceback; a bug of ours keeps its traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with forgiving_output():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            sentence = str(error)
        except OSError as error:
            if (trouble := trouble_with_files(error)) is None:
                raise
            sentence = trouble
        lines = [line.strip() for line in sentence.splitlines()]
        typer.echo("labkit: " + ("\n" + " " * len("labkit: ")).join(lines), err=True)
        raise typer.Exit(2)


app = typer.Typer(
    cls=_Sentences,
    help="Prune and quantize a ResNet-20: the course lab's command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    """Keeps `labkit` a command with subcommands."""


@app.command()
def data(
    repair: Annotated[bool, typer.Option("--repair", help="Mend a damaged copy.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Only say what is where.")] = False,
    root: Annotated[
        Path | None, typer.Option("--root", help="Look here first, and download to here.")
    ] = None,
) -> None:
    """Where CIFAR-10 lies on this machine; downloads it if it is nowhere."""
    from labkit import download

    if not status:
        typer.echo(f"CIFAR-10 is in {download.fetch_cifar10(root, repair=repair)}")
        return
    for line in download.status(root):
        typer.echo(line)


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="cifar10 or shapes10.")] = "cifar10",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The weights file.", show_default="resnet20-<dataset>.safetensors"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Another number of epochs than the recipe's.")
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="float32, bfloat16, or auto: bfloat16 where it is fast.")
    ] = "auto",
    held_out: Annotated[
        int | None,
        typer.Option(
            "--held-out",
            min=0,
            help="Choose the epoch on so many training pictures.",
            show_default="the recipe's",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides weights, shuffling and augmentation.")] = 42,
) -> None:
    """Train the network that the lab starts from. Goes on where it was if it was interrupted."""
    from dataclasses import replace

    from labkit.baselines import RECIPES, train_baseline
    from labkit.files import expect_writable
    from labkit.models import default_device
    from labkit.paths import runs_folder
    from labkit.precision import PRECISIONS, resolve

    if dataset not in RECIPES:
        raise LabError(f"there is no recipe for {dataset!r}: it can be {' or '.join(RECIPES)}.")
    if precision not in PRECISIONS:
        raise LabError(f"--precision {precision} is not known: it can be {', '.join(PRECISIONS)}.")
    precision = resolve(precision, default_device())
    recipe = replace(RECIPES[dataset], precision=precision, seed=seed)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    recipe = recipe if held_out is None else replace(recipe, held_out=held_out)
    out = out or Path(f"resnet20-{dataset}.safetensors")
    expect_writable(out)  # before the hours of training, not after
    typer.echo(f"{recipe}")
    result = train_baseline(recipe, out, runs_folder() / f"train-{dataset}-{seed}")
    typer.echo(f"test accuracy {result.accuracy:.4f}, loss {result.loss:.4f}; weights in {out}")
    if dataset == "cifar10":
        typer.echo(f"the notebooks start from them with LABKIT_BASELINE={out.resolve()}")


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which experiments; all if none is named.", show_default=False)
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="What they start from: shipped weights or a weights file.")
    ] = "resnet20-cifar10",
    recipe: Annotated[str, typer.Option("--recipe", help="How they train: report, or improved.")] = "report",
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Can be given several times. [42]")
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="full, or quick: Shapes-10, to try the command.")
    ] = "full",
    results: Annotated[
        Path, typer.Option("--results", help="Records are written to here; what has one is not run again.")
    ] = Path("data/results"),
    notebooks: Annotated[
        Path, typer.Option("--notebooks", help="Whose functions run: with a --results of your own, your own.")
    ] = Path("notebooks/source/compression"),
    on: Annotated[
        str | None, typer.Option("--on", help="A Dask scheduler, tcp://host:8786, to spread the runs.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Only say what there is and what is done.")] = False,
    page: Annotated[
        bool, typer.Option("--page", help="Only write docs/RESULTS.md and its pictures from the records.")
    ] = False,
) -> None:
    """Run the report's experiments from the notebooks' own code, and compare. Goes on where it was."""
    from labkit.reproduce.command import reproduce

    if page:
        from labkit.reproduce.page import write_page

        for path in write_page(results, Path("docs")):
            typer.echo(path)
        return

    reproduce(
        names or [], baseline=baseline, recipe=recipe, seeds=seeds or [42], profile=profile,
        results=results, notebooks=notebooks, address=on, only_list=show, say=typer.echo,
    )  # fmt: skip


@app.command()
def notebooks(
    folder: Annotated[Path, typer.Argument(help="Where to put them.")] = Path("compression"),
) -> None:
    """Put the lab's notebooks into a folder, to work in; what is there already stays as it is."""
    from labkit.notebooks import hand_out

    written, kept = hand_out(folder)
    typer.echo(f"{len(written)} notebooks written to {folder}")
    if kept:
        typer.echo(f"kept as they are: {', '.join(kept)}")
    typer.echo(f"Next: jupyter lab {folder}")


@app.command()
def submit(
    folder: Annotated[
        Path | None, typer.Argument(help="Where the notebooks are.", show_default="the current folder")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The zip.", show_default="submission.zip in that folder")
    ] = None,
) -> None:
    """Pack your notebooks into one zip to hand in, with a receipt; says what is not answered yet."""
    from labkit.submit import submit

    submit(folder, out)


@app.command()
def doctor() -> None:
    """Look over this installation; each line that is not well says what to do."""
    from labkit.doctor import examine

    findings = examine()
    if find_spec("nbgrader") is not None and sys.platform != "win32":
        from labkit.grading.levels import finding as isolation

        findings.append(isolation())
    for finding in findings:
        mark = "look" if not finding.well else "note" if finding.advice else "ok  "
        typer.echo(f"{mark}  {finding.what}: {finding.found}")
        if finding.advice:
            typer.echo(f"      {finding.advice}")
    if any(finding.needed and not finding.well for finding in findings):
        raise typer.Exit(1)


def _add_instructors_commands() -> None:
    if find_spec("nbgrader") is not None:
        from labkit.grading.cli import add_commands

        add_commands(app)
        return

    def missing(ctx: typer.Context) -> None:
        """For instructors; needs the extra `grade`."""
        raise LabError(
            f"`labkit {ctx.info_name}` needs the instructor's extra, which is not installed: "
            "pip install 'labkit[grade]', or pip install -e '.[grade]' in a checkout."
        )

    for name in ("new", "release", "collect", "grade", "regrade", "report"):
        app.command(name, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
            missing
        )


_add_instructors_commands()

if __name__ == "__main__":
    sys.exit(app())
