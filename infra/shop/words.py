"""The words of the simulated shop's names, titles and queries."""

CATEGORIES = (
    "running-shoes", "winter-jackets", "jeans", "t-shirts", "summer-dresses", "backpacks", "sunglasses", "watches", "earrings", "scarves",
    "headphones", "laptops", "tablets", "phone-cases", "keyboards", "cameras", "speakers", "game-consoles", "monitors", "chargers",
    "coffee-makers", "kettles", "frying-pans", "kitchen-knives", "dinner-plates", "desk-lamps", "office-chairs", "bookshelves",
    "rugs", "curtains",
    "pillows", "candles", "garden-tools", "plant-pots", "tents", "bicycles", "yoga-mats", "dumbbells", "board-games", "building-blocks",
    "dolls", "puzzles", "shampoos", "perfumes", "lipsticks", "sun-creams", "dog-toys", "cat-trees",
)  # fmt: skip
STYLES = (
    "classic", "modern", "vintage", "rustic", "minimal", "bold", "slim", "wide", "light", "heavy", "soft", "sturdy",
    "elegant", "sporty", "playful", "plain", "striped", "floral", "matte", "glossy", "compact", "large", "quiet", "bright",
    "warm", "cool", "natural", "urban", "handmade", "premium", "basic", "foldable",
)  # fmt: skip
BRANDS = ("Alder", "Brisk", "Corvo", "Dunmore", "Elba", "Fjord", "Gaia", "Halden", "Indra", "Juno", "Kestrel", "Lumen")
COLOURS = ("black", "white", "grey", "red", "blue", "green", "brown", "yellow")


def category_name(index: int) -> str:
    """The id of the index-th category, readable and unique: running-shoes, ..., running-shoes-2, ..."""
    series, place = divmod(index, len(CATEGORIES))
    return CATEGORIES[place] + (f"-{series + 1}" if series else "")
