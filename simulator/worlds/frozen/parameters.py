"""The kinds of the parameters of the frozen worlds; their values are in parameters.toml."""

from datetime import date
from typing import Annotated

import msgspec

from bandits.errors import InvalidFieldError

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=10)]
Logit = Annotated[float, msgspec.Meta(ge=-20, le=20)]
Days = Annotated[float, msgspec.Meta(gt=0, le=3650)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]
Many = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Some = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Slots = Annotated[int, msgspec.Meta(ge=1, le=50)]
Uplift = Annotated[float, msgspec.Meta(ge=-1, le=10)]
DelayShape = Annotated[float, msgspec.Meta(gt=1, le=100)]


class VisitParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parameters that every world has.

    Attributes:
        version: Version of the world: another one has other numbers or other rules.
        start: The day at whose beginning, in UTC, the world begins.
        days: How long the world lasts, in days.
        visits: Visits in that time; each asks for recommendations once.
        users: Users.
        activity: How unlike users are in how often they come: the standard deviation of the
            logarithm of that.
        delay_shape: Shape of the log-logistic delays; the lower, the longer the tail.
        delay_max_days: The longest delay of one signal after the one before, in days.
    """

    version: Annotated[int, msgspec.Meta(ge=1)]
    start: str
    days: Days
    visits: Many
    users: Many
    activity: Weight
    delay_shape: DelayShape
    delay_max_days: Days

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.start)
        except ValueError as error:
            raise InvalidFieldError(
                f"start: a day, such as 2026-01-05, not {self.start!r}", "start"
            ) from error


class ShopParameters(VisitParameters, frozen=True, kw_only=True):
    """A shop: tastes, categories, prices, texts, sessions, seasons, new items and late purchases.

    Attributes:
        events: Rows of events.csv, the first in time; visits after them are the future.
        items: Items, those that are new later among them.
        categories: Categories of items.
        category_spread: How unlike the sizes of categories are: the standard deviation of the
            logarithm of the expected size.
        brands: Brands of items.
        groups: Groups of users, named in users.csv.
        slots: Items that are shown at once.
        examination: Slot s, from 0, is looked at with probability (s + 1) to the power of minus
            this.
        pool: Items that are proposed to a policy that cannot propose any itself, and among which
            the logging policy chooses.
        log_uniform: Share of the logging policy's choices that are uniform; the others are by
            popularity.
        rank: Dimensions of taste.
        group_share: Share of the variance of tastes that the groups explain.
        category_share: Share of the variance of what items are like that the categories explain.
        taste: Standard deviation, on the logit scale, of how much users like items by taste.
        popularity: Exponent of Zipf's law of how often items are looked at.
        popular_appeal: How much popular items are liked more by all: the standard deviation on the
            logit scale.
        own_appeal: How much items are liked by all apart from popularity: the standard deviation
            on the logit scale.
        price: Median price of the median category.
        category_price_spread: Standard deviation of the logarithm of categories' median prices.
        price_spread: Standard deviation of the logarithm of prices within a category.
        sensitivity_spread: Standard deviation of the logarithm of users' sensitivity to prices.
        price_sensitivity: How much a price one standard deviation above its category's lowers the
            logit of a click, for the average user; users differ lognormally.
        season: How much seasons raise and lower the logit of categories.
        season_days: Length of a season's cycle.
        phones: Share of the sessions on a phone; the others are on a desktop.
        device: How much the device changes what is wanted: a standard deviation on the logit scale.
        evening: How much more users come at 20 o'clock than at 8: visits follow 1 + evening times
            a cosine of the hour.
        page_s: Median seconds from one page of a session to the next.
        steps: The most pages of a session.
        continue_session: Probability that another page follows.
        follow: Probability that the next page is of the category that follows the last one's.
        need: How much tastes and seasons decide the pages that users open.
        looks: Items among which users choose a page by taste; these are drawn by popularity.
        order: How much what was just seen raises the logit of the category that follows it.
        order_fade: Share of that effect which the page before the last has.
        fatigue: How much what was just seen lowers the logit of its own category.
        new_share: Share of the items that are added after the start, one day or another.
        sold_out_share: Share of the items that sell out.
        sold_out_days: Average number of days after which these sell out.
        words: Words of an item's text.
        text_category: Share of the words that the category decides.
        text_taste: Share of the words that the item's place among tastes decides; the rest, but for
            the brand, says nothing.
        category_words: Words that each category has.
        taste_words: Words that each end of each dimension of taste has.
        other_words: Words that say nothing.
        click: Logit of a click on an average item that is looked at.
        cart: Logit of a cart after a click.
        cart_taste: How much taste (one standard deviation) raises the logit of a cart.
        purchase: Logit of a purchase after a cart.
        purchase_price: How much price sensitivity counts in a purchase.
        worth_click: What a click adds to the reward.
        worth_cart: What a cart adds to the reward.
        worth_purchase: What a purchase adds to the reward.
        click_delay_s: Median seconds from the visit to a click.
        cart_delay_s: Median seconds from a click to a cart.
        purchase_delay_days: Median days from a cart to a purchase.
    """

    events: Many
    items: Many
    categories: Annotated[int, msgspec.Meta(ge=2, le=1000)]
    category_spread: Weight
    brands: Some
    groups: Some
    slots: Slots
    examination: Weight
    pool: Some
    log_uniform: Annotated[float, msgspec.Meta(gt=0, le=1)]
    rank: Annotated[int, msgspec.Meta(ge=1, le=64)]
    group_share: Share
    category_share: Share
    taste: Weight
    popularity: Weight
    popular_appeal: Weight
    own_appeal: Weight
    price: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    category_price_spread: Annotated[float, msgspec.Meta(ge=0, le=3)]
    price_spread: Annotated[float, msgspec.Meta(gt=0, le=3)]
    sensitivity_spread: Weight
    price_sensitivity: Weight
    season: Weight
    season_days: Days
    phones: Share
    device: Weight
    evening: Share
    page_s: Seconds
    steps: Annotated[int, msgspec.Meta(ge=1, le=8)]
    continue_session: Share
    follow: Share
    need: Weight
    looks: Annotated[int, msgspec.Meta(ge=1, le=20)]
    order: Weight
    order_fade: Share
    fatigue: Weight
    new_share: Share
    sold_out_share: Share
    sold_out_days: Days
    words: Annotated[int, msgspec.Meta(ge=1, le=100)]
    text_category: Share
    text_taste: Share
    category_words: Some
    taste_words: Some
    other_words: Some
    click: Logit
    cart: Logit
    cart_taste: Weight
    purchase: Logit
    purchase_price: Weight
    worth_click: Weight
    worth_cart: Weight
    worth_purchase: Weight
    click_delay_s: Seconds
    cart_delay_s: Seconds
    purchase_delay_days: Days

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_most("events", self.events, "visits", self.visits)
        _at_most("categories", self.categories, "items", self.items)
        _at_most("slots", self.slots, "pool", self.pool)
        if self.text_category + self.text_taste > 1:
            raise InvalidFieldError("text_taste: with text_category it is at most 1", "text_taste")


class TasteParameters(VisitParameters, frozen=True, kw_only=True):
    """Users whose tastes the context tells, and items that are always on offer.

    Attributes:
        items: Items.
        slots: Items that are shown at once.
        examination: Slot s, from 0, is looked at with probability (s + 1) to the power of minus
            this.
        log_uniform: Share of the logging policy's choices that are uniform; the others are by
            appeal.
        rank: Dimensions of taste, which the context tells.
        taste: Standard deviation, on the logit scale, of how much users like items by taste.
        appeal: The same of how much all users like an item.
        click: Logit of a click on an average item that is looked at.
        click_delay_s: Median seconds from the visit to a click.
    """

    items: Annotated[int, msgspec.Meta(ge=2, le=1000)]
    slots: Slots
    examination: Weight
    log_uniform: Annotated[float, msgspec.Meta(gt=0, le=1)]
    rank: Annotated[int, msgspec.Meta(ge=1, le=64)]
    taste: Weight
    appeal: Weight
    click: Logit
    click_delay_s: Seconds

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_most("slots", self.slots, "items", self.items)


class DriftParameters(TasteParameters, frozen=True, kw_only=True):
    """Tastes that turn: what was learned becomes wrong.

    Attributes:
        strength: How far every item turns over the world's days: 0 not at all, 1 (the most) by a
            quarter of a circle, to one that has nothing to do with the first.
        jumps: In how many steps it turns; 0: steadily.
    """

    strength: Share
    jumps: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class AttackersParameters(TasteParameters, frozen=True, kw_only=True):
    """Honest users, and accounts that click on a few items to push them.

    Attributes:
        share: Share of the visits, and so of the decisions, that are the attackers'.
        accounts: User ids that attackers use.
        targets: Items that they push, those of the lowest appeal.
        persistence: Probability that an attacker clicks on a target that is shown; nothing else is
            clicked by them.
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=0.2)]
    accounts: Many
    targets: Some
    persistence: Share

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_most("targets", self.targets, "items", self.items)


