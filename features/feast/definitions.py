"""Feast definitions of the online store, generated from features.table: entities, views of packed rows, and on-demand views.

Each view NAME of the table becomes two of Feast: `NAME`, with the stored features `NAME_row` (bytes) and `NAME_applied`
(text), and the on-demand view `NAME_arrays`, with a typed feature for each field, such as `user_category_arrays:item`.
The lists of `NAME_arrays` are oldest first; an entity that the store does not know gives empty lists, '' and 0.
A client needs the registry, the store, and this package installed. It must use short feature names, Feast's default: with
`full_feature_names=True` Feast omits the results of on-demand views in Python mode.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from json import dumps
from pathlib import Path
from types import FunctionType
from typing import Any
from urllib.parse import urlsplit
from warnings import catch_warnings, filterwarnings

from feast import Entity, FeatureStore, FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast import Field as FeastField
from feast.types import Array, Bytes, Float32, Int64, String
from feast.value_type import ValueType
from redis.connection import SSLConnection, parse_url

from features.feast.unpacking import columns
from features.store.address import SCHEMES
from features.store.layout import stored_name
from features.table import APPLIED, PACKED, VIEWS, Field, RowView

PROJECT = "everlong"
ARRAYS = "arrays"
_TYPES = {"int64": Int64, "float32": Float32, "string": String}
_UDF_SOURCE = """def {name}(inputs):
    from features.feast.unpacking import columns

    return columns({view!r}, inputs[{row!r}])
"""


class DeclaredView(OnDemandFeatureView):
    """An on-demand view with declared types. Feast would infer them from the result for a made-up row."""

    def infer_features(self) -> None:
        """Nothing to infer."""


def arrays_name(view: str) -> str:
    """Name of the on-demand view that unpacks a view."""
    return f"{view}_{ARRAYS}"


def feast_objects() -> list[Any]:
    """All objects of the registry: entities, views, on-demand views."""
    names = sorted({name for view in VIEWS for name in view.entities})
    entities = {name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in names}
    views = {view.name: _stored_view(view, [entities[name] for name in view.entities]) for view in VIEWS}
    return [*entities.values(), *views.values(), *(_arrays_view(view, views[view.name]) for view in VIEWS)]


def repo_config(store_url: str, registry_path: Path | str, project: str = PROJECT) -> RepoConfig:
    """The configuration of a Feast client of the store at a URL (forms as in features.store.opening, memory:// excepted).

    Raises:
        ValueError: Feast cannot reach such a store; the message does not repeat the URL.
    """
    return RepoConfig(
        project=project,
        registry=str(registry_path),
        provider="local",
        online_store=online_store_config(store_url),
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )


def online_store_config(store_url: str) -> dict[str, Any]:
    """The `online_store` of a feature_store.yaml for a store URL.

    Raises:
        ValueError: as `repo_config`.
    """
    scheme, _, rest = store_url.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        return {"type": "sqlite", "path": str(Path(rest[1:]).absolute())}
    if scheme not in SCHEMES:
        raise ValueError("a Feast client reads stores at redis://, rediss://, redis+cluster:// and sqlite:/// only")
    return {
        "type": "redis",
        "redis_type": "redis_cluster" if "+cluster" in scheme else "redis",
        "connection_string": _connection_string(store_url.replace("+cluster", "", 1)),
        "skip_dedup": True,
        "full_scan_for_deletion": False,
    }


def apply(store_url: str, registry_path: Path | str, project: str = PROJECT) -> FeatureStore:
    """Write the definitions into the registry, which is created if missing, and return a Feast client of it. Idempotent."""
    Path(registry_path).parent.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(config=repo_config(store_url, registry_path, project))
    with catch_warnings():
        filterwarnings("ignore", "On demand feature view is an experimental feature")
        store.apply(feast_objects())
    return store


def _stored_view(view: RowView, entities: Sequence[Entity]) -> FeatureView:
    """The stored view. Its source is only a name: workers write the rows, nothing is materialised."""
    return FeatureView(
        name=view.name,
        entities=list(entities),
        ttl=timedelta(0),
        schema=[
            *(FeastField(name=entity.join_key, dtype=String) for entity in entities),
            FeastField(name=stored_name(view.name, PACKED), dtype=Bytes),
            FeastField(name=stored_name(view.name, APPLIED), dtype=String),
        ],
        source=FileSource(name=f"{view.name}_rows", path=f"{view.name}.parquet", timestamp_field="event_timestamp"),
        online=True,
        description=view.description,
        tags={"written_by": view.written_by},
    )


def _arrays_view(view: RowView, source: FeatureView) -> OnDemandFeatureView:
    udf, text = _udf(view)
    return DeclaredView(
        name=arrays_name(view.name),
        sources=[source],
        schema=[_feast_field(field) for field in view.fields],
        mode="python",
        udf=udf,
        udf_string=text,
        description=f"{view.description} Unpacked, oldest first.",
    )


def _udf(view: RowView) -> tuple[FunctionType, str]:
    """The function that unpacks a view's rows, and its source code: Feast keeps both in the registry, and clients execute the source."""
    row = f"{view.name}__{stored_name(view.name, PACKED)}"
    name = f"unpack_{view.name}"

    def unpack(inputs: dict[str, list[bytes | None]]) -> dict[str, list[Any]]:
        return columns(view.name, inputs[row])

    unpack.__name__ = name
    return _function(unpack), _UDF_SOURCE.format(name=name, view=view.name, row=row)


def _function(callable_: Callable[..., Any]) -> FunctionType:
    assert isinstance(callable_, FunctionType)
    return callable_


def _feast_field(field: Field) -> FeastField:
    scalar = _TYPES[field.type]
    tags = {"unit": field.unit} if field.unit else {}
    return FeastField(name=field.name, dtype=Array(scalar) if field.length else scalar, description=field.description, tags=tags)


def _connection_string(url: str) -> str:
    """Feast's form, host:port,name=value,...; values are JSON with commas escaped, so that a password may hold anything."""
    try:
        options = dict(parse_url(url))
    except ValueError:
        raise ValueError("malformed store URL") from None
    host, port = options.pop("host", "localhost"), options.pop("port", 6379)
    if ":" in host:
        raise ValueError("a Feast client cannot be given an IPv6 address; use a host name")
    if options.pop("connection_class", None) is SSLConnection or urlsplit(url).scheme == "rediss":
        options["ssl"] = True
    settings = (f"{name}={dumps(value).replace(',', chr(92) + 'u002c')}" for name, value in sorted(options.items()))
    return ",".join((f"{host}:{port}", *settings))
