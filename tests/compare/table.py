#!/usr/bin/env python3
"""Lays two rounds of provoke.py side by side as a markdown table.

    table.py rabbitmq.json garenne.json --explain explained.toml > compatibility.md

Exit code 1 if a difference has no line in explained.toml. Its lines are `name = "reason"`; a name may
be a pattern (`"table_*" = "…"`). A reason for what is no longer different is reported on stderr.
"""

import argparse
import fnmatch
import json
import re
import pathlib
import sys
import tomllib


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("first", help="the round with RabbitMQ")
    parser.add_argument("second", help="the round with Garenne")
    parser.add_argument("--explain", help="toml: provocation = reason")
    parser.add_argument("--names", default="RabbitMQ,Garenne", help="headings of the two columns")
    parser.add_argument("--differences", action="store_true", help="leave out the rows that agree")
    options = parser.parse_args()

    first, second = read_round(options.first), read_round(options.second)
    reasons = tomllib.loads(pathlib.Path(options.explain).read_text()) if options.explain else {}
    rows, used = compare(first, second, reasons)
    print_table(rows, options.names.split(","), options.differences)
    for name in reasons.keys() - used:
        print(f"explained, but not different: {name}", file=sys.stderr)
    unexplained = [row["name"] for row in rows if row["verdict"] == "DIFFERENT"]
    for name in unexplained:
        print(f"different without a reason: {name}", file=sys.stderr)
    return 1 if unexplained else 0


def read_round(path):
    return json.loads(pathlib.Path(path).read_text())["provocations"]


def compare(first, second, reasons):
    """The rows, and which reasons were needed. Headers under `[newer]` are those of later versions: they are
    one reason together, where nothing else differs."""
    rows, used = [], set()
    newer = reasons.pop("newer", {})
    for name in list(first) + [name for name in second if name not in first]:
        left, right = (outcome(side, name) for side in (first, second))
        row = {"name": name, "left": left, "right": right,
               "sent": (first.get(name) or second.get(name))["sent"]}
        if not ran(left) or not ran(right):
            row["verdict"] = "not compared"
        elif left == right:
            row["verdict"] = "same"
        elif newer and left == [without_headers(line, newer) for line in right]:
            seen = [why for name, why in newer.items() if any(f"{name}" in line for line in right)]
            row["verdict"] = f"explained: {'; '.join(seen)}"
        elif pattern := next((p for p in reasons if fnmatch.fnmatch(name, p)), None):
            used.add(pattern)
            row["verdict"] = f"explained: {reasons[pattern]}"
        else:
            row["verdict"] = "DIFFERENT"
        rows.append(row)
    return rows, used


def without_headers(line, names):
    """A line without these headers, whose values are a number or a text."""
    for name in names:
        line = re.sub(rf"(, )?{re.escape(name)}[a-z]*: (l:\d+|'[^']*')", "", line)
    return line.replace("{, ", "{")


def outcome(side, name):
    return side[name]["outcome"] if name in side else ["not run"]


def ran(lines):
    return lines != ["not run"] and not (lines and lines[0].startswith("skipped"))


def print_table(rows, names, only_differences):
    count = lambda start: sum(row["verdict"].startswith(start) for row in rows)
    print(f"{len(rows)} provocations: {count('same')} the same, {count('explained')} explained "
          f"differences, {count('DIFFERENT')} unexplained, {count('not compared')} not compared.\n")
    print(f"| provocation | {names[0]}'s answer | {names[1]}'s answer | same / explained |")
    print("|---|---|---|---|")
    for row in rows:
        if only_differences and row["verdict"] == "same":
            continue
        right = "〃" if row["verdict"] == "same" else cell(row["right"])
        print(f"| **{row['name']}**<br>{text(row['sent'])} | {cell(row['left'])} | {right} "
              f"| {text(row['verdict'])} |")


def cell(lines):
    return "<br>".join(text(line) for line in lines)


def text(line):
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("\n", " ")):
        line = line.replace(mark, shown)
    return line


if __name__ == "__main__":
    sys.exit(main())
