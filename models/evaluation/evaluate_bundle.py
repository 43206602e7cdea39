"""What training adds to its bundle: shares that suit the log, and metrics, both measured on held-out events."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from models.bundle import Bundle
from models.evaluation.baselines import popularity
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import Offered, questions, users_asked
from models.evaluation.report import CASCADE, EvaluationSample, compact, evaluate
from models.evaluation.score import Entry, simple
from models.evaluation.serving_rules import ServingRules
from models.evaluation.share_selection import choose_shares, enough, halves
from models.evaluation.split import Split
from models.serving.recommender import Recommender
from models.serving.retriever import Options

MOST_USERS = 2000  # of whom is chosen, and reported


def judged(bundle: Bundle, there: Offered, split: Split, seed: int, device: str, choose: bool = True) -> Bundle:
    """The bundle with its metrics, and with the popular items of all events, those held out too. `there` is what can be found.

    With `choose` the shares are chosen by half of the held-out users, and the other half is reported; where users are too few the
    shares stay and all are reported. Of more than `MOST_USERS` as many are drawn by seed, for each of both.
    """
    users, others = halves(split.starts, seed)
    if choose and enough(len(users)):
        bundle = with_shares(bundle, there, only(split, users), seed, device)
        split = only(split, others)
    config = bundle.manifest.config
    cascade = Cascade(Recommender(bundle, device), Options(config.retrieval.top_k), *there, bundle.popular)
    rules = ServingRules.of(cascade.retriever.exclude_bought, there.catalogue)
    ids, asked = [item.item_id for item in there.catalogue], EvaluationSample(config.training.test_per_user, MOST_USERS, seed)
    report = evaluate(split, [Entry(CASCADE, seed, cascade), *simple(split, rules=rules)], ids, asked)
    newest = max(event.ts for deed in split.done.values() for event in deed.events)
    manifest = msgspec.structs.replace(bundle.manifest, metrics=compact(report))
    popular = popularity(split.done, newest + 1, config.retrieval.popular, config.retrieval.popular_days)
    return replace(bundle, manifest=manifest, popular=popular)


def with_shares(bundle: Bundle, there: Offered, split: Split, seed: int, device: str) -> Bundle:
    """The bundle with the shares, and the choice about purchases, that suit what the split holds out, over what is `there`."""
    config = bundle.manifest.config
    asked = questions(split, config.training.test_per_user, users_asked(split, MOST_USERS, seed))
    choice = choose_shares(Cascade(Recommender(bundle, device), Options(config.retrieval.top_k), *there, bundle.popular), asked, seed)
    config = config.replace(shares=choice.shares, exclude_bought=choice.exclude_bought)
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, config=config, chosen=True))


def only(split: Split, users: Sequence[str]) -> Split:
    """The split, of whose held-out users these alone are asked."""
    return split._replace(starts={user: split.starts[user] for user in users})
