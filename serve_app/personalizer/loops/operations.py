"""The operations on a loop: what each is asked, does and answers."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from types import NoneType
from typing import Any

from banditloop_client.schemas import Endpoint
from bandits.errors import BanditloopError, SpecError
from bandits.log.codec import digest
from policies.personalizer.arguments import (
    DEFAULT_ARGUMENTS,
    FIELD,
    NO_FILES,
    read_policy_arguments,
    with_arguments,
)
from policies.personalizer.configuration import (
    ServiceConfiguration,
    WantedConfiguration,
    arguments_of,
    configuration_of,
    with_configuration,
)
from policies.spec import PolicySpec
from serve_app.api.routes import Call
from serve_app.api.wire import JSON, Answer, BodyLimit
from serve_app.personalizer.loops.bodies import (
    EvaluationChoice,
    LogDates,
    LogProperties,
    ModelExport,
    ModelProperties,
    PolicyContract,
)
from serve_app.personalizer.loops.loop import Loop
from serve_app.personalizer.loops.model_file import MODEL_IN_ZIP
from serve_app.personalizer.refusals import RefusedCall
from serve_app.personalizer.route import HeadedAnswer, PersonalizerRoute
from serve_app.store.evaluations.kept import ONLINE

log = logging.getLogger("banditloop.personalizer")

MODEL_LIMIT = BodyLimit(256 << 20, 120.0)
BINARY = b"application/octet-stream"
NOTHING: Answer = (204, b"", JSON)
_CODES: Mapping[str, tuple[int, str]] = {
    "rewardWaitTime": (400, "InvalidRewardWaitTime"),
    "logRetentionDays": (400, "InvalidLogRetentionDays"),
    "modelRetrainDays": (400, "InvalidModelRetrainDays"),
    "learningMode": (400, "InvalidLearningModeServiceConfiguration"),
    "isAutoOptimizationEnabled": (403, "ProblemTypeIncompatibleWithAutoOptimization"),
}
"""By field of a configuration, the status and code of what is wrong with it."""
_REFUSALS = {field: code for field, (status, code) in _CODES.items() if status == 400}
"""The codes also of what no configuration is read from: a number out of range, a word for it."""


class LoopOperations:
    """The handlers, over the loops of the policies that are served."""

    def __init__(self, loops: Mapping[str, Loop]) -> None:
        """Take the loops by policy."""
        self._loops = loops

    def _loop(self, call: Call[Any]) -> Loop:
        return self._loops[call.policy]

    # Configuration

    async def configuration(self, call: Call[None]) -> ServiceConfiguration:
        """Return the configuration."""
        return await _told(self._loop(call))

    async def configure(self, call: Call[WantedConfiguration]) -> ServiceConfiguration:
        """Change the configuration, and return all of it."""

        def changed(spec: PolicySpec) -> PolicySpec:
            try:
                return with_configuration(spec, call.request)
            except BanditloopError as error:
                status, code = _CODES.get(error.target or "", (400, "InvalidServiceConfiguration"))
                raise RefusedCall(status, code, error.message, error.target) from error

        loop = self._loop(call)
        await loop.change(changed)
        return await _told(loop)

    # Policy

    async def policy(self, call: Call[None]) -> PolicyContract:
        """Return the policy."""
        return _contract(await self._loop(call).spec())

    async def set_policy(self, call: Call[PolicyContract]) -> PolicyContract:
        """Change the policy; the answer has the service's own name of it."""
        return await self._with_arguments(call, call.request.arguments)

    async def reset_policy(self, call: Call[None]) -> PolicyContract:
        """Change the policy to the usual one."""
        return await self._with_arguments(call, DEFAULT_ARGUMENTS)

    async def _with_arguments(self, call: Call[Any], arguments: str) -> PolicyContract:
        def changed(spec: PolicySpec) -> PolicySpec:
            try:
                if files := read_policy_arguments(arguments).files:
                    raise SpecError(f"{NO_FILES}: leave {' and '.join(files)} out", FIELD)
                return with_arguments(spec, arguments)
            except BanditloopError as error:
                raise RefusedCall(
                    400, "InvalidPolicyConfiguration", error.message, error.target
                ) from error

        now = await self._loop(call).change(changed)
        for each in read_policy_arguments(arguments).changes:
            log.warning("policy %s is not served as its arguments say: %s", call.policy, each)
        return _contract(now)

    async def apply_from_evaluation(self, call: Call[EvaluationChoice]) -> Answer:
        """Change the policy to one that an evaluation has judged."""
        name, wanted = call.request.evaluation_id, call.request.policy_name
        kept = await self._loop(call).evaluation(name)
        if kept is None:
            raise RefusedCall(404, "EvaluationNotFound", f"no evaluation {name!r}", "evaluationId")

        judged = next((each for each in kept.found if each.name == wanted), None)
        if judged is None:
            raise RefusedCall(
                404,
                "LearningSettingsNotFound",
                f"evaluation {name!r} has found nothing of a policy {wanted!r}",
                "policyName",
            )
        if judged.arguments:
            await self._with_arguments(call, judged.arguments)
        elif judged.source != ONLINE:
            raise RefusedCall(
                400,
                "InvalidContract",
                f"{wanted} has no arguments to learn by: name a policy that was sent to be judged",
                "policyName",
            )
        return NOTHING

    # Model

    async def model_properties(self, call: Call[None]) -> ModelProperties:
        """Return when the model was made, and changed last."""
        first, last = await self._loop(call).model_times()
        return ModelProperties(creation_time=_date(first), last_modified_time=_date(last))

    async def export_model(self, call: Call[None]) -> HeadedAnswer:
        """Return the model's bytes, or a zip that has them with a signature."""
        asked: ModelExport = call.query
        if asked.signed.lower() not in {"true", "false"}:
            said = f"signed is true or false, not {asked.signed[:40]!r}"
            raise RefusedCall(400, "BadRequest", said, "signed")
        is_signed, loop = asked.signed.lower() == "true", self._loop(call)
        model = await (loop.signed_model() if is_signed else loop.model())
        _, made_ms = await loop.model_times()
        name = f"{MODEL_IN_ZIP}.zip" if is_signed else MODEL_IN_ZIP
        headers = [
            (b"content-disposition", f"attachment; filename={name}".encode()),
            (b"last-modified", formatdate(made_ms / 1000, usegmt=True).encode()),
        ]
        return HeadedAnswer((200, model, BINARY), headers)

    async def import_model(self, call: Call[bytes]) -> Answer:
        """Go on from a model."""
        await self._loop(call).import_model(call.request)
        return NOTHING

    async def reset_model(self, call: Call[None]) -> Answer:
        """Go on from a model that has learned nothing."""
        await self._loop(call).reset_model()
        return NOTHING

    # Logs

    async def log_properties(self, call: Call[None]) -> LogProperties:
        """Return from when to when there is a log."""
        times = await self._loop(call).log_times()
        if times is None:
            return LogProperties()
        return LogProperties(LogDates(_date(times[0]), _date(times[1])))

    async def delete_logs(self, call: Call[None]) -> Answer:
        """Delete the log, but for what is open."""
        await self._loop(call).delete_log()
        return NOTHING

    def routes(self) -> tuple[PersonalizerRoute[Any, Any], ...]:
        """Return the operations as routes."""
        service, policy = "/configurations/service", "/configurations/policy"
        usual, properties = "InvalidServiceConfiguration", ModelProperties
        contract, wanted = PolicyContract, WantedConfiguration
        none, choice = NoneType, EvaluationChoice

        table: tuple[tuple[Endpoint[Any, Any], str, Any, str], ...] = (
            (
                Endpoint("GET", service, none, ServiceConfiguration, 200),
                "The configuration",
                self.configuration,
                usual,
            ),
            (
                Endpoint("PUT", service, wanted, ServiceConfiguration, 200),
                "Change the configuration",
                self.configure,
                usual,
            ),
            (Endpoint("GET", policy, none, contract, 200), "The policy", self.policy, usual),
            (
                Endpoint("PUT", policy, contract, contract, 200),
                "Change the policy",
                self.set_policy,
                "InvalidPolicyContract",
            ),
            (
                Endpoint("DELETE", policy, none, contract, 200),
                "The usual policy again",
                self.reset_policy,
                usual,
            ),
            (
                Endpoint("POST", "/configurations/applyFromEvaluation", choice, none, 204),
                "Take over a policy of an evaluation",
                self.apply_from_evaluation,
                "InvalidContract",
            ),
            (
                Endpoint("GET", "/model/properties", none, properties, 200),
                "When the model was made",
                self.model_properties,
                usual,
            ),
            (
                Endpoint("GET", "/model", none, none, 200, query=ModelExport),
                "The model's bytes",
                self.export_model,
                usual,
            ),
            (
                Endpoint("DELETE", "/model", none, none, 204),
                "A model that has learned nothing",
                self.reset_model,
                usual,
            ),
            (
                Endpoint("GET", "/logs/properties", none, LogProperties, 200),
                "From when to when there is a log",
                self.log_properties,
                usual,
            ),
            (Endpoint("DELETE", "/logs", none, none, 204), "No log", self.delete_logs, usual),
        )

        routes = [
            PersonalizerRoute(
                endpoint,
                summary,
                scope="admin",
                handler=handler,
                refusal=refusal,
                refusals=_REFUSALS if endpoint.request is wanted else {},
            )
            for endpoint, summary, handler, refusal in table
        ]
        imports = PersonalizerRoute(
            Endpoint("PUT", "/model", bytes, none, 204),
            "Go on from a model",
            scope="admin",
            handler=self.import_model,
            refusal="InvalidModelImportFormat",
            limit=MODEL_LIMIT,
            is_raw=True,
        )
        return (*routes, imports)


async def _told(loop: Loop) -> ServiceConfiguration:
    """Return a loop's whole configuration."""
    spec = await loop.spec()
    return configuration_of(spec, await loop.apprenticeship() if spec.imitates else None)


def _contract(spec: PolicySpec) -> PolicyContract:
    arguments = arguments_of(spec)
    return PolicyContract(name=digest(arguments.encode()), arguments=arguments)


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
