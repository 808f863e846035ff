#!/usr/bin/env python3
"""rabbitmqadmin, version 1 or 2, scripted against both brokers; exit codes and outputs compared.

The commands are lines of admin_v1.commands and admin_v2.commands. Tables are compared column by column, so that
a difference (and the reason for it) names a column; JSON as in answers.py; other output as text.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import answers
import brokers
import report
import world

HERE = Path(__file__).parent
COMMAND_SECS = 60
# Columns that name a row, the first of which there are.
NAMING = ("name vhost source destination destination_type properties_key user consumer_tag component protocol key "
          "number limit value").split()
# Columns whose values are each broker's own: measurements, hashes, ports of clients.
OWN = re.compile(r"password_hash|.*(memory|mem_|_used|_total|_free|reductions|_oct|_cnt|_pend|peer_port|port"
                 r"|timestamp|uptime|idle_since|connected_at|run_queue|gc_|proc|rate|utilisation|hash|backing_queue|garbage|disk"
                 r"|io_|pid|percentage|applications|version|sockets|context_switches|contexts|config_files|log_files"
                 r"|db_dir|metrics_gc|cluster_links|net_ticktime|os_|exchange_types|enabled_plugins).*", re.I)
TEXT_MASKS = [(r"\b\d{13}\b", "@time"), (r"\b[\w+/]{48}\b", "@hash"),
              (r"~[\w-]{6}([\w-]{16})?(?![\w-])", "~@hash")]      # of a binding's arguments, each broker's own


def words(line):
    """Parts at spaces; a part that begins with a quotation mark goes on to the next one."""
    return [word[1:-1] if word.startswith('"') else word for word in re.findall(r'"[^"]*"(?=\s|$)|\S+', line)]


def table(text, version):
    """The rows of a table as dicts, or None if it is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    if version == 1:
        if len(lines) < 1 or "\t" not in lines[0]:
            return None
        rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    else:
        if not any(re.fullmatch(r"\|[-|: ]+\|", line) for line in lines):
            return None
        rows = [[cell.strip() for cell in line.strip()[1:-1].split(" | ")] for line in lines
                if line.startswith("|") and not re.fullmatch(r"\|[-|: ]+\|", line)]
        if rows and len(rows) > 1 and len([cell for cell in rows[0] if cell]) == 1 != len(rows[1]):
            rows = rows[1:]                      # a title above the heads of the columns
    heads, *rows = rows
    if heads[:2] == ["key", "value"]:
        return [{row[0]: row[1] for row in rows if len(row) > 1}]
    return [dict(zip(heads, row + [""] * (len(heads) - len(row)), strict=False)) for row in rows]


def row_name(row):
    return tuple(plain(row[key]) for key in NAMING if key in row) or tuple(row.values())


def compare_tables(result, name, theirs, ours):
    missing = {head for row in theirs for head in row} - {head for row in ours for head in row}
    for head in sorted(missing):
        if any(row.get(head) for row in theirs):
            result.differ(name, [row.get(head) for row in theirs][:10], None, f"column {head}")
    left, right = by_name(theirs), by_name(ours)
    seen = set()
    for row in left.keys() | right.keys():
        one, other = left.get(row, []), right.get(row, [])
        for their_row in one[len(other):]:
            result.differ(name, their_row, None, f"row {'/'.join(row)} missing")
        for our_row in other[len(one):]:
            result.differ(name, None, our_row, f"row {'/'.join(row)} only here")
        for their_row, our_row in zip(one, other, strict=False):
            for head, value in their_row.items():
                if head in our_row and not OWN.fullmatch(head) and plain(value) != plain(our_row[head]) and head not in seen:
                    seen.add(head)
                    result.differ(name, f"{'/'.join(row)}: {value}", our_row[head], f"column {head}")


def by_name(rows):
    """Rows by their names, in an order that both brokers share where several have the same; one alone needs no name."""
    if len(rows) == 1 and not any(key in rows[0] for key in NAMING):
        return {(): rows}
    named = {}
    for row in rows:
        named.setdefault(row_name(row), []).append(row)
    for same in named.values():
        same.sort(key=lambda row: [plain(value) for head, value in row.items() if not OWN.fullmatch(head)])
    return named


