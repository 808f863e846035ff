"""Medians of all runs, laid side by side as a Markdown table with ratios and goals."""

import datetime
import os
import pathlib
import platform
import statistics


def medians(runs, name):
    """The median of a figure over the runs that have it."""
    values = [figures[name] for figures in runs if name in figures]
    return statistics.median(values) if values else None


def number(value):
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rows(scenario, results, brokers):
    """A line for each figure; a failure has a line of its own."""
    runs = {broker: results.get(broker, []) for broker in brokers}
    good = {broker: [r["figures"] for r in runs[broker] if "figures" in r] for broker in brokers}
    for at, figure in enumerate(scenario.figures):
        theirs, ours = (medians(good.get(broker, []), figure.name) for broker in ("RabbitMQ", "Garenne"))
        has_ratio = ours is not None and theirs and not figure.is_bare
        ratio = f"{ours / theirs:.3g}×" if has_ratio else "–"
        shares = " / ".join(number(medians(good[b], "share")) for b in brokers) if at == 0 else ""
        goals = ", ".join(judged(goal, ours, theirs, good.get("Garenne", [])) for goal in figure.goals)
        title = f"**{scenario.letter}** {scenario.title}" if at == 0 else ""
        yield [title, figure.title, number(theirs), number(ours), ratio, goals, shares]
    for broker in brokers:
        failures = [r["failed"] for r in runs[broker] if "failed" in r]
        if failures:
            yield [f"**{scenario.letter}**", f"{broker} FAILED {len(failures)} of {len(runs[broker])}",
                   failures[0].replace("|", "/"), "", "", "", ""]


def judged(goal, ours, theirs, runs):
    names = {name for figures in runs for name in figures}
    figures = {name: medians(runs, name) for name in names}
    met = None if ours is None else goal.is_met(ours, theirs, figures)
    return goal.text + {True: " ✓", False: " ✗", None: ""}[met]


def table(scenarios, results, brokers):
    head = ["", "", "RabbitMQ", "Garenne", "ratio", "goal", "our own share, %"]
    lines = [head, ["---", "---", "---:", "---:", "---:", "---", "---"]]
    for scenario in scenarios:
        lines += rows(scenario, results.get(scenario.letter, {}), brokers)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine():
    """What it ran on, in a line."""
    models = [line.split(":", 1)[1].strip() for line in
              pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    total_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    return (f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, "
            f"{total_kib / 2**20:.0f} GiB, Linux {platform.release()}")


def page(scenarios, results, brokers, versions, options):
    today = datetime.date.today().isoformat()
    return "\n".join([
        "# Side by side", "",
        f"{today}, {machine()}. {', '.join(versions)}. Medians of {options.runs} runs, "
        f"{options.seconds:g} s each, the brokers in turn, one at a time, each with an empty folder.", "",
        table(scenarios, results, brokers), "",
        "*Ratio* is Garenne's figure by RabbitMQ's. *Our own share* is what the load generator took of "
        "the processor time of both, RabbitMQ / Garenne.", ""])
