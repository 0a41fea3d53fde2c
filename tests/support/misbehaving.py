"""Plugins that damage a command on import: they end it, do not return, or change the process."""

from __future__ import annotations

from pathlib import Path

HOOK = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_register(registry):
    while True: pass
"""

FAULTS = {
    "exit": ("import os; os._exit(0)", "exit code 0"),
    "exit-code": ("import os; os._exit(3)", "exit code 3"),
    "abort": ("import os; os.abort()", "signal 6"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "signal 9"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "toy_segfault.py, line 1)"),
    "loop": ("\nwhile True: pass", "toy_loop.py, line 2)"),
    "loop-in-hook": (HOOK, "toy_loop_in_hook.py, line 6)"),
    "sleep": ("import time\ntime.sleep(1e6)", "toy_sleep.py, line 2)"),
    "stopped": ("import os; os.kill(os.getpid(), 19)", "must be imported within"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt ("),
    "base": ("class Own(BaseException): ...\nraise Own('no luck')", "Own: no luck ("),
    "thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait).start()",
        "must not keep the process alive",
    ),
    "at-exit": ("import atexit, os; atexit.register(os._exit, 7)", "exit code 7"),
    "stdout": ("import io, sys; sys.stdout = io.StringIO()", "sys.stdout"),
    "stderr": ("import io, sys; sys.stderr = io.StringIO()", "sys.stderr"),
    "closed": ("import sys; sys.stdout.close()", "sys.stdout"),
    "descriptor": ("import os; os.system('echo text')", "descriptor 1"),
    "no-descriptor": ("import os; os.close(1)", "descriptor 1"),
    "stdin": ("input()", "stdin"),
    "environment": ("import os; os.environ['OMP_NUM_THREADS'] = '77'", "OMP_NUM_THREADS"),
    "folder": ("import os; os.chdir('..')", "working directory"),
    "signal": ("import signal; signal.signal(15, signal.SIG_IGN)", "signal 15"),
    "at-exit-success": ("import atexit, os; atexit.register(os._exit, 0)", "exit code 0"),
    "timer": ("import signal; signal.setitimer(signal.ITIMER_REAL, 1e4)", "interval timer"),
    "alarm": ("import signal; signal.alarm(10_000)", "interval timer"),
    "umask": ("import os; os.umask(0o777)", "umask"),
    "path-first": ("import sys; sys.path.insert(0, '/tmp')", "sys.path"),
    "path-removed": ("import sys; sys.path.clear()", "sys.path"),
    "arguments": ("import sys; sys.argv[1:] = ['--help']", "sys.argv"),
    "excepthook": ("import sys; sys.excepthook = print", "sys.excepthook"),
    "builtin": ("import builtins; builtins.print = lambda *a, **k: None", "builtins.print"),
    "function": ("import json; json.loads = json.dumps = lambda *a, **k: {}", "json.loads"),
    "method": ("import json; json.JSONEncoder.default = repr", "json.JSONEncoder.default"),
    "later-module": ("import tomllib; tomllib.loads = lambda text: {}", "tomllib.loads"),
    "fsize": (
        "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (4000, r.RLIM_INFINITY))",
        "RLIMIT_FSIZE",
    ),
    "cpu": ("import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 1))", "RLIMIT_CPU"),
    "recursion": ("import sys; sys.setrecursionlimit(90)", "recursion limit"),
    "no-gc": ("import gc; gc.disable()", "garbage collector"),
    "trace": ("import sys; sys.settrace(lambda *a: None)", "the trace function"),
    "temporary": ("import tempfile; tempfile.tempdir = '/nowhere'", "temporary files"),
    "finder": (
        "import sys\nclass Own:\n def find_spec(self, *a): return None\n"
        "sys.meta_path.insert(0, Own())",
        "sys.meta_path",
    ),
    "path-hook": ("import sys; sys.path_hooks.insert(0, int)", "sys.path_hooks"),
    "module": (
        "import sys, types; sys.modules['tempfile'] = types.ModuleType('tempfile')",
        "module tempfile",
    ),
    "own-function": (
        "import genkit.files; genkit.files.write_text = lambda *a: None",
        "genkit.files.write_text",
    ),
    "own-module": (
        "import sys, types; sys.modules['genkit.rows'] = types.ModuleType('genkit.rows')",
        "module genkit.rows",
    ),
    "fork": ("import os, time\nif not os.fork(): time.sleep(60); os._exit(0)", "child processes"),
    "daemon-thread": (
        "import os, threading\nthreading.Timer.daemon = True\n"
        "threading.Timer(60, os._exit, (0,)).start()",
        "daemon threads",
    ),
    "endless": (
        "import faulthandler; faulthandler.cancel_dump_traceback_later()\nwhile True: pass",
        "must be imported within",
    ),
    "group": ("import os; os.killpg(0, 15)", "signal 15"),
    "unprintable": (
        "class Own(BaseException):\n def __str__(self): raise SystemExit(0)\nraise Own",
        "Own (",
    ),
    "unprintable-error": (
        "class Own(Exception):\n def __str__(self): raise KeyError\nraise Own",
        "Own (",
    ),
    "random": ("import random; random.seed(0)", "random state"),
}
"""Code of a plugin that does not return control, or changes the process; part of the reason."""


def write_plugin(
    folder: Path, distribution: str, code: str, *, plugin: str = "", value: str = ""
) -> str:
    """Write a plugin and the metadata of its distribution to a folder; return its module."""
    module = f"toy_{distribution.replace('-', '_')}"
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    entry = f"{plugin or distribution} = {value or module}\n"
    (info / "entry_points.txt").write_text(f"[genkit.plugins]\n{entry}")
    return module
