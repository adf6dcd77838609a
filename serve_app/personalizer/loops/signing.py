"""A signed model, as Personalizer exports it: a zip of the model, a certificate and a signature.

The key is made here, kept beside the salt, and known to nobody: the certificate is its own issuer.
So a signature tells whoever keeps the certificate that a model came from this service. An import
looks whether it is of the model beside it, where a service like this one has signed; what Azure has
signed, and how, cannot be looked at.
"""

import contextlib
import io
import os
import secrets
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from serve_app.personalizer.loops.model_file import CERTIFICATE, MODEL_IN_ZIP, SIGNATURE
from serve_app.personalizer.refusals import RefusedCall

SIGNER = "model-signer.pem"
"""The file of the key and its certificate, in the data directory."""
_BITS = 2048
_VALID = timedelta(days=3650)
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "banditloop models")])


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


def demand_own(model: bytes, certificate: bytes | None, signature: bytes | None) -> None:
    """Refuse a model whose signature is of another one, if a service like this one has signed.

    Args:
        model: what was signed.
        certificate: the part of a zip that says who has signed; None: there is none.
        signature: that of the signature.

    Raises:
        RefusedCall: the signature is of another model, or half of it is not there.
    """
    if certificate is None and signature is None:
        return
    said = "an export is a model, its certificate and its signature, as they were exported together"
    refusal = RefusedCall(400, "InvalidModelImportSignature", said, "body")
    if certificate is None or signature is None:
        raise refusal

    try:
        signer = x509.load_der_x509_certificate(certificate)
    except ValueError as error:
        raise refusal from error
    key = signer.public_key()
    if signer.issuer != _NAME or not isinstance(key, rsa.RSAPublicKey):
        return
    try:
        key.verify(signature, model, padding.PKCS1v15(), hashes.SHA512())
    except InvalidSignature as error:
        raise refusal from error


def _keep_new(path: Path) -> None:
    """Make a key and its certificate; of several processes that do so at once, the first wins."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
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
