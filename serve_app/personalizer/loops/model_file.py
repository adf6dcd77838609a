"""A model that somebody brings: whether Vowpal Wabbit reads it, tried where it may crash.

Run as a program it reads a model from its input, and ends with status 0 where a learner of the
arguments it is given goes on from it.
"""

import contextlib
import io
import lzma
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator

from bandits.errors import BanditloopError
from bandits.vw.payloads import encode_model
from serve_app.personalizer.refusals import RefusedCall

MODEL_IN_ZIP = "model.vw"
SIGNED = CERTIFICATE, SIGNATURE = "signer.der", "sha512_signature.bin"
"""What stands beside the model in the zip of a signed export: who has signed, and how."""
SMALL = 1 << 16
PATIENCE_S = 60.0
LARGEST = 256 << 20
_FORMAT = "InvalidModelImportFormat"


def checkpoint_of(sent: bytes, args: str) -> bytes:
    """Return what a learner goes on from: the model that was sent, alone or as a signed export.

    A signature is not asked for; one that is there, and that a service like this one has made, has
    to be of the model.

    Args:
        sent: a model of Vowpal Wabbit, or a zip that has one.
        args: the learner's arguments.

    Raises:
        RefusedCall: it is no model, or none of these arguments.
    """
    model = _unpacked(sent) if zipfile.is_zipfile(io.BytesIO(sent)) else sent
    if not model:
        raise RefusedCall(400, _FORMAT, "the body is empty: send a model", "body")

    # Vowpal Wabbit may end its process on what is no model, so it is another process than this.
    try:
        tried = subprocess.run(  # noqa: S603 - this program, and arguments that were admitted
            [sys.executable, "-m", __name__, args],
            input=model,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = f"Vowpal Wabbit has not read it within {PATIENCE_S:g} s"
        raise RefusedCall(400, _FORMAT, said, "body") from error
    if tried.returncode:
        said = tried.stdout.decode(errors="replace").strip() or "Vowpal Wabbit cannot read it"
        raise RefusedCall(400, _FORMAT, f"not a model of '{args}': {said}", "body")
    return encode_model(args, 1, 0, model)


def _unpacked(sent: bytes) -> bytes:
    """Return the model within a zip; refuse one that cannot be unpacked, or not into memory."""
    with _refusing_zips(), zipfile.ZipFile(io.BytesIO(sent)) as parts:
        try:
            about = parts.getinfo(MODEL_IN_ZIP)
        except KeyError as error:
            raise RefusedCall(400, _FORMAT, f"a zip without {MODEL_IN_ZIP}", "body") from error
        if about.file_size > LARGEST:
            raise RefusedCall(
                400, _FORMAT, f"{MODEL_IN_ZIP} has more than {LARGEST >> 20} MiB unpacked", "body"
            )
        model = parts.read(about)
        signed = [_small_part(parts, name) for name in SIGNED]

    from serve_app.personalizer.loops.signing import demand_own  # noqa: PLC0415 - a child does without

    demand_own(model, *signed)
    return model


def _small_part(parts: zipfile.ZipFile, name: str) -> bytes | None:
    """Return a part of a zip that is small; None: there is none."""
    if name not in parts.namelist():
        return None
    about = parts.getinfo(name)
    return parts.read(about) if about.file_size <= SMALL else b""


@contextlib.contextmanager
def _refusing_zips() -> Iterator[None]:
    """Refuse whatever zipfile and its decompressors raise of what is broken, or not known."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise RefusedCall(400, _FORMAT, f"a zip that is broken: {error}", "body") from error
    except (RuntimeError, ValueError) as error:  # one that is encrypted, or of an unknown method
        raise RefusedCall(400, _FORMAT, f"a zip that cannot be read: {error}", "body") from error


def _try() -> int:
    from bandits.vw.learner import VwLearner  # noqa: PLC0415 - a replica does without

    args = sys.argv[1]
    try:
        VwLearner(args, checkpoint=encode_model(args, 1, 0, sys.stdin.buffer.read())).checkpoint()
    except BanditloopError as error:
        sys.stdout.write(error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_try())
