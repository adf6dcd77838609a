"""Spans of OpenTelemetry, sent by OTLP over HTTP: the only module that imports the packages.

A span says when something began and ended, of which route, policy or source, and how it ended. It
holds no id of a user, and nothing of a request's context.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from policies.sources.remote import SENT_ALONG

TRACES_PATH = "/v1/traces"
SEND_S = 2.0
"""How long a collector may take to accept spans; what it does not accept is dropped."""
CLOSE_S = 1.0
"""How long the end of a process waits for its last spans to be sent."""


class Spans:
    """Makes the spans of one process, and sends them from a thread of its own.

    Whoever asks says in the header ``traceparent`` (W3C Trace Context) whether their trace is
    kept; of the others a share is.
    """

    def __init__(self, endpoint: str, sample: float, process: str) -> None:
        """Begin to send.

        Args:
            endpoint: the collector's, without the path of traces.
            sample: the share of requests without a trace of their own that are kept.
            process: the name of this one, as metrics have it.
        """
        resource = Resource.create(
            {
                "service.name": "banditloop",
                "service.version": version("banditloop"),
                "service.instance.id": process,
            }
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=resource,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}{TRACES_PATH}", timeout=SEND_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("banditloop")
        self._context = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        """Open the span of a request, and close it.

        Args:
            headers: of the request, as ASGI has them.
        """
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in {b"traceparent", b"tracestate"}
        }
        parent = self._context.extract(carrier)
        span = self._tracer.start_span("request", parent, SpanKind.SERVER)
        with use_span(span, end_on_exit=True, record_exception=False):
            yield span

    @contextmanager
    def part(self, name: str, attributes: Mapping[str, str]) -> Iterator[Span]:
        """Open the span of a part of what goes on now, and close it; a failure is its status.

        What remote sources are asked meanwhile is told whose part it is.

        Args:
            name: what is done.
            attributes: of what.
        """
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes), record_exception=False
        ) as span:
            told: dict[str, str] = {}
            self._context.inject(told)
            reset = SENT_ALONG.set(told)
            try:
                yield span
            finally:
                SENT_ALONG.reset(reset)

    def close(self) -> None:
        """Send what is left, unless that takes too long."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def end_request(span: Span, name: str, status: int, attributes: Mapping[str, str]) -> None:
    """Say what a request was, once it is answered.

    Args:
        span: the request's.
        name: what it asked for, in few words that many requests share.
        status: that of its answer.
        attributes: more about it.
    """
    span.update_name(name)
    span.set_attributes({**attributes, "http.response.status_code": status})
    if status >= 500:
        span.set_status(StatusCode.ERROR)
