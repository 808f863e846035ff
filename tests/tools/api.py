"""One HTTP call to a broker's management API: what was sent, and all of what came back."""

import base64
import http.client
import json
from dataclasses import dataclass, field
from urllib.parse import quote

TIMEOUT_SECS = 30


@dataclass
class Answer:
    status: int
    reason: str
    headers: dict
    body: bytes
    sent: str = ""

    def json(self):
        return json.loads(self.body)

    def json_or_none(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def text(self):
        return self.body.decode("utf-8", "replace")


@dataclass
class Api:
    """A broker's HTTP port, and who asks."""

    host: str
    port: int
    user: str | None = "guest"
    password: str = "guest"
    headers: dict = field(default_factory=dict)

    def as_user(self, user, password=""):
        return Api(self.host, self.port, user, password, dict(self.headers))

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def call(self, method, path, body=None, raw=None, headers=None):
        """`body` is sent as JSON, `raw` as it is. `path` is used as given, so it must be encoded."""
        sent = dict(self.headers)
        if self.user is not None:
            token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            sent["Authorization"] = f"Basic {token}"
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        sent.update(headers or {})
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECS)
        try:
            connection.request(method, path, body=data, headers=sent)
            response = connection.getresponse()
            content = response.read()
            return Answer(response.status, response.reason, dict(response.getheaders()), content,
                          f"{method} {path}")
        finally:
            connection.close()

    def get(self, path):
        return self.call("GET", path)

    def must(self, method, path, body=None, *fine):
        """Calls and insists on success (any 2xx, or one of `fine`)."""
        answer = self.call(method, path, body)
        if not (200 <= answer.status < 300 or answer.status in fine):
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.text()[:300]}")
        return answer


def part(name):
    """A name as one part of a path."""
    return quote(name, safe="")
