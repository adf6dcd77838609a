"""A space with two items, and replicas that take what its users do."""

from datetime import UTC, datetime

from banditloop_client.schemas import Item
from banditloop_client.space_schemas import ActivityEvent
from bandits.log.records import ActivityRecord
from policies.items.catalogue import Catalogue
from policies.profiles.options import ProfileOptions
from policies.spec import PolicySpec
from serve_app.replica.items import ReplicaItems
from serve_app.replica.space_service import RedisSpaceService
from serve_app.replica.user_exports import UserExports
from serve_app.replica.users import ReplicaUsers
from serve_app.settings import Settings
from serve_app.store.event_log import LogWriter, RedisLog
from serve_app.store.items.history import ItemsHistory
from serve_app.store.keys import ActivityKeys, ItemsKeys, Keys, UsersKeys
from serve_app.workers.items_leader import ItemsLeader

KEYS, USERS = ActivityKeys("shop"), UsersKeys("shop")
SALT = b"a secret of at least sixteen bytes"
SPECS = [
    PolicySpec("home", space="shop", profile=ProfileOptions(types={"view": 1.0})),
    PolicySpec("mail", space="shop", profile=ProfileOptions(types={"view": 1.0, "buy": 5.0})),
]
NOW = 1_900_000_000.0
AT = datetime.fromtimestamp(NOW, UTC)


class Shop:
    """A space with two items, and replicas."""

    def __init__(self, client, async_client) -> None:
        self.client, self.async_client = client, async_client
        self.log = RedisLog(client, KEYS)
        items = ItemsKeys("shop")
        leader = ItemsLeader(client, items, ItemsHistory(client, items, None))
        leader.begin(Catalogue.put([Item("a"), Item("b")]), None)

    def replica(self, specs=SPECS) -> RedisSpaceService:
        writer, items_keys = LogWriter(self.async_client), ItemsKeys("shop")
        items = ReplicaItems(
            self.async_client,
            writer,
            items_keys,
            lambda *_: None,
            older=Keys("home"),
            brought=False,
        )
        users = ReplicaUsers(writer, UsersKeys("shop"), salt=SALT)
        return RedisSpaceService(
            "shop",
            specs,
            writer,
            items,
            users,
            client=self.async_client,
            exports=UserExports("shop", specs, Settings()),
            salt=SALT,
            clock=lambda: NOW,
        )

    @property
    def records(self) -> list[ActivityRecord]:
        return [entry.record for entry in self.log.read("0-0", count=5000)]


def view(user="u", item="a", **fields) -> ActivityEvent:
    return ActivityEvent(user, item, "view", **fields)
