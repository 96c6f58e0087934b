"""``python -m lavit_edge.serve``: an ``.onnx`` of ours in a web page, on this machine or on a phone.

Exit codes: 2 a mistake that one line on stderr explains; 130 ended with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from pathlib import Path

from lavit_edge.cli import Parser, run_command
from lavit_edge.errors import UserError
from lavit_edge.serve.certificate import certificate, lan_address
from lavit_edge.serve.server import check_model, find_model, serving, site


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.serve", description="Show a model in a web page: camera or picture, labels, speed, a benchmark.")
    p.add_argument("model", nargs="?", type=Path, default=Path("bundle"), help="an .onnx, a bundle, or a folder with one bundle")
    p.add_argument("--port", type=int, default=8000, help="0: one that is free")
    p.add_argument("--lan", action="store_true", help="also over https to this machine's network, with a QR code for a phone")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must be 0 to 65535, not {args.port}")
    path = find_model(args.model)
    payload = check_model(path)
    address = lan_address() if args.lan else None
    pem, fingerprint = certificate(address) if address else (None, "")
    files = site(path)
    with serving("127.0.0.1", args.port, files) as port:
        print(f"{path}: {len(payload.contract.labels)} labels, {payload.contract.size} px")
        print(f"http://localhost:{port}/  on this machine")
        with contextlib.ExitStack() as stack:
            if address and pem:
                stack.enter_context(serving(address, port, files, pem))
                print_invitation(f"https://{address}:{port}/", fingerprint)
            print("Ctrl-C ends it", flush=True)
            threading.Event().wait()
    return 0


def print_invitation(url: str, fingerprint: str) -> None:
    """Where a phone finds the page, for its camera to read."""
    try:
        import segno
    except ImportError as error:
        raise UserError(f"--lan needs segno ({error}); pip install 'lavit-edge[serve]'") from error
    print(f"{url}  on your network, to everybody in it")
    print("The browser warns of the certificate, which this machine has made itself. SHA-256:")
    print(f"  {fingerprint[:47]}\n  {fingerprint[48:]}")
    segno.make(url).terminal(compact=True)


if __name__ == "__main__":
    run_command(main)
