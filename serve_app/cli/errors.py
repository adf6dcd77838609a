"""How the command line reports an error: its code and message, in one line on standard error."""


def say_error(error: Exception) -> bool:
    """Print an expected error in one line; return False for any other, which is a fault of ours."""
    described = _code_and_message(error)
    if described is None:
        return False

    # A command that succeeds does without, and `banditloop --help` does.
    from serve_app.cli.terminal import say

    code, message = described
    say(("error", "red"), f" {code}: {' '.join(message.split())}")
    return True


def _code_and_message(error: Exception) -> tuple[str, str] | None:
    from banditloop_client.errors import ServiceError
    from bandits.errors import BanditloopError, plain

    if isinstance(error, BanditloopError | ServiceError):
        return error.code, error.message

    if isinstance(error, MemoryError):
        return "memory", "not enough memory: pass fewer rows, or run fewer --jobs at a time"

    # Imported only now: a command that succeeds, or fails by an error of ours, does without.
    from numpy.linalg import LinAlgError
    from pydantic import ValidationError

    from serve_app.store.clients import REDIS_ERRORS

    described = None
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        described = "invalid_setting", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    elif isinstance(error, REDIS_ERRORS):
        where = "--redis-url, BANDITLOOP_REDIS_URL or the embedded Valkey"
        described = "redis_failed", f"{plain(error)}: is the Redis of {where} still running?"
    elif isinstance(error, OSError):
        described = "system", plain(error)
    elif isinstance(error, (ArithmeticError, LinAlgError)):
        message = f"a computation failed ({plain(error)}): look for extreme numbers in the input"
        described = "numbers", message
    return described
