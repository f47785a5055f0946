"""What a program that a model wrote runs inside: started as a script by ``programs.py``, in a process of its own.

It takes everything away from itself that a short program does not need, then runs it: the network, other processes,
files outside its folder, and more than its share of time, memory and disk. Of Linux it uses seccomp and Landlock, which
ask for no privileges; where there is neither, it says so. It keeps accidents in, not an attacker with patience.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import types

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, AUDIT_ARCH
# System calls that fail: on x86-64 and on ARM64, where the older ones are missing.
FORBIDDEN: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "network": ((41, 53, 425), (198, 199, 425)),  # socket, socketpair, io_uring_setup
    "processes": ((56, 57, 58, 59, 322, 435), (220, 221, 281, 435)),  # clone, fork, vfork, execve, execveat, clone3
    "signals to others": ((62, 200, 234, 424), (129, 130, 131, 424)),  # kill, tkill, tgkill, pidfd_send_signal
    "memory of others": ((101, 310, 311), (117, 270, 271)),  # ptrace, process_vm_readv, process_vm_writev
    # truncate, chmod, fchmod, chown, fchown, lchown, fchownat, fchmodat, fchmodat2, utime to utimensat, setxattr
    "changes to files by name": (
        (76, 90, 91, 92, 93, 94, 260, 268, 452, 132, 235, 261, 280, 188, 189, 190),
        (45, 52, 53, 54, 55, 452, 88, 5, 6, 7),
    ),
    "limits": ((160, 302), (164, 261)),  # setrlimit, prlimit64: root could raise them
    "the system": ((155, 161, 165, 169, 272, 321), (41, 51, 40, 142, 97, 280)),  # pivot_root to unshare and bpf
}
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # what a filter answers; a denied call gives EPERM
LOAD, EQUAL, AT_LEAST, ANSWER = 0x20, 0x15, 0x35, 0x06  # instructions of the filter

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # Landlock, the same numbers everywhere
READ = 0b1100  # read a file, list a folder
EVERYTHING = (1 << 13) - 1  # the rights of its first version


def main() -> None:
    """Read the program from standard input, give up what it must not have, run it, and say that it came to its end."""
    job = json.loads(sys.stdin.buffer.read())
    report = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    missing = confine(os.getcwd(), job["seconds"], job["memory"], job["disk"])
    os.write(report, json.dumps(missing).encode() + b"\n")
    module = types.ModuleType("program")
    sys.modules["program"] = module
    exec(compile(job["source"], "<program>", "exec"), module.__dict__)
    os.write(report, job["token"].encode())


def confine(folder: str, seconds: int, memory: int, disk: int) -> list[str]:
    """Give up what a program must not have; returns what of that this system cannot take away."""
    missing = []
    limits = {"CPU": seconds, "AS": memory, "FSIZE": disk, "NOFILE": 64, "CORE": 0}
    for name, most in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
        except (ValueError, OSError):  # of the address space on macOS
            missing.append(f"RLIMIT_{name}")
    if not _only_files_in(folder):
        missing.append("files")
    if not _without_calls():
        missing += FORBIDDEN
    return missing


def _only_files_in(folder: str) -> bool:
    """Landlock: nothing is written outside ``folder``, nothing read but Python and the system's libraries."""
    if platform.system() != "Linux":
        return False
    system = _libc().syscall
    handled = ctypes.c_uint64(EVERYTHING)
    ruleset = system(CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if ruleset < 0:
        return False
    readable = {sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc", "/dev", "/proc/self"}
    for path, rights in [(folder, EVERYTHING), (os.devnull, EVERYTHING), *((path, READ) for path in readable)]:
        if not os.path.exists(path):
            continue
        rights &= EVERYTHING if os.path.isdir(path) else 0b111  # of a file: execute, write, read
        place = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place), 12)
        system(ADD_RULE, ruleset, 1, rule, 0)
        os.close(place)
    _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(system(RESTRICT_SELF, ruleset, 0) == 0)


def _without_calls() -> bool:
    """seccomp: the system calls of ``FORBIDDEN`` fail from now on."""
    if platform.system() != "Linux" or platform.machine() not in ARCHITECTURES:
        return False
    column, architecture = ARCHITECTURES[platform.machine()]
    numbers = [number for calls in FORBIDDEN.values() for number in calls[column]]
    rows = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (ANSWER, 0, 0, KILL), (LOAD, 0, 0, 0)]
    rows.append((AT_LEAST, len(numbers) + 1, 0, 0x40000000))  # the same calls by the numbers of x32
    rows += [(EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    rows += [(ANSWER, 0, 0, ALLOW), (ANSWER, 0, 0, DENY)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(rows), ctypes.addressof(code)))
    libc = _libc()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) == 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main()
