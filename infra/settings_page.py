"""Generates docs/settings.md from the settings."""

from typing import Any

from infra.api_settings import ApiSettings
from infra.settings import FROM_FILE, Settings, secret_settings, shown, variable


def settings_page() -> str:
    """The text of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made by `infra.settings.settings_page`. Every setting is a variable of the environment; an empty one counts as unset.",
        "Secrets are never printed: `everlong` shows its settings at start with secrets and passwords masked.",
        f"A secret can be in a file instead: {', '.join(f'`{variable(name)}{FROM_FILE}`' for name in secret_settings())} name one.",
        "",
        "| Variable | Default | Meaning |",
        "|---|---|---|",
    ]
    for name, field in sorted(Settings.model_fields.items(), key=lambda found: found[0] in ApiSettings.model_fields):
        choices = _choices(field.annotation)
        meaning = f"{field.description}{' One of ' + ', '.join(choices) + '.' if choices else ''}"
        lines.append(f"| `{variable(name)}` | {_default(field.default)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _choices(annotation: Any) -> list[str]:
    return [f"`{value}`" for value in getattr(annotation, "__args__", ()) if isinstance(value, str)]


def _default(value: Any) -> str:
    text = shown(value)
    return f"`{text}`" if text else "unset"
