"""A self-signed certificate for this machine's address, kept in the user's cache. Browsers give a camera to https pages only."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import tempfile
from pathlib import Path

from lavit_edge.errors import UserError

LASTS = datetime.timedelta(days=365)  # iOS refuses more than 825
LEFT = datetime.timedelta(days=7)  # with less left a new one is made


def lan_address() -> str:
    """The IPv4 address by which this machine's network knows it.

    Raises:
        UserError: it is in no network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; UDP, so that nothing is sent
            address = str(probe.getsockname()[0])
        except OSError as error:
            raise UserError("--lan: this machine is in no network; leave --lan out to serve it here") from error
    if ipaddress.ip_address(address).is_loopback:
        raise UserError("--lan: this machine is in no network; leave --lan out to serve it here")
    return address


def certificate(address: str) -> tuple[Path, str]:
    """A PEM file with private key and certificate, mode 600, and the certificate's SHA-256 for people.

    It is made when there is none for this address in ``$XDG_CACHE_HOME`` or ``~/.cache``, or when it ends soon.

    Raises:
        UserError: the package ``cryptography`` is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
    except ImportError as error:
        raise UserError(f"--lan needs cryptography ({error}); pip install 'lavit-edge[serve]'") from error
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lavit-edge-serve"
    path = folder / f"{address}.pem"
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if found is None or found.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < LEFT:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = _make(address)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as temporary:  # its mode is 600
            temporary.write(pem)
        os.replace(temporary.name, path)
        found = x509.load_pem_x509_certificate(pem)
    return path, found.fingerprint(hashes.SHA256()).hex(":").upper()


def _make(address: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lavit-edge")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # a phone's clock may be behind
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + made.public_bytes(serialization.Encoding.PEM)
