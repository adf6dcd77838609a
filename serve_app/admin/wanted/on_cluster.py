"""What clients have set, where a Serve config says what is served: the config is deployed again.

It is told Serve's controller as it was told last, with another edition in the application's
arguments, so that the application is built anew; whoever builds it finds what clients have set.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from bandits.log.codec import digest
from policies.spec import PolicySpec
from serve_app.admin.wanted.specs import governed, keep_served
from serve_app.settings import Settings

EDITION = "edition"
"""The argument of the application that says which specs clients have set; nobody reads it."""
ANSWER_S = 10.0
"""How long Serve's controller may take to answer."""

log = logging.getLogger("banditloop.background")


class ClusterSpecs:
    """The specs of an application that a Serve config has deployed."""

    def __init__(
        self,
        settings: Settings,
        given: Sequence[PolicySpec],
        served: Sequence[PolicySpec],
        application: str,
    ) -> None:
        """Take an application.

        Args:
            settings: of the service.
            given: the specs of the config.
            served: those that it serves.
            application: its name in the config.
        """
        self._settings, self._application = settings, application
        self._given, self._served = list(given), list(served)

    def wanted(self) -> list[PolicySpec] | None:
        """Say that clients may set specs, and return those to be served; None: all are."""
        specs = governed(self._settings, self._given)
        return None if specs == self._served else specs

    def have_served(self, wanted: Sequence[PolicySpec]) -> None:
        """Deploy the config again; where that was done and failed, have clients' wishes go.

        Args:
            wanted: the specs that are to be served.
        """
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
        details = ray.get(controller.get_serve_instance_details.remote(), timeout=ANSWER_S)
        application = details["applications"].get(self._application, {})
        config = application.get("deployed_app_config")

        # What is being deployed finds by itself what clients have set until then.
        if not config or application["status"] == ApplicationStatus.DEPLOYING:
            return
        edition = edition_of(wanted)
        if config.get("args", {}).get(EDITION) == edition:
            if application["status"] != ApplicationStatus.DEPLOY_FAILED:
                return
            log.error("what clients have set is not served: %s", application["message"])
            keep_served(self._settings, self._given, self._served)
            edition = edition_of(self._served)

        again = ServeDeploySchema.model_validate(config_again(details, self._application, edition))
        ray.get(controller.apply_config.remote(again), timeout=ANSWER_S)


def edition_of(specs: Sequence[PolicySpec]) -> str:
    """Return what tells specs from others."""
    return digest(" ".join(spec.digest for spec in specs).encode())


def config_again(details: Mapping[str, Any], application: str, edition: str) -> dict[str, Any]:
    """Return the Serve config that is deployed, with another edition of one application.

    Args:
        details: what Serve's controller says of all applications.
        application: the name of the one.
        edition: that of its specs.
    """
    configs = {
        name: {**each["deployed_app_config"], "name": name}
        for name, each in details["applications"].items()
        if each.get("deployed_app_config")
    }
    one = configs[application]
    one["args"] = {**one.get("args", {}), EDITION: edition}
    capacity = details.get("target_capacity")
    more = {} if capacity is None else {"target_capacity": capacity}
    return {"applications": list(configs.values()), **more}
