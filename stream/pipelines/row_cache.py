"""A bounded cache of rows in front of the store, for the only worker that writes them. Misses are read in one round trip."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from features.codec import Row, unpack
from features.errors import UnreadableRowError
from features.rows import CategoryRow, UserRow
from features.store import Key, LogPosition, OnlineStore, Stored
from features.table import USER, USER_CATEGORY
from stream.errors import SupersededError
from stream.pipelines.batch import Steps, untimed


class UserState(NamedTuple):
    """A user row and the log position under which the store holds it."""

    row: UserRow
    log_position: LogPosition


class CategoryState(NamedTuple):
    """A category row and the log position under which the store holds it."""

    row: CategoryRow
    log_position: LogPosition


class CachedUser(NamedTuple):
    """The cached rows of a user."""

    user: UserState
    categories: dict[str, CategoryState]

    @property
    def size(self) -> int:
        """The number of its rows and of the elements of their lists: the unit of the cache's bound."""
        row = self.user.row
        elements = len(row.recent) + len(row.queries) + len(row.categories) + len(row.bought)
        return 1 + elements + sum(1 + len(state.row.events) + len(state.row.folded) for state in self.categories.values())


class Damaged(NamedTuple):
    """A row that cannot be read, as the store holds it, and the reason."""

    key: Key
    stored: Stored
    reason: str


class RowCache:
    """Least recently used users of all partitions of a worker, bounded by the sum of their sizes.

    A row of an epoch before `rows_from_epoch` counts as missing, so the first write replaces it. Users of a partition that another worker
    took over are not used any more, so they are evicted next.
    """

    def __init__(self, store: OnlineStore, epoch: int, bound: int, rows_from_epoch: int = 0) -> None:
        self._store, self._epoch, self._bound, self._rows_from_epoch = store, epoch, bound, rows_from_epoch
        self._users: OrderedDict[tuple[int, str], CachedUser] = OrderedDict()
        self._sizes: dict[tuple[int, str], int] = {}
        self._size = 0

    def load(self, partition: int, wanted: Mapping[str, set[str]], steps: Steps = untimed) -> dict[str, CachedUser]:
        """The users of a partition with at least these categories; those not cached are read at once.

        A user of whom a row cannot be read is not among them: see `mended`.

        Raises:
            StoreUnavailableError: the store did not answer.
            SupersededError: the store holds a row of a newer epoch.
            features.codec.OtherLayoutError: another version of Everlong wrote a row.
        """
        cached = {user: self._users.get((partition, user)) for user in wanted}
        missing: list[Key] = []
        for user, categories in wanted.items():
            held = cached[user]
            missing += [Key(USER.name, (user,))] if held is None else []
            missing += [Key(USER_CATEGORY.name, (user, c)) for c in sorted(categories) if held is None or c not in held.categories]
        found: dict[Key, Stored | None] = {}
        if missing:
            with steps("read"):
                found = dict(zip(missing, self._store.read(missing), strict=True))
        loaded = {}
        for user, categories in wanted.items():
            held = cached[user]
            if held is not None and self.holds(partition, user) and categories <= held.categories.keys():
                self._users.move_to_end((partition, user))
                loaded[user] = held
                continue
            damaged: list[Damaged] = []
            held = held or CachedUser(self._user_state(user, found, damaged), {})
            new = self._category_states(user, categories - held.categories.keys(), found, damaged)
            if damaged:
                self.drop(partition, user)
            else:
                loaded[user] = self.put(partition, user, CachedUser(held.user, held.categories | new))
        return loaded

    def mended(self, user: str, categories: Iterable[str]) -> tuple[CachedUser, list[Damaged]]:
        """A user as the store holds them, with these categories and all that the user row names, unreadable rows as empty ones; and those.

        Raises:
            StoreUnavailableError, SupersededError, features.codec.OtherLayoutError: as `load`.
        """
        damaged: list[Damaged] = []
        key = Key(USER.name, (user,))
        state = self._user_state(user, {key: self._store.read([key])[0]}, damaged)
        row = state.row
        wanted = {*categories, *(touched.category for touched in row.categories), *(event.category for event in row.recent)}
        keys = [Key(USER_CATEGORY.name, (user, category)) for category in sorted(wanted)]
        found = dict(zip(keys, self._store.read(keys), strict=True))
        return CachedUser(state, self._category_states(user, wanted, found, damaged)), damaged

    def holds(self, partition: int, user: str) -> bool:
        """Whether this user is cached for this partition."""
        return (partition, user) in self._users

    def put(self, partition: int, user: str, state: CachedUser) -> CachedUser:
        """Cache the rows of a user, and evict the least recently used users beyond the bound."""
        self.drop(partition, user)
        self._users[partition, user] = state
        self._sizes[partition, user] = state.size
        self._size += self._sizes[partition, user]
        while self._size > self._bound and len(self._users) > 1:
            self.drop(*next(iter(self._users)))
        return state

    def drop(self, partition: int, user: str) -> None:
        """Evict a user, if cached: the next load reads the store."""
        if self._users.pop((partition, user), None) is not None:
            self._size -= self._sizes.pop((partition, user))

    def leave(self, partition: int) -> None:
        """Evict all users of a partition."""
        for place in [place for place in self._users if place[0] == partition]:
            self.drop(*place)

    def _user_state(self, user: str, found: Mapping[Key, Stored | None], damaged: list[Damaged]) -> UserState:
        return UserState(*self._state(UserRow, Key(USER.name, (user,)), found, damaged))

    def _category_states(
        self, user: str, categories: Iterable[str], found: Mapping[Key, Stored | None], damaged: list[Damaged]
    ) -> dict[str, CategoryState]:
        keys = {category: Key(USER_CATEGORY.name, (user, category)) for category in categories}
        return {category: CategoryState(*self._state(CategoryRow, key, found, damaged)) for category, key in keys.items()}

    def _state(self, kind: type[Row], key: Key, found: Mapping[Key, Stored | None], damaged: list[Damaged]) -> tuple[Row, LogPosition]:
        """A row and its log position; the empty row where there is none, or where it cannot be read: then it is `damaged`."""
        stored = found[key]
        if stored is None or stored.log_position.epoch < self._rows_from_epoch:
            return kind(), LogPosition(self._epoch)
        position = self._log_position(stored)
        try:
            row = unpack(kind, stored.packed)
            if isinstance(row, CategoryRow) and row.events and row.events[0].category != key.entities[1]:
                raise UnreadableRowError("its events are of another category")
            if not any(stored.log_position[1:]):
                raise UnreadableRowError("its log position cannot be read")
        except UnreadableRowError as error:
            damaged.append(Damaged(key, stored, str(error)))
            return kind(), LogPosition(self._epoch)
        return row, position

    def _log_position(self, stored: Stored) -> LogPosition:
        epoch = stored.log_position.epoch
        if epoch > self._epoch:
            raise SupersededError(f"the store holds rows of epoch {epoch}, this worker writes {self._epoch}", f"set EVERLONG_EPOCH={epoch}")
        return stored.log_position if epoch == self._epoch else LogPosition(self._epoch)
