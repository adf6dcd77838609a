"""The pages of users: what is held of one, to take along or to erase."""

from collections.abc import Mapping

from starlette.responses import Response

from banditloop_client.space_schemas import ERASE, ERASURE, EXPORT
from serve_app.console.shown import as_json
from serve_app.console.visits import PageHandler, PageVisit


async def show_users(visit: PageVisit) -> Response:
    """Ask for whom somebody looks."""
    return visit.page("users.html", "users", space=visit.asked("space"))


async def show_user(visit: PageVisit) -> Response:
    """Show all that is held of a user, or give it as a file."""
    space, user_id = visit.asked("space"), visit.asked("user_id")
    if not space or not user_id:
        return visit.go("users", space=space)

    held = await visit.ask(EXPORT, space=space, user_id=user_id)
    if visit.asked("as") == "file":
        headers = {"content-disposition": 'attachment; filename="user.json"'}
        return Response(as_json(held), media_type="application/json", headers=headers)
    return visit.page("user.html", "users", space=space, user_id=user_id, held=held)


async def confirm_erasing(visit: PageVisit) -> Response:
    """Ask whether a user is really to be erased."""
    space, user_id = visit.asked("space"), visit.asked("user_id")
    return visit.page("erase.html", "users", error="", space=space, user_id=user_id)


async def erase_them(visit: PageVisit) -> Response:
    """Erase a user, once their id was typed again."""
    space, user_id = visit.form.get("space", ""), visit.form.get("user_id", "")
    if visit.form.get("again") != user_id or not user_id:
        said = "the two ids are not the same: nobody was erased"
        return visit.page(
            "erase.html", "users", status=422, error=said, space=space, user_id=user_id
        )

    state = await visit.ask(ERASE, space=space, user_id=user_id)
    return visit.go("erasure", space=space, erasure=str(state.erasure))


async def show_erasure(visit: PageVisit) -> Response:
    """Show how an erasure stands."""
    space, erasure = visit.asked("space"), visit.asked("erasure")
    state = await visit.ask(ERASURE, space=space, erasure=erasure)
    return visit.page("erasure.html", "users", space=space, state=state)


PEOPLE_PAGES: Mapping[tuple[str, str], PageHandler] = {
    ("GET", "users"): show_users,
    ("GET", "user"): show_user,
    ("GET", "erase"): confirm_erasing,
    ("POST", "erase"): erase_them,
    ("GET", "erasure"): show_erasure,
}
