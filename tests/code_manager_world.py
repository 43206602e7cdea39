"""A manager of codes without Kafka: a broker that takes records one by one, and may fail, and a catalogue of vectors."""

from functools import cache
from itertools import count

import msgspec
import numpy as np

from models.codes.codebook import Codebook
from models.codes.drift import Policy
from models.codes.reservoir import Reservoir
from stream.codes.catalogue_snapshot import CatalogueSnapshot
from stream.codes.code_manager import CodeManager
from stream.codes.codebook_publisher import Pace, Topics
from stream.codes.codebook_registry import CodebookRegistry, key_of
from stream.codes.readers import CodeRecord, decode_codes
from stream.errors import LeadershipLostError, PublishError
from stream.kafka.messages import CodesRequest, ItemCode, Recode, Skips

BUNDLE, DIM, P, N = "b", 8, 4, 600
TOPICS = Topics("codebooks", "item-codes")
PACE = Pace(measure_s=1.0, rest_s=0.0, announce_s=0.0, batch=100, tries=3)


@cache
def own():
    return Codebook.train(vectors(0), P, 0)


@cache
def vectors(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    found = (rng.normal(size=(N, DIM)) * spread + rng.normal(size=DIM)).astype(np.float32)
    found.setflags(write=False)
    return found


class Record:
    """A record as the reader brings it."""

    def __init__(self, outgoing, offset):
        self.topic, self.key, self.value, self.partition, self.offset = *outgoing[:3], outgoing.partition or 0, offset


class World:
    """A broker that takes records one by one and tells the manager of them; it may fail, or the manager may be dismissed or killed."""

    def __init__(self):
        self.log, self.registry, self.clock = [], CodebookRegistry(), count(1000)
        self.outages, self.left = 0, float("inf")
        self.told, self.manager, self.dismissed = [], None, False

    def publish(self, records):
        if self.outages:
            self.outages -= 1
            raise PublishError("a test")
        for record in records:
            if self.left <= 0:
                raise KeyboardInterrupt  # as a kill does: nothing after it is done
            self.left -= 1
            self.log.append(record)
            if record.topic == TOPICS.codebooks:
                self.registry.apply_record(record.key, record.value)

    def ends(self):
        return {0: len(self.log)}

    def wait(self, seconds):
        if self.dismissed:
            raise LeadershipLostError

    def measured(self, codebook, drift, decision):
        self.told.append(("measured", codebook, decision.wanted))

    def codes_refreshed(self, how, result, seconds, changed):
        self.told.append((how, result, changed))

    def ask(self, what="refresh", how="cold", to="", name="r"):
        request = CodesRequest(id=f"{name}{next(self.clock)}", what=what, how=how, to=to, asked_ms=next(self.clock))
        self.registry.apply_record(key_of(request), msgspec.json.encode(request))
        return request

    def recodes(self):
        return [msgspec.json.decode(r.value, type=Recode) for r in self.log if r.topic == TOPICS.item_codes]

    def named(self):
        return self.registry.current(BUNDLE, own().generation)


def item(name, vector, codebook=None):
    codebook = codebook or own()
    return ItemCode(
        item_id=name,
        category_id="c",
        vector=vector.astype("<f4").tobytes(),
        code=codebook.encode(vector[None]).tobytes(),
        bundle=BUNDLE,
        ts=1,
        codebook=codebook.generation,
    )


def employ(world, automatic=True, policy=None, table=None):
    """A manager that begins: it knows what is in the bundle's table and what the topic says."""
    catalogue = CatalogueSnapshot(BUNDLE, own(), DIM)
    table = vectors(0) if table is None else table
    names = [f"i{n}" for n in range(len(table))]
    catalogue.load_table(names, table, own().encode(table))
    reservoir = Reservoir(1000)
    reservoir.put(names, table)
    manager = CodeManager(
        catalogue, own(), world.registry, world, TOPICS, lambda: next(world.clock), reservoir=reservoir,
        policy=policy or Policy(), pace=PACE, automatic=automatic,
    )  # fmt: skip
    world.manager, world.catalogue = manager, catalogue
    hear_all(world)
    return manager


def hear_all(world):
    log = [Record(outgoing, at) for at, outgoing in enumerate(world.log) if outgoing.topic == TOPICS.item_codes]
    world.manager.apply(decode_codes(log, Skips()), {0: len(world.log)})


def moved(world, seed, share=1.0, spread=1.0):
    """The catalogue says of so many items that they have other vectors."""
    new = vectors(seed, spread)[: int(N * share)]
    said = [CodeRecord(f"i{n}", item(f"i{n}", vector, world.manager.current())) for n, vector in enumerate(new)]
    world.manager.apply(said, {0: len(world.log)})


def published(world):
    """What a reader who believes the topic holds of each item under the generation in use."""
    held, current = {}, world.named()
    for recode in world.recodes():
        if recode.codebook == current:
            held[recode.item_id] = recode.code
    return held
