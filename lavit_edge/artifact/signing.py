"""Detached signatures of bundles, by OpenSSF Model Signing with a key pair of an elliptic curve.

    openssl ecparam -name prime256v1 -genkey -noout -out private.pem
    openssl ec -in private.pem -pubout -out public.pem

The signature, ``bundle.sig``, covers every other file of the bundle; ``model_signing verify key`` reads it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lavit_edge.errors import UserError

SIGNATURE = "bundle.sig"


def sign_bundle(bundle: Path, private_key: Path) -> None:
    """Writes ``bundle.sig`` into a bundle. Raises :class:`UserError` for a key that cannot be used."""
    signing, _, hashing = _library()
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(hashing(bundle))
        config.sign(bundle, bundle / SIGNATURE)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"cannot sign with {private_key} ({_line(error)}); it must be an unencrypted EC private key in PEM"
        ) from error


def signature_mismatch(bundle: Path, public_key: Path) -> str | None:
    """None when every file of the bundle is what the owner of the key signed, else what is wrong, in one line.

    Raises:
        UserError: the public key cannot be used.
    """
    _, verifying, hashing = _library()
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(hashing(bundle))
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{public_key} is not an EC public key in PEM ({_line(error)})") from error
    if not (bundle / SIGNATURE).is_file():
        return f"{bundle} is not signed: it has no {SIGNATURE}"
    try:
        config.verify(bundle, bundle / SIGNATURE)
    except (
        Exception
    ) as error:  # damaged JSON: KeyError, TypeError and others; another key: InvalidSignature; another file: ValueError
        return f"{bundle} is not what the owner of {public_key} signed ({type(error).__name__}: {_line(error)})"
    return None


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise UserError(f"signatures need model-signing ({error}); pip install 'lavit-edge[signing]'") from error
    return (
        signing,
        verifying,
        lambda bundle: hashing.Config().set_ignored_paths(paths=[bundle / SIGNATURE], ignore_git_paths=False),
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
