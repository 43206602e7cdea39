"""How an agent takes lists that wait together, and how a consumer is kept from spinning."""

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

import pytest
from aiokafka.protocol.fetch import FetchRequest

from stream.kafka.connection import IDLE_S, pace
from stream.workers.agents import POLICY, _grouped, _process


class Stream:
    """A stream that holds these events and then waits, or ends with an error."""

    def __init__(self, events, error=None):
        self._events, self._error, self.taken = events, error, 0

    def noack(self):
        return self

    async def events(self):
        for event in self._events:
            self.taken += 1
            yield event
        if self._error:
            raise self._error
        await asyncio.Event().wait()


async def groups(stream, most, number):
    """The first groups that an agent would work on; the others pile up while it works."""
    found = []
    async with aclosing(_grouped(stream, most)) as taken:
        async for events in taken:
            found.append(events)
            if len(found) == number:
                return found
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("most", [2, 3, 16])
def test_what_waits_is_taken_together_in_order_and_never_more_than_asked_for(most):
    stream = Stream(list(range(40)))

    async def run():
        found, got = [], 0
        async for events in _grouped(stream, most):
            found += events
            assert len(events) <= most
            assert stream.taken - len(found) <= most + 1  # nor does more than one group pile up unseen
            got += 1
            await asyncio.sleep(0)
            if len(found) == 40:
                return found, got

    found, got = asyncio.run(run())
    assert found == list(range(40))
    assert got < 40


def test_one_at_a_time_without_together():
    assert asyncio.run(groups(Stream([1, 2, 3]), 1, 3)) == [[1], [2], [3]]


@pytest.mark.parametrize("most", [1, 4])
def test_an_error_of_the_stream_reaches_the_agent(most):
    with pytest.raises(OSError, match="gone"):
        asyncio.run(groups(Stream([1, 2], OSError("gone")), most, 9))


@pytest.mark.parametrize("events", [[], [1, 2]])
def test_an_agent_that_is_cancelled_leaves_no_task(events):
    """Cancelled while it waits for the next event, and while it works on one."""

    async def run():
        taking = asyncio.create_task(groups(Stream(events), 4, 9))
        for _ in range(10):
            await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        return [task.get_coro().__qualname__ for task in asyncio.all_tasks() - {asyncio.current_task()}]

    assert asyncio.run(run()) == []


def test_a_handler_that_does_not_acknowledge_its_batch_is_a_bug():
    event = SimpleNamespace(value=[7], message=SimpleNamespace(topic="clicks", partition=0))
    acknowledged = []

    async def ack(event):
        acknowledged.append(event)

    async def forgetful(batch):
        assert batch.records == [7]

    async def good(batch):
        await batch.acknowledge()

    asyncio.run(_process(None, good, SimpleNamespace(ack=ack), [event], POLICY, None))
    assert acknowledged == [event]
    with pytest.raises(RuntimeError, match="without acknowledging"):
        asyncio.run(_process(None, forgetful, SimpleNamespace(ack=ack), [event], POLICY, None))
    assert acknowledged == [event]


def fetched(*bytes_of_partitions):
    return SimpleNamespace(topics=[("clicks", [(n, 0, 9, records) for n, records in enumerate(bytes_of_partitions)])])


@pytest.mark.parametrize(("response", "held"), [(fetched(b"", None), True), (fetched(b"", b"records"), False)])
def test_only_an_empty_answer_that_comes_at_once_is_held_back(response, held):
    async def send(node_id, request, **options):
        return response

    async def run():
        consumer = pace(SimpleNamespace(_client=SimpleNamespace(send=send)))
        loop = asyncio.get_running_loop()
        waits, original = [], loop.call_later
        loop.call_later = lambda delay, *rest, **more: waits.append(delay) or original(delay, *rest, **more)
        request = FetchRequest(500, 1, 1, 0, [])
        assert await consumer._client.send(1, request, group=0) is response
        return waits

    waits = asyncio.run(run())
    assert bool(waits) == held
    assert all(0 < wait <= IDLE_S for wait in waits)
