"""What may be shown of a secret: nothing, except the address in a store URL."""

from features.store.address import SCHEMES, parse

MASK = "**********"
STORE_SCHEMES = (*SCHEMES, "sqlite", "memory")  # of features.store.opening


def mask(secret: str) -> str:
    """A store URL keeps scheme, host, port and database; its user, password and options go. Anything else is masked whole."""
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
