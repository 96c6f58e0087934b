"""Signatures of bundles."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status


def round_trip() -> tuple[Status, str]:
    """Signs a folder with a fresh key, checks it, and checks it again after a change."""
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec

    from lavit_edge.artifact.signing import sign_bundle, signature_mismatch

    key = ec.generate_private_key(ec.SECP256R1())
    with tempfile.TemporaryDirectory() as root:
        private, public, bundle = Path(root, "private.pem"), Path(root, "public.pem"), Path(root, "bundle")
        private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
        bundle.mkdir()
        (bundle / "file").write_text("as signed")
        sign_bundle(bundle, private)
        whole = signature_mismatch(bundle, public)
        (bundle / "file").write_text("changed")
        changed = signature_mismatch(bundle, public)
    if whole or not changed:
        return "FAIL", whole or "a changed file was not noticed"
    return "OK", "a signed folder verifies, a changed one does not"


PROBES = (Probe("sign and verify", round_trip, pins.repair("signing")),)
