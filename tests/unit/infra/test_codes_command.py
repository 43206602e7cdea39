"""`everlong codes`: what it shows of a topic, how it asks, and how it ends."""

import json

import msgspec
import pytest
from typer.testing import CliRunner

from infra.cli import codes as command
from infra.cli import make_app
from stream.codes import codes_client as codes_client
from stream.codes.codebook_registry import CodebookRegistry, key_of
from stream.codes.codes_client import CodesClient
from stream.errors import NoAnswerError
from stream.kafka.messages import CodesAnswer, CodesRequest, DriftReport
from tests.unit.stream.codes.test_codebook_registry import BUNDLE, OWN, codebook, current, generation, told

NEW = codebook(1).generation


class Counter(CodesClient):
    """A client whose manager answers at once, with what a test lays out."""

    def __init__(self, states, registry=None):
        self.registry, self.states, self.asked = registry or CodebookRegistry(), states, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def request(self, what, how, to, now_ms):
        self.asked.append((what, how, to))
        return CodesRequest(id="r", what=what, how=how, to=to, asked_ms=now_ms)

    def answers(self, request, wait_s):
        if not self.states:
            raise NoAnswerError("no catalogue worker answered")
        for done, state in enumerate(self.states):
            yield CodesAnswer(id="r", state=state, detail="so it is", at_ms=1, codebook=NEW, done=done, total=9)


def everlong(monkeypatch, client, *arguments):
    monkeypatch.setattr(command, "_client", lambda: client)
    return CliRunner().invoke(make_app(), ["codes", *arguments])


@pytest.mark.parametrize(("states", "code"), [(["working", "working", "done"], 0), (["refused"], 3), (["working", "failed"], 4), ([], 5)])
def test_how_it_went_is_the_exit_code(monkeypatch, states, code):
    client = Counter(states)
    done = everlong(monkeypatch, client, "refresh", "--how", "warm", "--json")
    assert done.exit_code == code
    assert json.loads(done.stdout)["state"] == (states[-1] if states else "no_answer")
    assert client.asked == [("refresh", "warm", "")]


def test_what_is_asked_for(monkeypatch):
    client = Counter(["done"])
    for arguments in (["refresh"], ["rollback"], ["rollback", "--to", NEW]):
        assert everlong(monkeypatch, client, *arguments).exit_code == 0
    assert client.asked == [("refresh", "auto", ""), ("rollback", "auto", ""), ("rollback", "auto", NEW)]
    assert everlong(monkeypatch, client, "refresh", "--how", "hot").exit_code == 2


def test_status_of_nothing(monkeypatch):
    done = everlong(monkeypatch, Counter([]), "status")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no catalogue worker has measured codes yet" in done.stderr


def test_status_says_which_is_in_use_and_how_far_it_drifted(monkeypatch):
    report = DriftReport(
        bundle=BUNDLE,
        own=OWN,
        codebook=NEW,
        measured_ms=12,
        items=7,
        figures={"overlap": 0.75},
        action="warm",
        reason="vectors moved",
        automatic=False,
    )
    records = generation(1, ends={0: 3}), current(1, 0, 15), generation(2), report
    done = everlong(monkeypatch, Counter([], told(*records)), "status", "--json")
    [bundle] = json.loads(done.stdout)["bundles"]
    assert (bundle["bundle"], bundle["current"], bundle["previous"], bundle["why"]) == (BUNDLE, NEW, OWN, "refresh")
    assert [(g["codebook"], g["state"]) for g in bundle["codebooks"]] == [
        (OWN, "complete"),
        (NEW, "current"),
        (codebook(2).generation, "unfinished"),
    ]
    assert (bundle["drift"]["figures"], bundle["drift"]["action"], bundle["drift"]["automatic"]) == ({"overlap": 0.75}, "warm", False)
    shown = everlong(monkeypatch, Counter([], told(*records)), "status").stdout
    assert "vectors moved" in shown
    assert "overlap 0.75" in shown
    assert "unfinished" in shown


def test_before_any_refresh_the_own_generation_is_in_use(monkeypatch):
    report = DriftReport(bundle=BUNDLE, own=OWN, codebook=OWN, measured_ms=1, items=7, figures={}, action="none", reason="", automatic=True)
    done = everlong(monkeypatch, Counter([], told(report)), "status", "--json")
    [bundle] = json.loads(done.stdout)["bundles"]
    assert (bundle["current"], bundle["why"]) == (OWN, "bundle")
    assert [(g["codebook"], g["state"], g["how"]) for g in bundle["codebooks"]] == [(OWN, "current", "bundle")]


def test_a_client_gives_every_new_answer_and_gives_up_in_time(monkeypatch):
    monkeypatch.setattr(codes_client, "LOOK_S", 0.001)
    client = CodesClient.__new__(CodesClient)
    client.registry = CodebookRegistry()
    request = CodesRequest(id="mine", what="refresh", asked_ms=1)

    def say(name, state, done=0):
        answer = CodesAnswer(id=name, state=state, detail="", at_ms=1, done=done)
        client.registry.apply_record(key_of(answer), msgspec.json.encode(answer))

    say("another", "done")
    with pytest.raises(NoAnswerError, match="no catalogue worker answered for 0 s"):
        next(client.answers(request, 0.01))
    say("mine", "working", 1)
    answers = client.answers(request, 0.05)
    assert next(answers).done == 1
    say("mine", "working", 2)
    assert next(answers).done == 2
    with pytest.raises(NoAnswerError, match="began and then sent nothing"):
        next(answers)
    say("mine", "done")
    assert [answer.state for answer in client.answers(request, 0.05)] == ["done"]
