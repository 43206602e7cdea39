"""The shape of the network, and what its inputs and vectors mean."""

import msgspec


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and inputs of the network, and the codes of its vectors. A warm start cannot change any of them.

    `buckets` to `attribute_ids` describe how SEMINAR's search unit hashes text (docs/adr/0008).
    """

    dim: int = 32  # d, of every vector
    heads: int = 2  # of multi-head attention; divides `dim`
    short: int = 50  # S: most recent events and queries read, over all categories
    long: int = 64  # L: most recent events read of one category
    touched: int = 100  # P': most recent distinct categories read
    temperature: float = 0.07  # a logit is cosine / temperature

    buckets: int = 32_768  # rows of the table of hashed words and character n-grams
    attribute_buckets: int = 4096  # rows of the table of hashed attributes
    words: bool = True  # hash whole words
    grams: tuple[int, ...] = (3,)  # lengths of the character n-grams hashed; empty: none
    title_ids: int = 256  # hashed ids read per title
    query_ids: int = 96  # hashed ids read per query
    attribute_ids: int = 16  # hashed ids read per item's attributes

    item_dropout: float = 0.15  # share of items whose id is hidden in training, so that content is learned to stand alone
    word_dropout: float = 0.1  # share of hashed ids hidden in training

    subspaces: int = 8  # P of the codebook, for each vector of `coded`
    coded: tuple[str, ...] = ("fused",)  # vectors that codes quantise: the fused vector, or modalities (models.codes.modalities)
