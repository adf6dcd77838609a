"""A signed model, as Personalizer exports it: a zip of the model, a certificate and a signature.

The key is made here, kept beside the salt, and known to nobody: the certificate is its own issuer.
So a signature tells whoever keeps the certificate that a model came from this service. An import
does not look at it.
"""

import contextlib
import io
import os
import secrets
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from serve_app.personalizer.loops.model_file import MODEL_IN_ZIP

CERTIFICATE, SIGNATURE = "signer.der", "sha512_signature.bin"
SIGNER = "model-signer.pem"
"""The file of the key and its certificate, in the data directory."""
_BITS = 2048
_VALID = timedelta(days=3650)


def signed_model(model: bytes, data_dir: Path) -> bytes:
    """Return the zip of a model that is signed.

    Args:
        model: as Vowpal Wabbit reads it.
        data_dir: where the key is kept, or will be.

    Raises:
        OSError: the key can neither be read nor made.
    """
    path = data_dir / SIGNER
    if not path.exists():
        _keep_new(path)
    kept = path.read_bytes()
    key = serialization.load_pem_private_key(kept, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise OSError(f"{path} holds no RSA key: remove it, and another is made")
    certificate = x509.load_pem_x509_certificate(kept)

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr(MODEL_IN_ZIP, model)
        parts.writestr(CERTIFICATE, certificate.public_bytes(serialization.Encoding.DER))
        parts.writestr(SIGNATURE, key.sign(model, padding.PKCS1v15(), hashes.SHA512()))
    return packed.getvalue()


def _keep_new(path: Path) -> None:
    """Make a key and its certificate; of several processes that do so at once, the first wins."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "banditloop models")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA512())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{SIGNER}.{secrets.token_hex(4)}")
    fresh.touch(mode=0o600)
    fresh.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