class PositionsParameters(TasteParameters, frozen=True, kw_only=True):
    """A list of many slots, of which the lower ones are seldom looked at.

    Attributes:
        log_uniform: Share of the logging policy's choices that are uniform; the others are by
            habit.
        habit: How much the logging policy prefers some items, on the logit scale: a standard
            deviation. What it prefers has nothing to do with what users like, so that what stands
            high is clicked more without being better.
    """

    habit: Weight


class SegmentsParameters(VisitParameters, frozen=True, kw_only=True):
    """Two arms, usual and new, whose difference is known for every segment of users.

    Attributes:
        shares: Share of the users by segment, in all 1.
        uplifts: By segment, the share by which the new arm raises the probability of a purchase.
        uplift_spread: Standard deviation of that share between users of a segment.
        holdout: Share of the users to whom the logging policy shows the usual arm, always.
        buys: Logit of a purchase at a visit under the usual arm, for the average user.
        buys_spread: Standard deviation of that logit between users, who keep theirs.
        amount: Average amount of a purchase.
        amount_user_spread: Standard deviation of the logarithm of users' average amounts.
        amount_spread: The same of one user's purchases: the larger, the more skewed.
        purchase_delay_days: Median days from the visit to a purchase.
    """

    shares: Annotated[list[Share], msgspec.Meta(min_length=1, max_length=100)]
    uplifts: list[Uplift]
    uplift_spread: Share
    holdout: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    buys: Logit
    buys_spread: Weight
    amount: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    amount_user_spread: Weight
    amount_spread: Weight
    purchase_delay_days: Days

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.uplifts) != len(self.shares):
            raise InvalidFieldError(
                f"uplifts: one for each of the {len(self.shares)} shares, not {len(self.uplifts)}",
                "uplifts",
            )
        if abs(sum(self.shares) - 1) > 1e-9:
            raise InvalidFieldError(f"shares: in all 1, not {sum(self.shares):g}", "shares")


def _at_most(name: str, value: int, limit_name: str, limit: int) -> None:
    if value > limit:
        raise InvalidFieldError(f"{name}: at most {limit_name}, {limit:,}, not {value:,}", name)
