"""Categories from one part of PGIN alone, the pointer or the generator: only serving changes, not the training."""

import torch

from models.network.ulim import EncodedUsers, NextCategory
from models.serving.recommender import Recommender


class PointerOnly(Recommender):
    """Searches the categories that the user touched, by the pointer's probabilities."""

    def next_category(self, state: EncodedUsers) -> NextCategory:
        """The distribution over the N categories for B users."""
        found = super().next_category(state)
        return found._replace(mixed=found.pointer, gate=torch.ones_like(found.gate))


class GeneratorOnly(Recommender):
    """Searches the categories that the generator finds likeliest, touched or not."""

    def next_category(self, state: EncodedUsers) -> NextCategory:
        """The distribution over the N categories for B users."""
        found = super().next_category(state)
        return found._replace(mixed=found.generator, gate=torch.zeros_like(found.gate))
