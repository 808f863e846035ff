#!/usr/bin/env python3
"""Replays calls.json, what monitoring tools and Terraform ask for: statuses, fields and their types.

On a broker with nothing to do, and on a busy one, where `busy_fields` must be there too. A field is a path:
`a.b`, `[].a` (every item of a list that is not empty), `[name=x].a` (that item), "" the answer itself. A type is
text, number, boolean, list, object, null or `empty list`, several with |; `text=x` says which text; a ? at the end
allows the field to be missing. With --garenne rabbitmq the list itself is put to the test.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import answers
import brokers
import report
import world

CALLS = Path(__file__).with_name("calls.json")
MISSING = object()


def found(value, path):
    """The values at a path; MISSING stands for one that is not there."""
    if not path:
        return [value]
    head, rest = re.fullmatch(r"(\[[^\]]*\]|[^.\[]+)\.?(.*)", path).groups()
    if head.startswith("["):
        if not isinstance(value, list):
            return [MISSING]
        if "=" in head:
            key, wanted = head[1:-1].split("=")
            value = [item for item in value if item.get(key) == wanted]
        return [each for item in value for each in found(item, rest)] or [MISSING]
    if not isinstance(value, dict) or head not in value:
        return [MISSING]
    return found(value[head], rest)


def fits(value, types):
    if value is MISSING:
        return types.endswith("?")
    for one in types.rstrip("?").split("|"):
        name, _, wanted = one.partition("=")
        if name == "empty list" and value == [] or answers.kind(value) == name and (not wanted or value == wanted):
            return True
    return False


def check(answer, call, busy):
    """What is wrong with an answer, as texts."""
    if str(answer.status) not in str(call["status"]).split("|"):
        return [f"status {answer.status}, not {call['status']}: {answer.text()[:300]}"]
    if answer.status == 404 and call["status"] == "200|404":
        return []
    wanted = call.get("fields", {}) | (call.get("busy_fields", {}) if busy else {})
    if not wanted:
        return []
    body = answer.json_or_none()
    if body is None:
        return [f"not JSON: {answer.text()[:300]}"]
    wrong = []
    for path, types in wanted.items():
        bad = [value for value in found(body, path) if not fits(value, types)]
        if bad:
            shown = "missing" if bad[0] is MISSING else json.dumps(bad[0])[:200]
            wrong.append(f"{path or 'the answer'} is {shown}, not {types}")
    return wrong


def replay(result, broker, busy):
    places = {"{node}": broker.node, "{amqp}": str(broker.amqp)}
    for tool in json.loads(CALLS.read_text()):
        for call in tool["calls"]:
            path = call["path"]
            for place, value in places.items():
                path = path.replace(place, value)
            result.calls += 1
            answer = broker.api.call(call["method"], path, call.get("body"))
            for wrong in check(answer, call, busy):
                when = "busy" if busy else "idle"
                result.differ(f"{tool['tool']}: {call['method']} {call['path']}", f"needs {call['status']}", wrong, when)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    brokers.add_arguments(parser)
    report.add_arguments(parser)
    arguments = parser.parse_args()
    result = report.Report("replay")
    with brokers.garenne(arguments) as broker:
        world.populate(broker.api)
        replay(result, broker, busy=False)
    with brokers.garenne(arguments) as broker:
        world.populate(broker.api)
        world.fill(broker.host, broker.amqp)
        with world.Clients(broker.host, broker.amqp):
            world.await_statistics(broker.api)
            replay(result, broker, busy=True)
    sys.exit(result.finish(arguments.output))


if __name__ == "__main__":
    main()
