"""docs/access.md: the rights that each role needs at the broker and at the store."""

from features.store.redis import COMMANDS
from stream.grants import GRANTS, rights

ROLES = {"operator": "`everlong topics`, `dlq`, `codes`, `shop`, `replay`"}
PAGE = """# Access rights

Made by `python -m infra.pages docs` from the code that the tests of these rights use.

## Kafka ACLs

Give each process a user of its own with these rights; names are without `EVERLONG_TOPIC_PREFIX`, with `EVERLONG_GROUP=everlong`. Make
the topics first (`everlong topics`, as `operator`): the other roles may not create them.

| Role | Topics: operations | Groups: operations |
|---|---|---|
{kafka}

Your own producers need Write on `clicks`, `queries`, `orders` and `items`. With Kafka's own command:

```bash
ACLS="kafka-acls.sh --bootstrap-server HOST:PORT --command-config admin.properties --add"
$ACLS --allow-principal User:ingest --operation Read --topic clicks
$ACLS --allow-principal User:ingest --operation Read --group everlong-ingest
```

## Valkey ACL

Workers and the API need these commands, and all keys, as the keys of rows are binary:

```text
ACL SETUSER everlong on >PASSWORD resetchannels ~* -@all {valkey}
```

On a cluster also `+cluster|slots +cluster|shards +cluster|myid +readonly +command`. Feast's own clients read with HMGET too.
"""


def access_page() -> str:
    """The page."""
    return PAGE.format(kafka="\n".join(map(_line, GRANTS)), valkey=" ".join(f"+{command}" for command in COMMANDS))


def _line(role: str) -> str:
    topics: dict[str, list[str]] = {}
    groups = []
    for right in rights(role):
        if right.resource == "topic":
            topics.setdefault(right.name, []).append(right.operation)
        else:
            groups.append(f"`{right.name}`: {right.operation}")
    listed = ", ".join(f"`{name}`: {' '.join(operations)}" for name, operations in topics.items())
    return f"| {role}{f' ({ROLES[role]})' if role in ROLES else ''} | {listed} | {', '.join(groups)} |"
