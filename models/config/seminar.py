"""What is chosen before SEMINAR is trained. What the paper leaves open is explained in docs/adr/0008."""

import msgspec


class SeminarConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes, weights of the objectives, and the switches of the ablations."""

    dim: int = 64  # d
    heads: int = 2
    buckets: int = 32_768  # rows of the table of hashed words and character n-grams
    words: bool = True  # whole words are hashed
    grams: tuple[int, ...] = (3,)  # lengths of character n-grams; none where empty
    attribute_buckets: int = 4096  # rows of the table of hashed attributes
    title_ids: int = 256  # hashed ids read of a title; of a query; of attributes
    query_ids: int = 96
    attribute_ids: int = 16
    query_share: float = 0.5  # a of s = a q + (1 - a) e
    length: int = 128  # L: newest steps of a lifelong history
    searched: int = 32  # K: steps that the GSU keeps

    temperature: float = 0.05
    next_weight: float = 1.0
    alignment: float = 0.3  # 0: without alignment
    relevance: float = 1.0
    negatives: int = 64  # items sampled for a batch of next pairs
    positions: int = 512  # of a batch: positions that the relevance objective reads, items that are aligned

    epochs: int = 2  # passes of pretraining
    tuning: int = 2  # passes of fine-tuning on the next pair alone
    batch: int = 256
    learning_rate: float = 4e-3
    item_dropout: float = 0.15  # share of items whose id is hidden, so that content learns to stand alone
    word_dropout: float = 0.1  # share of hashed ids that are hidden
    per_user: int = 40  # baskets of one user that become examples
    per_basket: int = 4  # items of a basket that do

    pretraining: bool = True  # False: the same number of passes, all of them fine-tuning from random weights
    queries: bool = True  # False: every query is masked
