"""User code that does to its process what none should, once a file says so."""

from support.runs.bare_run import BareRun
from support.runs.project import Project

MISBEHAVING = """
    import ctypes
    import multiprocessing
    import os
    import random
    import signal
    import subprocess
    import sys
    import threading
    import time
    import warnings
    from concurrent.futures import ProcessPoolExecutor

    from blobs import blobs
    from model import Net
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import Dataset

    from epochal.engine import StepOutput

    PLAN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plan.txt")
    calls, kept = {}, []

    class Odd(BaseException):
        '''No Exception.'''

    class Unmakeable(Exception):
        def __init__(self, one, *, other):
            super().__init__(f"{one} and {other}")
            self.lock = open(os.devnull)

        def __reduce__(self):
            raise TypeError("not to be pickled")

    class Mute(Exception):
        def __str__(self):
            raise ValueError("nothing to say")

        __repr__ = __str__

    class MuteFile(OSError):
        __str__ = __repr__ = Mute.__str__

    def deeper(depth):
        return deeper(depth + 1)

    def misbehave(kind):
        match kind:
            case "exit": sys.exit(0)
            case "exit-text": sys.exit("enough of it")
            case "_exit-0": os._exit(0)
            case "_exit-7": os._exit(7)
            case "segfault": ctypes.string_at(0)
            case "kill": os.kill(os.getpid(), signal.SIGKILL)
            case "abort": os.abort()
            case "ctrl-c": raise KeyboardInterrupt
            case "generator": raise GeneratorExit
            case "odd": raise Odd("odd")
            case "recursion": deeper(0)
            case "memory": raise MemoryError
            case "file": open("/nowhere/labels.txt")
            case "mute": raise Mute
            case "mute-file": raise MuteFile(2, "x")
            case "long": raise ValueError("long " * 2_000_000)
            case "unmakeable": raise Unmakeable(1, other=2)
            case "sleep":
                asleep()
                time.sleep(3600)
            case "own-handler":
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                asleep()
                time.sleep(3600)
            case "fork":
                if os.fork() == 0:
                    os._exit(0)
            case "fork-back": os.fork()
            case "fork-kill":
                if os.fork() == 0:
                    time.sleep(3600)
                os.kill(os.getpid(), signal.SIGKILL)
            case "handler": signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case "chdir": os.chdir("/")
            case "mute-output":
                sys.stdout = sys.stderr = None
                print("to nobody")
            case "warnings": warnings.simplefilter("error")
            case "path": sys.path[:] = []
            case "thread": threading.Thread(target=draw, daemon=True).start()
            case "pool":
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    assert pool.map(abs, [-1, 2]) == [1, 2]
            case "spawned":
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    assert pool.submit(abs, -1).result() == 1
            case "terminated":
                context = multiprocessing.get_context("fork")
                process = context.Process(target=time.sleep, args=(3600,))
                process.start()
                process.terminate()
                process.join()
            case "left": kept.append(subprocess.Popen(["sleep", "3600"]))
            case "fork-sleep":
                os.fork()
                asleep()
                time.sleep(3600)
            case "kept-pool":
                kept.append(multiprocessing.get_context("fork").Pool(2))
                kept[0].map(abs, [-1, 2])
            case "held":
                asleep()
                ctypes.PyDLL(None).sem_wait(ctypes.create_string_buffer(32))  # with the GIL
            case "stop":
                asleep()
                os.kill(os.getpid(), signal.SIGSTOP)
            case "closed": os.closerange(3, 4096)
            case "closed-hang":
                os.closerange(3, 256)
                time.sleep(3600)
            case "value": raise ValueError("no good")
            case _: raise AssertionError(kind)

    def asleep():
        with open(os.path.join(os.path.dirname(PLAN), "asleep.txt"), "w") as file:
            file.write(str(os.getpid()))

    def draw():
        while True:
            random.random()
            time.sleep(0.001)

    def at(place):
        try:
            with open(PLAN) as file:
                kind, where, count = file.read().split()
        except FileNotFoundError:
            return
        if where == place:
            calls[place] = calls.get(place, 0) + 1
            if calls[place] == int(count):
                misbehave(kind)

    class Model(Net):
        def forward(self, x):
            if self.training:
                at("model")
            return super().forward(x)

    class Step:
        def __call__(self, model, batch):
            at("step")
            outputs = model(batch[0])
            loss = functional.cross_entropy(outputs, batch[1], reduction="none")
            return StepOutput(loss, outputs)

    class Loss(nn.Module):
        def __init__(self, reduction="none"):
            super().__init__()
            self.reduction = reduction

        def forward(self, outputs, target):
            at("loss")
            return functional.cross_entropy(outputs, target, reduction=self.reduction)

    class Items(Dataset):
        def __init__(self):
            self.data = blobs("train", size=96)

        def fingerprint(self):
            return "items"

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            at("item")
            value, label = self.data[row]
            return value + random.random(), label

    class Metric:
        def __init__(self):
            self.seen = 0

        def update(self, outputs, target):
            at("update")
            self.seen += len(target)

        def compute(self):
            at("compute")
            return 0.5
"""

PLACES = ("model", "step", "loss", "item", "workers", "update", "compute")


def misbehaving_project(folder, **changes) -> Project:
    """Two epochs of six updates over items of a data set; what goes wrong is said by `plan`."""
    made = Project(
        folder,
        **{
            "epochs": 2,
            "threads": 1,
            "sampling": {"policy": "none"},
            "model": {"target": "misbehaving:Model"},
            "train_data": {"target": "misbehaving:Items"},
            "metrics": {"validation": [{"target": "misbehaving:Metric", "name": "mine"}]},
            "loader": {"batch_size": 8},
            "checkpoint": {"every_updates": 1},
            "launch": {"kind": "local"},
            **changes,
        },
    )
    made.write("misbehaving.py", MISBEHAVING)
    return made


def local_run(config, **sets):
    """A bare run with a trainer process, unless it is said otherwise."""
    return BareRun(config, **{"launch__kind": "local", **sets})


def pid_of(run):
    """Of the run's trainer."""
    return run.session.trainer.pid


def sets_of(place):
    """The changes to the config that bring the code in which that place is."""
    return {
        "step": {"step": "{target: 'misbehaving:Step'}"},
        "loss": {"loss": "{target: 'misbehaving:Loss'}"},
        "workers": {"loader__workers": 2},
    }.get(place, {})


def plan(project, kind, place, count=1):
    """From now on the code does `kind` at the `count`th call of the place."""
    where = "item" if place == "workers" else place
    (project.folder / "plan.txt").write_text(f"{kind} {where} {count}")


def mend(project):
    """From now on it behaves."""
    (project.folder / "plan.txt").unlink(missing_ok=True)
