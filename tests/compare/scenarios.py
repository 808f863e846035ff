#!/usr/bin/env python3
"""Plays scenarios on a broker, many at once, and writes down every message with all that it carries.

    scenarios.py --uri amqp://guest:guest@127.0.0.1:5673/ --json rabbitmq.json
    scenarios.py --uri amqp://guest:guest@127.0.0.1:5672/ --json garenne.json \\
                 --beside rabbitmq.json --explain scenarios_explained.toml

With --beside the differences from an earlier round are printed as a table, and the exit code is 1 if
one of them has no reason.
"""

import argparse
import concurrent.futures
import fnmatch
import importlib
import json
import os
import pathlib
import sys
import time
import tomllib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import table
from provoke import split_uri
from stage import SCENARIOS, Stage

SUBJECTS = ["dead_letters", "dead_letter_cycles", "death_headers", "time_to_live", "limits", "priorities",
            "single_active_consumer", "consumers", "reply_to", "copies", "properties", "routing",
            "confirms", "refusals", "quorum"]


def main():
    options = read_options()
    for subject in SUBJECTS:
        importlib.import_module(f"scenarios.{subject}")
    chosen = [one for one in SCENARIOS.values() if is_chosen(one, options.only)]
    if options.list:
        for one in chosen:
            print(f"{one.group:22} {one.name:45} {one.told}")
        return 0
    began = time.monotonic()
    results = play_all(chosen, options)
    stumbled = [name for name, result in results.items()
                if any(line.startswith("BENCH") for line in result["outcome"])]
    print(f"{len(results)} scenarios in {time.monotonic() - began:.0f} s, {len(stumbled)} with trouble "
          f"at the bench: {' '.join(stumbled)}", file=sys.stderr)
    if options.json:
        write_json(options.json, options.uri, results, merge=bool(options.only))
    return lay_beside(results, options) if options.beside else 0


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--uri", default="amqp://guest:guest@127.0.0.1:5672/")
    parser.add_argument("--json", help="write the outcomes here")
    parser.add_argument("--only", action="append", help="a name, a subject or a pattern; may repeat")
    parser.add_argument("--jobs", type=int, default=8, help="how many scenarios play at once")
    parser.add_argument("--beside", help="json of an earlier round: print the differences from it")
    parser.add_argument("--explain", help="toml: scenario = reason for a meant difference")
    parser.add_argument("--list", action="store_true", help="only list the scenarios")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


def is_chosen(one, only):
    return not only or any(fnmatch.fnmatch(one.name, pattern) or one.group == pattern
                           for pattern in only)


def play_all(chosen, options):
    """The results, in the order of the files whatever ended first."""
    where, token = split_uri(options.uri), f"{time.time_ns() // 10**6 % 2**24:06x}"

    def play(one):
        began = time.monotonic()
        outcome = Stage(*where, name=one.name, token=token).play(one)
        return one, outcome, round(time.monotonic() - began, 2)

    results = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as stages:
        for one, outcome, seconds in stages.map(play, chosen):
            results[one.name] = {"group": one.group, "sent": one.told, "outcome": outcome,
                                 "seconds": seconds}
            if not options.quiet:
                print("\n    < ".join([f"{one.name}  ({seconds} s)  {one.told}"] + outcome))
    return results


def write_json(path, uri, results, merge):
    file = pathlib.Path(path)
    if merge and file.exists():        # --only refreshes its part of an older round
        older = table.read_round(file)
        results = {name: results.get(name) or older[name] for name in SCENARIOS
                   if name in results or name in older}
    file.write_text(json.dumps({"uri": uri, "provocations": results}, indent=1, ensure_ascii=False))


def lay_beside(results, options):
    older = {name: told for name, told in table.read_round(options.beside).items()
             if name in results or not options.only}
    reasons = tomllib.loads(pathlib.Path(options.explain).read_text()) if options.explain else {}
    rows, _ = table.compare(older, results, reasons)
    table.print_table(rows, ["RabbitMQ", "Garenne"], only_differences=True)
    unexplained = [row["name"] for row in rows if row["verdict"] == "DIFFERENT"]
    for name in unexplained:
        print(f"different without a reason: {name}", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
