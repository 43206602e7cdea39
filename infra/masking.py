"""Masks secrets. Only the address in a store URL is shown."""

from features.store.address import SCHEMES, parse

MASK = "**********"
STORE_SCHEMES = (*SCHEMES, "sqlite", "memory")  # of features.store.opening


def mask(secret: str) -> str:
    """A secret, masked. A store URL keeps scheme, host, port and database; anything else is masked completely."""
    scheme, separator, rest = secret.partition("://")
    if not separator or scheme not in STORE_SCHEMES:
        return MASK
    if scheme not in SCHEMES:
        return f"{scheme}://{rest.partition('?')[0]}" if rest.startswith("/") or not rest else MASK
    try:
        address = parse(secret)
    except ValueError:
        return f"{scheme}://{MASK}"
    shown = str(address)
    if address.secret:
        shown = shown.replace("://", f"://{MASK}@", 1)
    return shown + (f"?{MASK}" if "?" in secret else "")
