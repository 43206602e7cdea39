"""Every message has a bounded size, and a producer puts aside what the broker does not take."""

import msgspec
import pytest

from features.events import MAX_EVENT_BYTES
from stream.kafka.messages import MOST_BYTES, MOST_CATEGORIES, CandidateSet, DeadLetter, PublishedCandidate, RefreshRequest, fitting, split
from stream.pipelines.refresh import coalesce

LONGEST = "\U0001f45f" * 128


def test_a_request_is_split_and_put_together_again():
    request = RefreshRequest(
        user_id=LONGEST, categories=[f"{LONGEST[:-6]}{n:06d}" for n in range(1700)], log_position=(1, 2, 3, 4), event_ts=5, sent_ms=6
    )
    parts = list(split(request))
    assert [len(part.categories) for part in parts] == [MOST_CATEGORIES, MOST_CATEGORIES, MOST_CATEGORIES, 200]
    assert all(len(msgspec.json.encode(part)) < MOST_BYTES / 3 for part in parts)
    assert coalesce(parts) == [request]
    assert list(split(msgspec.structs.replace(request, categories=[]))) == [msgspec.structs.replace(request, categories=[])]


@pytest.mark.parametrize("id_", ["i", '"' * 128, LONGEST])
def test_the_longest_candidate_set_is_cut_to_what_a_message_holds(id_):
    candidates = [PublishedCandidate(id_, -1.2345678901234567e-300, id_, "category_popular") for _ in range(1000)]
    kept = fitting(candidates)
    whole = CandidateSet(
        user_id=LONGEST, candidates=kept, level="category_popular", generation="g" * 64, event_ts=2**52, published_ts=2**52
    )
    assert len(msgspec.json.encode(whole)) < MOST_BYTES
    assert kept == candidates[: len(kept)]
    assert len(kept) == (1000 if id_ != LONGEST else len(kept))
    assert len(kept) > 700


def test_the_longest_dead_letter_fits():
    longest = b"\xff" * MAX_EVENT_BYTES
    numbers = {"partition": 2**31 - 1, "offset": 2**63 - 1, "ts": 2**63 - 1, "cut_bytes": 2**31 - 1}
    letter = DeadLetter(topic="t" * 249, reason="control_character", detail="\0" * 500, key=longest, value=longest, **numbers)
    assert len(msgspec.json.encode(letter)) < MOST_BYTES / 4
