"""The one error of the client."""


class ServiceError(Exception):
    """The service refused, or could not be reached.

    Attributes:
        status: of HTTP; 0 when no answer came.
        service_code: the service's code of the error; ``unreachable`` when no answer came.
        message: what is wrong, in words.
        target: the field at fault, if there is one.
    """

    code = "service_error"

    def __init__(self, status: int, code: str, message: str, target: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.service_code = code
        self.message = message
        self.target = target
