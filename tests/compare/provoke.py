#!/usr/bin/env python3
"""Provokes a broker in every way we could think of and writes down what it answers.

    provoke.py --uri amqp://guest:guest@127.0.0.1:5673/ --setup-cmd 'rabbitmqctl -n rabbit@localhost'

One round talks to one broker; table.py lays two rounds side by side.
"""

import argparse
import fnmatch
import importlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bench import PROVOCATIONS, SETUP, TEARDOWN, Bench

ROOMS = ["plain", "handshake", "frames", "channels", "exchanges", "queues", "queue_arguments",
         "publishing", "consuming", "settling", "confirms_and_tx", "access"]
TROUBLE_MAX = 5     # a broker that cannot even be cleaned this often is down; do not wait for each

for _room in ROOMS:
    importlib.import_module(f"provocations.{_room}")


def main():
    options = read_options()
    chosen = [p for p in PROVOCATIONS.values() if is_chosen(p, options)]
    if options.list:
        for one in chosen:
            print(f"{one.group:16} {one.name:45} {one.sent}")
        return 0
    if any(one.setup for one in chosen) and options.setup_cmd and not options.keep_setup:
        run_setup(options.setup_cmd, TEARDOWN, quiet=True)
        run_setup(options.setup_cmd, SETUP)
    where = Bench(*split_uri(options.uri))
    results, troubled = {}, 0
    for one in chosen:
        if troubled >= TROUBLE_MAX:
            print(f"the broker has not been usable {TROUBLE_MAX} times in a row: stopping before "
                  f"{one.name}", file=sys.stderr)
            break
        if one.setup and not options.setup_cmd:
            minutes, seconds = ["skipped: needs --setup-cmd"], 0
        else:
            began = time.monotonic()
            minutes = where.run(one)
            seconds = round(time.monotonic() - began, 2)
        troubled = troubled + 1 if any(m.startswith("BENCH before") for m in minutes) else 0
        results[one.name] = {"group": one.group, "sent": one.sent, "outcome": minutes,
                             "seconds": seconds, "slow": one.slow}
        if not options.quiet:
            print(f"{one.name}  ({seconds} s)\n    {one.sent}")
            for line in minutes:
                print(f"    < {line}")
    if any(one.setup for one in chosen) and options.setup_cmd and not options.keep_setup:
        run_setup(options.setup_cmd, TEARDOWN)
    if options.json:
        results = write_json(options.json, options.uri, results, merge=bool(options.only))
    if options.markdown:
        write_markdown(options.markdown, options.uri, results)
    print(f"{len(results)} provocations, "
          f"{sum(any(l.startswith('BENCH') for l in r['outcome']) for r in results.values())} "
          f"with trouble at the bench, "
          f"{sum(r['outcome'][:1] == ['skipped: needs --setup-cmd'] for r in results.values())} skipped",
          file=sys.stderr)
    return 0


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--uri", default="amqp://guest:guest@127.0.0.1:5672/")
    parser.add_argument("--json", help="write the outcomes here")
    parser.add_argument("--markdown", help="write the outcomes here as a table to read")
    parser.add_argument("--only", action="append", help="a name, a group or a pattern; may repeat")
    parser.add_argument("--fast", action="store_true", help="leave out the slow ones")
    parser.add_argument("--setup-cmd", help="command that takes rabbitmqctl's verbs (add_user …); "
                        "without it the provocations that need users and vhosts are skipped")
    parser.add_argument("--keep-setup", action="store_true",
                        help="users and vhosts are there already: neither make nor delete them")
    parser.add_argument("--list", action="store_true", help="only list the provocations")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


def is_chosen(one, options):
    if options.fast and one.slow:
        return False
    return not options.only or any(fnmatch.fnmatch(one.name, pattern) or one.group == pattern
                                   for pattern in options.only)


def split_uri(uri):
    parts = urllib.parse.urlsplit(uri)
    vhost = urllib.parse.unquote(parts.path[1:]) or "/"
    return (parts.hostname, parts.port or 5672, urllib.parse.unquote(parts.username or "guest"),
            urllib.parse.unquote(parts.password or "guest"), vhost)


def run_setup(command, lines, quiet=False):
    for line in lines:
        words = shlex.split(command) + line.split(" ")
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode and not quiet:
            print(f"set up: {' '.join(words)}: {done.stderr.strip()[:200]}", file=sys.stderr)


def write_json(path, uri, results, merge):
    file = pathlib.Path(path)
    if merge and file.exists():        # --only refreshes its part of an older round
        older = json.loads(file.read_text())["provocations"]
        results = {name: results.get(name) or older[name] for name in PROVOCATIONS
                   if name in results or name in older}
    file.write_text(json.dumps({"uri": uri, "provocations": results}, indent=1, ensure_ascii=False))
    return results


def write_markdown(path, uri, results):
    lines = [f"{len(results)} provocations against {uri}.", "",
             "| name | what was sent | exact answer |", "|---|---|---|"]
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")
    for name, result in results.items():
        answer = "<br>".join(cell(line) for line in result["outcome"])
        lines.append(f"| {name} | {cell(result['sent'])} | {answer} |")
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
