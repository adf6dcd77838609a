"""``banditloop erase``: forget users, so that nothing links them to what is logged."""

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.options import DataDir, ProfileFiles, RedisUrl, SpaceName, one_command
from serve_app.cli.terminal import output, progress_bar, say

if TYPE_CHECKING:
    from serve_app.store.clients import Redis
    from serve_app.store.erasures.job import Erasure
    from serve_app.store.spaces import Space

app = one_command()

FROM_INPUT = "-"
LOOK_S = 0.1
SHOWN = 5
"""Users that nothing is known of, of whom so many are named."""
NOT_YET = 3
"""Exit status of erasures that have begun, and that some part of the profile has not passed."""


@app.command()
def erase(
    users: Annotated[
        list[str],
        typer.Argument(help="Ids of the users, or -: one a line of the input", metavar="USER"),
    ],
    space: SpaceName = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=0, help="Seconds to wait until all is complete")
    ] = 30.0,
    profiles: ProfileFiles = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Erase users: whatever links them to what is logged is destroyed, in all policies of a space.

    From then on nothing is written under their pseudonyms, by whoever serves. Their profiles are
    empty once every part has passed the erasure. What is logged stays, unlinked; the model stays.
    docs/privacy.md says what else may say whose it was.

    Exit status 0: complete. 3: begun, and some learner has not passed it yet. 1: nothing is known
    of a user; the others are erased.
    """
    from policies.artifacts.profile_removal import remove_profiles
    from policies.pseudonyms import check_user_id, person_key, pseudonym
    from serve_app.admin.spaces import known_secret, opened_space

    ids = list(dict.fromkeys(check_user_id(each) for each in _given(users)))
    with opened_space(space, redis_url, data_dir) as (client, found, settings):
        salt = known_secret(settings)
        persons = {each: person_key(salt, each) for each in ids}
        filed = {pseudonym(salt, each): person for each, person in persons.items()}
        in_files = {
            filed[user]
            for where in profiles or ()
            for user in remove_profiles(where, filed, salt=salt)
        }
        begun, unknown = _begin(client, found, persons, in_files)
        others = {name for each in begun for name in each.filed}
        for where in profiles or () if others else ():
            remove_profiles(where, others, salt=salt)
        running = _wait(client, found, begun, wait_s)
        _say(found, begun, running)
        if found.filed and not profiles:
            say(
                ("not removed", "yellow"),
                "  entries in files of profiles: they are not used any more, and --profiles FILE"
                " removes them",
                on=output,
            )

    if unknown:
        named = ", ".join(map(repr, unknown[:SHOWN])) + (", …" if len(unknown) > SHOWN else "")
        say(
            ("unknown", "red"),
            f"  nothing is known of {len(unknown):,} of {len(ids):,} users ({named}): are"
            " the space and the salt (--data-dir, BANDITLOOP_SALT) those of the service?",
            on=output,
        )
    if unknown or running:
        raise typer.Exit(1 if unknown else NOT_YET)


def _given(users: Sequence[str]) -> Iterator[str]:
    """Yield ids, those of the input in the place of the dash."""
    for each in users:
        if each == FROM_INPUT:
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield each


def _begin(
    client: "Redis", space: "Space", persons: Mapping[str, str], in_files: Collection[str]
) -> "tuple[list[Erasure], list[str]]":
    """Begin to erase users; return the jobs, and those of whom nothing is known.

    Args:
        client: a connection.
        space: the one.
        persons: the keyed hash by the user's id.
        in_files: hashes of those that a file of profiles had.
    """
    from bandits.errors import UnknownUserError
    from serve_app.store.erasures.job import erase_person, run

    begun: list[Erasure] = []
    unknown: list[str] = []
    with progress_bar(transient=True) as bar:
        task = bar.add_task("erasing", total=len(persons))
        for user_id, person in persons.items():
            try:
                begun.append(run(client, erase_person(space, person, filed=person in in_files)))
            except UnknownUserError:
                unknown.append(user_id)
            bar.advance(task)
    return begun, unknown


def _wait(
    client: "Redis", space: "Space", begun: "Sequence[Erasure]", wait_s: float
) -> "dict[str, Erasure]":
    """Wait until erasures are complete; return those that are not, by name."""
    from serve_app.store.erasures.job import go_on, run

    running = {each.name: each for each in begun if not each.is_complete}
    until = time.monotonic() + wait_s
    with progress_bar(transient=True) as bar:
        task = bar.add_task("learners pass it", total=len(begun))
        while running:
            for name in list(running):
                running[name] = run(client, go_on(space, name))
                if running[name].is_complete:
                    del running[name]
            bar.update(task, completed=len(begun) - len(running))
            if time.monotonic() >= until:
                break
            time.sleep(LOOK_S if running else 0.0)
    return running


def _say(space: "Space", erasures: "Sequence[Erasure]", running: "dict[str, Erasure]") -> None:
    """Print how erasures stand, and what they do not reach."""
    complete = len(erasures) - len(running)
    if complete:
        say(("complete", "green"), f"  {complete:,} erased", on=output)
    for each in running.values():
        say(
            ("begun", "yellow"),
            f"  {each.name} waits for {', '.join(each.waits_for)}: nothing is written under the"
            " pseudonym any more, and the profile is empty once a learner has passed it",
            on=output,
        )

    if erasures and space.keyed_logs:
        say(
            ("not unlinked", "yellow"),
            f"  {', '.join(space.keyed_logs)}: without profile in its spec, a policy logs keyed"
            " pseudonyms, which whoever has the salt and the id finds again",
            on=output,
        )
