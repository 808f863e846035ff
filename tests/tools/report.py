"""Differences, those that are meant (explained.toml), and how a run of a tool ends."""

import fnmatch
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SHOWN_CHARACTERS = 1500


@dataclass
class Report:
    """What a tool found: calls it made, and differences by name."""

    tool: str
    calls: int = 0
    differences: list = field(default_factory=list)        # (name, what, RabbitMQ's, Garenne's)

    def compare(self, name, rabbitmq, garenne, what=""):
        self.calls += 1
        if rabbitmq != garenne:
            self.differ(name, rabbitmq, garenne, what)

    def differ(self, name, rabbitmq, garenne, what=""):
        self.differences.append((name, what, rabbitmq, garenne))

    def finish(self, output=None):
        """Prints counts, writes the differences nobody explained. Returns the exit code."""
        reasons = tomllib.loads((HERE / "explained.toml").read_text()).get(self.tool, {})
        needed, open_ones = set(), []
        for difference in self.differences:
            name = f"{difference[0]} {difference[1]}".strip()
            because = [pattern for pattern in reasons
                       if fnmatch.fnmatchcase(difference[0], pattern) or fnmatch.fnmatchcase(name, pattern)]
            needed.update(because)
            if not because:
                open_ones.append(difference)
        explained = len(self.differences) - len(open_ones)
        print(f"{self.tool}: {self.calls} calls, {explained} differences explained, {len(open_ones)} unexplained",
              flush=True)
        for pattern in reasons:
            if pattern not in needed:
                print(f"  no longer needed in explained.toml: {pattern!r}")
        text = "".join(self.show(*difference) for difference in open_ones)
        if output:
            Path(output).mkdir(parents=True, exist_ok=True)
            (Path(output) / f"{self.tool}.md").write_text(
                f"# {self.tool}: {len(open_ones)} unexplained of {self.calls} calls\n\n{text}")
            (Path(output) / f"{self.tool}.json").write_text(json.dumps(open_ones, indent=1, default=str))
        for name, what, *_ in open_ones[:20]:
            print(f"  {name} {what}")
        if len(open_ones) > 20:
            print(f"  ... and {len(open_ones) - 20} more")
        return 1 if open_ones else 0

    @staticmethod
    def show(name, what, rabbitmq, garenne):
        def block(value):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
            return text[:SHOWN_CHARACTERS]
        return f"## {name} {what}\n- RabbitMQ: {block(rabbitmq)}\n- Garenne: {block(garenne)}\n\n"


def add_arguments(parser):
    parser.add_argument("--output", metavar="FOLDER", help="where the unexplained differences are written")
