"""Draws what `tune` found: the gain, the settings with their evidence, the table of trials."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestro.cli.anatomy import finding_table
from moestro.cli.show_frontier import show_frontier
from moestro.cli.tuning import Tuned
from moestro.tune.result import Tried, TuneResult
from moestro.tune.statistics import Interval

_MOST_ROWS = 24
_MOST_SENTENCES = 12
_OUTCOMES = {
    "start": "start",
    "chosen": "chosen",
    "won": "won",
    "lost": "slower",
    "no-difference": "no gain",
    "excluded": "not tried",
    "not-reached": "no time",
}
_STYLES = {"chosen": "bold green", "won": "green", "excluded": "dim", "not-reached": "dim"}


def show_tune(found: Tuned, console: Console) -> None:
    """Reads well without colour and 80 columns wide."""
    console.print(_headline(found))
    console.print(_conditions(found))
    console.print()
    console.print(_settings(found))
    console.print()
    console.print(_trials(found.result.trials))
    for said in _not_run(found.result.trials):
        console.print(Text(said, style="dim"))
    if found.result.frontier is not None:
        console.print()
        show_frontier(found.result.frontier, console)
    for finding in found.findings:
        console.print()
        console.print(finding_table(finding))


def _headline(found: Tuned) -> Text:
    result = found.result
    name = found.work.scenario.name
    if result.gain is None:
        return Text("The starting settings could not be measured.", style="bold yellow")
    if result.settings == result.start:
        because = f"nothing served {name} faster"
        if not (result.complete and result.confirmed):
            because = f"nothing was shown to serve {name} faster in that time"
        return Text(f"The starting settings stay: {because}.", style="bold")
    sure = "" if result.confirmed else ", not confirmed"
    said = f"{result.gain.expected:.2f}× the requests of {name} ({_range(result.gain)}{sure})"
    return Text(said, style="bold green")


def _conditions(found: Tuned) -> Text:
    result = found.result
    work = found.work
    users = "1 user" if work.streams == 1 else f"{work.streams} users"
    ended = "" if result.complete else f", {result.stopped}"
    again = "" if not result.disturbed else f"; disturbed and run again: {result.disturbed}"
    return Text(
        f"{users}, prompts of {work.scenario.prompt_tokens:,} tokens, answers of "
        f"{work.scenario.output_tokens:,}; {_time(result.spent_seconds)}{ended}; one "
        f"measurement scatters by {result.noise:.1%}{again}"
    )


def _settings(found: Tuned) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    result = found.result
    said: set[str] = set()
    for reason in sorted(result.reasons, key=lambda one: not _moved(result, one.setting)):
        before = getattr(result.start, reason.setting, None)
        after = getattr(result.settings, reason.setting, None)
        change = _value(after) if before == after else f"{_value(before)} → {_value(after)}"
        style = "bold" if before != after else ""
        because = "with it" if reason.because in said else reason.because  # they moved together
        said.add(reason.because)
        table.add_row(Text(reason.setting, style=style), Text(change), Text(because))
    return table


def _moved(result: TuneResult, setting: str) -> bool:
    return getattr(result.start, setting, None) != getattr(result.settings, setting, None)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "as chosen" if value is None else str(value)


def _trials(trials: tuple[Tried, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("tried", "to the start", "pairs", "outcome"):
        table.add_column(name, justify="right" if name == "pairs" else "left")
    ran = [one for one in trials if one.outcome not in ("excluded", "not-reached")]
    ran.sort(key=lambda one: one.ratio.expected if one.ratio else 0.0, reverse=True)
    for one in ran[:_MOST_ROWS]:
        ratio = f"{one.ratio.expected:.2f}× ({_range(one.ratio)})" if one.ratio else "–"
        said = _OUTCOMES.get(one.outcome, one.outcome)
        style = _STYLES.get(one.outcome, "")
        pairs = str(one.pairs) if one.pairs else ""
        table.add_row(Text(one.label, style=style), ratio, pairs, Text(said, style=style))
    return table


def _not_run(trials: tuple[Tried, ...]) -> list[str]:
    """Why what failed failed, and why what was not tried was not, each reason once."""
    found = [f"{one.label}: {one.sentence}" for one in trials if one.outcome not in _OUTCOMES]
    left_out: dict[str, list[str]] = {}
    for one in trials:
        if one.outcome == "excluded":
            left_out.setdefault(one.sentence, []).append(one.label)
    found += [f"not tried: {', '.join(labels)} ({why})" for why, labels in left_out.items()]
    late = [one.label for one in trials if one.outcome == "not-reached"]
    if late:
        found.append(f"no time for: {', '.join(late)}")
    if len(found) > _MOST_SENTENCES:
        more = len(found) - _MOST_SENTENCES
        found[_MOST_SENTENCES:] = [f"and {more} more: --json has all of them"]
    ran = sum(one.outcome not in ("excluded", "not-reached") for one in trials)
    if ran > _MOST_ROWS:
        found.append(f"{ran - _MOST_ROWS} more ran: --json has them")
    return found


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _range(interval: Interval) -> str:
    return f"{interval.low:.2f}–{interval.high:.2f}"