def plain(cell):
    """A cell without what is only a way to write it: nothing, or the order of an object's keys."""
    if cell in (None, "{}", "[]", "N/A"):
        return ""
    if cell.startswith("{"):
        try:
            return json.dumps(json.loads(cell), sort_keys=True)
        except ValueError:
            pass
    return cell


class Admin:
    def __init__(self, broker, program, version, folder):
        self.asked = answers.Asked(broker)
        self.asked.masks += TEXT_MASKS + [(re.escape(folder), "@folder")]
        self.broker, self.program, self.version, self.folder = broker, program, version, folder
        self.places = {"{tmp}": folder, "{node}": broker.node, "{amqp}": str(broker.amqp)}
        names = {connection["user"]: connection["name"] for connection in broker.api.get("/api/connections").json()}
        self.lonely = names["admin"]

    def run(self, line):
        """Exit code and what was printed, the broker's own names replaced."""
        arguments = words(line)
        for place, value in self.places.items():
            arguments = [word.replace(place, value) for word in arguments]
        arguments = [word.replace("{lonely}", self.lonely) for word in arguments]
        if arguments[0] == "show-file":
            path = Path(arguments[1])
            return 0, self.asked.mask(path.read_text(errors="replace") if path.exists() else "no such file")
        if self.version == 1:
            output = [] if "-f" in arguments else ["-f", "tsv"]
            command = [sys.executable, self.program, "-P", str(self.broker.http), *output, *arguments]
        else:
            command = [self.program, "-P", str(self.broker.http), "--table-style", "markdown", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECS, input="from stdin")
        text = run.stdout + re.sub(r"(?s)\s*backtrace:.*", "", run.stderr)
        return run.returncode, self.asked.mask(text)


def compare(result, version, line, theirs, ours):
    result.calls += 1
    (code, text), (our_code, our_text) = theirs, ours
    if code != our_code:
        result.differ(line, f"exit {code}\n{text}", f"exit {our_code}\n{our_text}", "exit code")
        return
    try:
        pair = json.loads(text), json.loads(our_text)
    except ValueError:
        pair = None
    if pair:
        seen = set()
        for path, what, one, other in answers.differences(*pair):
            if (path, what) not in seen:
                seen.add((path, what))
                result.differ(line, one, other, f"{what} {path}")
        return
    tables = table(text, version), table(our_text, version)
    if all(tables):
        compare_tables(result, line, *tables)
    elif normal(text) != normal(our_text):
        result.differ(line, text, our_text, "output")


def normal(text):
    return sorted(" ".join(line.split()) for line in text.splitlines() if line.strip(" -+=|"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    parser.add_argument("--version", type=int, choices=(1, 2), required=True)
    parser.add_argument("--program", required=True, help="rabbitmqadmin")
    parser.add_argument("--only", default="", help="a regular expression: commands to compare")
    arguments = parser.parse_args()
    lines = [line for line in (HERE / f"admin_v{arguments.version}.commands").read_text().splitlines()
             if line and not line.startswith("#")]
    outcomes = []
    for broker in (brokers.rabbitmq(arguments), brokers.garenne(arguments)):
        with broker, tempfile.TemporaryDirectory() as folder:
            world.populate(broker.api)
            world.fill(broker.host, broker.amqp)
            with world.Clients(broker.host, broker.amqp, busy=False):
                world.await_statistics(broker.api, busy=False)
                admin = Admin(broker, arguments.program, arguments.version, folder)
                outcomes.append([admin.run(line) for line in lines])
    result = report.Report(f"admin_v{arguments.version}")
    seen = {}
    for line, theirs, ours in zip(lines, *outcomes, strict=True):
        seen[line] = seen.get(line, 0) + 1
        name = line if seen[line] == 1 else f"{line} #{seen[line]}"
        if re.search(arguments.only, line):
            compare(result, arguments.version, name, theirs, ours)
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()
