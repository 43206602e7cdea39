"""Commands that train, and plot trainings."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.files import MAX_REFUSED, Choices, Columns, Kind, MaxRefused, ProductColumns, ProductsFile, TimeUnit, open_file
from infra.terminal import AsJson, moment_ms, print_json, print_text, progress, say

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.config import Config


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(train)
    app.command("plot")(plot_logs)


def train(
    data: Annotated[str, typer.Option(help="`shop` for the simulated shop's history, or a file as `everlong replay` takes.")] = "shop",
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle; replaces an existing one. Default: EVERLONG_BUNDLE.")] = None,
    products: ProductsFile = None,
    columns: Columns = "",
    product_columns: ProductColumns = "",
    kind: Kind = None,
    time_unit: TimeUnit = None,
    max_refused: MaxRefused = MAX_REFUSED,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the examples.")] = None,
    dim: Annotated[int | None, typer.Option(min=8, max=256, help="Dimension of vectors, a multiple of 8.")] = None,
    coded: Annotated[
        str | None, typer.Option(help="What item codes represent, separated by commas: fused, id, text, image, attributes. Default: fused.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1, help="Peak learning rate. Default: 0.004, with --from 0.001.")
    ] = None,
    cut: Annotated[str | None, typer.Option(help="Hold out newer events: ISO time (UTC) or ms. Default: the newest tenth.")] = None,
    parent: Annotated[
        Path | None,
        typer.Option("--from", exists=True, file_okay=False, help="Continue from this bundle, on events newer than its own."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    users: Annotated[int, typer.Option(min=1, help="Users of the simulated shop.")] = 300,
    items: Annotated[int, typer.Option(min=1, help="Items of the simulated shop.")] = 2000,
    categories: Annotated[int, typer.Option(min=1, help="Categories of the simulated shop.")] = 40,
    days: Annotated[float, typer.Option(min=1, help="Days of history of the simulated shop.")] = 60.0,
    until: Annotated[str | None, typer.Option(help="End of the simulated shop's history, ISO time (UTC). Default: now.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep checkpoints here: after a kill, the same command resumes.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two checkpoints.")] = 60.0,
    log: Annotated[Path | None, typer.Option(dir_okay=False, help="A table of the steps (CSV): loss, learning rate, examples.")] = None,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Plot of the loss (SVG); its table of steps goes to the same folder, or to --log.")
    ] = None,
    choose_shares: Annotated[
        bool, typer.Option("--choose-shares/--usual-shares", help="Tune the shares of lists on half of the held-out users.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Train a bundle on events replayed through the row code and print its metrics on held-out events.

    With --from, training continues from the bundle's weights on newer events; older ones are history only.
    Under `torchrun --no-python` several processes train one bundle together.
    """
    reading = None if data == "shop" else open_file(Path(data), products, Choices(columns, product_columns, kind, time_unit, max_refused))
    import msgspec

    from infra.settings import load_settings
    from infra.training.from_files import ShopPlan, file_history, shop_history, train_bundle
    from infra.training.plot import require_plotting, write_plot
    from infra.wiring import choose_device
    from models.codes.modalities import choose
    from models.errors import CheckpointError, UnknownModalityError, WarmStartError
    from models.evaluation.table import lines
    from models.training.devices import joined, own_card

    if plot is not None:
        require_plotting()
    settings = load_settings()
    asked: dict[str, Any] = {"epochs": epochs, "dim": dim, "warm_start_rate" if parent else "learning_rate": learning_rate}
    try:
        asked |= {"cut_ms": cut and moment_ms(cut, "--cut"), "coded": coded and choose([name.strip() for name in coded.split(",")])}
    except UnknownModalityError as error:
        raise typer.BadParameter(str(error), param_hint="--coded") from error
    old, config = _configured(parent, {name: value for name, value in asked.items() if value is not None})
    target = out or settings.bundle_path
    log = log or (plot and plot.with_suffix(".csv"))
    plan = ShopPlan(users, items, categories, days, seed, moment_ms(until, "--until") if until else 0)
    device = choose_device(settings, own_card())
    with joined(device) as ranks:
        if data == "shop" and until is None and (checkpoints is not None or ranks.size > 1):
            hint = "several processes" if checkpoints is None else "--checkpoints"
            raise typer.BadParameter("a shop whose history ends now differs each time: add --until", param_hint=hint)
        history = shop_history(plan) if reading is None else file_history(reading)
        try:
            with progress("training") if ranks.leads else nullcontext(_untold) as tell:
                manifest = train_bundle(
                    history,
                    target,
                    config=config,
                    seed=seed,
                    device=device,
                    tell=tell,
                    checkpoints=checkpoints,
                    every_s=every,
                    log=log,
                    ranks=ranks,
                    parent=old,
                    choose=choose_shares,
                )
        except WarmStartError as error:
            raise typer.BadParameter(str(error), param_hint="--from") from error
        except CheckpointError as error:
            raise typer.BadParameter(str(error), param_hint="--checkpoints") from error
    if not ranks.leads:
        return
    if plot is not None and log is not None:
        write_plot([log], plot)
    if as_json:
        print_json(msgspec.to_builtins(manifest) | {"path": str(target)})
        return
    print_text(lines(manifest.metrics))
    for note in manifest.notes:
        say(note)
    shares = msgspec.structs.asdict(manifest.config.retrieval.shares)
    say("shares of lists: " + ", ".join(f"{name} {share:g}" for name, share in shares.items()))
    say(f"bundle {manifest.generation} of {manifest.items:,} items in {manifest.categories:,} categories is in {target}")


def _configured(parent: Path | None, asked: Mapping[str, Any]) -> "tuple[Bundle | None, Config]":
    """The parent bundle, if any, and the configuration: the parent's or the default one, with the given options."""
    from models.bundle import load
    from models.config import Config
    from models.errors import BundleError, WarmStartError
    from models.training.warm_start import config_for

    if parent is None:
        return None, Config().replace(**asked)
    try:
        bundle = load(parent)
        return bundle, config_for(bundle, asked)
    except (BundleError, WarmStartError) as error:
        raise typer.BadParameter(str(error), param_hint="--from") from error


def _untold(done: int, total: int) -> None:
    """Show nothing: of several processes only one shows progress."""


def plot_logs(
    logs: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Tables that `everlong train --log` wrote.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The plot (SVG).")],
) -> None:
    """Plot the loss of one or several trainings from the tables of their steps."""
    from infra.training.plot import write_plot

    say(f"the loss is plotted in {write_plot(logs, out)}")
