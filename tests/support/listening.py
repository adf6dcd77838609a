"""Where processes listen, read from /proc: what anybody may see of his own processes."""

import contextlib
import ipaddress
from pathlib import Path

LISTEN = "0A"


def listening(pids: set[int]) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket that one of the processes listens on.

    IPv4 within IPv6 reads as IPv4.
    """
    found = set()
    for pid in pids:
        process = Path("/proc") / str(pid)
        inodes = set()
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(descriptor.readlink())
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                for line in (process / "net" / table).read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == LISTEN and fields[9] in inodes:
                        address, _, port = fields[1].partition(":")
                        found.add((_address(address), int(port, 16)))
    return found


def _address(raw: str) -> str:
    """The kernel prints words of four bytes, each in the machine's order."""
    data = b"".join(bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8))
    address = ipaddress.ip_address(data)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
