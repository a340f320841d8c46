"""User code that fails: a model, data set, metric, loss or schedule that raises what it is told."""

FAILING = """
    import sys

    import torch
    from blobs import blobs
    from model import Net
    from torch import nn
    from torch.utils.data import Dataset

    class Odd(BaseException):
        '''No Exception: what `except Exception` lets through.'''

    def fail(kind):
        if kind == "exit":
            sys.exit(0)
        if kind == "odd":
            raise Odd("odd")
        if kind == "ctrl-c":
            raise KeyboardInterrupt
        if kind == "file":
            open("/nowhere/labels.txt")
        if kind == "key":
            lookup({}, "missing")

    def lookup(table, key):
        return table[key]

    class Model(Net):
        def __init__(self, kind="none", at_call=5, built="none"):
            super().__init__()
            self.kind, self.at_call = kind, at_call
            self.encoder = nn.Sequential(*[nn.Linear(6, 6) for _ in range(12)])
            fail(built)

        def forward(self, x):
            if self.training and self.calls == self.at_call:
                fail(self.kind)
                if self.kind == "shape":
                    self.encoder(torch.cat([x, x], dim=1)[:, :5])
            return super().forward(x)

    def meta():
        return nn.Linear(6, 3, device="meta")

    class Items(Dataset):
        def __init__(self, kind, at):
            self.data, self.kind, self.at = blobs("train"), kind, at

        def fingerprint(self):
            return f"items {self.kind}"

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            if row == self.at:
                fail(self.kind)
            return self.data[row]

    class Metric:
        '''Computes `given` of more than two samples.'''

        def __init__(self, kind="none", given="0.5", after=2):
            self.kind, self.given, self.seen, self.after = kind, given, 0, after

        def update(self, outputs, target):
            self.seen += len(target)

        def compute(self):
            if self.seen <= self.after:
                return 0.5
            fail(self.kind)
            given = {"text": "high", "nothing": None, "two": torch.ones(2), "nan": float("nan")}
            return given.get(self.given, 0.5)

    def rate(t, kind="none"):
        fail(kind)
        return 1.0
"""


def target(name, **args):
    """A target of the module as an override: `{target: 'failing:Model', args: {…}}`."""
    given = ", ".join(f"{key}: {value}" for key, value in args.items())
    return f"{{target: 'failing:{name}', args: {{{given}}}}}"


def metric(**args):
    """An override of `metrics.validation` with `failing:Metric`."""
    given = ", ".join(f"{key}: {value}" for key, value in args.items())
    return f"[accuracy, {{target: 'failing:Metric', name: mine, args: {{{given}}}}}]"
