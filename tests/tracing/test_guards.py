import enum
import functools
import gc
import sys
import textwrap
import threading
import time
import types
import warnings
import weakref

import numpy as np
import pytest

from staticgrad.errors import StaticgradWarning
from staticgrad.tracing.guards import Guards


def module(source, name="settings_for_guards", **names):
    """Run `source` as a user's module and return it."""
    made = types.ModuleType(name)
    vars(made).update(names)
    exec(compile(textwrap.dedent(source), f"/home/user/{name}.py", "exec"), vars(made))
    return made


def step_of(source, **names):
    """Return a module that defines `step` and its guards."""
    made = module(source, "m", **names)
    guards = Guards.collect(made.step)
    assert guards.changed() is None
    return made, guards


# --- scalars -----------------------------------------------------------------------------------------------------------------


def test_rebound_global_is_named_with_both_values():
    m, guards = step_of("lr = 0.1\ndef step(x): return lr * x")
    m.lr = 0.2
    assert guards.changed() == "global 'lr' of module m changed from 0.1 to 0.2"
    m.lr = 0.1
    assert guards.changed() is None


@pytest.mark.parametrize("nested", ["[lr * i for i in range(3)]", "(lambda: lr)()", "sum(lr for _ in x)", "max(x, key=lambda v: lr)"])
def test_global_in_nested_code(nested):
    m, guards = step_of(f"lr = 0.1\ndef step(x): return {nested}")
    m.lr = 0.2
    assert "'lr'" in guards.changed()


def test_global_in_inner_class_body_and_default():
    m, guards = step_of(
        """
        a = b = c = 1
        def step(x):
            def inner(v, k=a):
                class Local:
                    rate = b
                    def run(self): return c
                return Local
            return inner
        """
    )
    for name in "abc":
        setattr(m, name, 2)
        assert f"'{name}'" in guards.changed()
        setattr(m, name, 1)


OLD_NEW = [
    (0.0, -0.0),
    (1, 1.0),
    (1, True),
    (1, 2),
    ("a", "b"),
    ("1", b"1"),
    ("a" * 5000 + "b", "a" * 5000 + "c"),
    (None, 0),
    (1j, complex(-0.0, 1.0)),
    (0.5, float("nan")),
    (np.float64(1.0), 1.0),
    (np.float64(1.0), np.float32(1.0)),
    (np.float64(0.0), np.float64(-0.0)),
    (np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00")),
    (10**5000, 10**5000 + 1),
    (enum.Enum("E", "a b").a, 1),
    (np.float32, np.float64),
    (np.sin, np.cos),
    ((1, 2), [1, 2]),
    ((1, (2, 3)), (1, (2, 4))),
    ([1], [1, 1]),
    ({"a": 1}, {"b": 1}),
    ({"a": 1}, {1: 1}),
    ({1: "a"}, {1.0: "a"}),
    ({1, 2}, {1, 3}),
    ({1}, {True}),
    (frozenset({1}), {1}),
    ([np.float64(0.0)], [np.float64(-0.0)]),
    ({"deep": [{"lr": (0.1,)}]}, {"deep": [{"lr": (0.2,)}]}),
]


@pytest.mark.parametrize(("old", "new"), OLD_NEW, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("place", ["global", "closure"])
def test_values_that_differ(old, new, place):
    if place == "global":
        m, guards = step_of("def step(x): return value", value=old)
        m.value = new
    else:
        value = old

        def step(x):
            return value

        guards = Guards.collect(step)
        assert guards.changed() is None
        value = new
    assert guards.changed() is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: float("0.1"),
        lambda: float("nan"),
        lambda: complex(float("nan"), 1),
        lambda: int("1" * 40),
        lambda: "".join(["a", "b"]),
        lambda: np.float64("0.25"),
        lambda: np.float32("nan"),
        lambda: [0.1, float("nan"), (1, {"a": {2}})],
        lambda: {"b": 1, "a": 2},
        lambda: "long" * 1000,
        lambda: {1, "a", None},
        lambda: list(range(90)),
    ],
)
def test_an_equal_value_in_another_object_changes_nothing(make):
    m, guards = step_of("def step(x): return value", value=make())
    m.value = make()
    assert guards.changed() is None


def test_order_of_dict_entries_does_not_matter():
    m, guards = step_of("def step(x): return value", value={"a": 1, "b": 2})
    m.value = {"b": 2, "a": 1}
    assert guards.changed() is None


def test_a_rebound_equal_list_is_still_watched():
    m, guards = step_of("def step(x): return value", value=[1, 2])
    m.value = [1, 2]
    assert guards.changed() is None
    m.value[1] = 3
    assert guards.changed() == "global 'value' of module m: [1] changed from 2 to 3"


# --- closures, deleted and missing names -------------------------------------------------------------------------------------


def test_rebound_closure_variable():
    lr = 0.1

    def step(x):
        return [v * lr for v in x]

    guards = Guards.collect(step)
    lr = 0.2
    assert "closure variable 'lr'" in guards.changed()
    assert "from 0.1 to 0.2" in guards.changed()


def test_deleted_and_reappearing_names():
    m, guards = step_of("lr = 0.1\ndef step(x): return lr * later")
    m.later = 1
    assert guards.changed() == "global 'later' of module m changed from nothing to 1"
    del m.later
    assert guards.changed() is None
    del m.lr
    assert guards.changed() == "global 'lr' of module m changed from 0.1 to nothing"


def test_cells_filled_and_emptied():
    def make():
        def step(x):
            return lr  # noqa: F821 (deleted below)

        empty = Guards.collect(step)
        assert empty.changed() is None
        lr = 1
        assert "from nothing to 1" in empty.changed()
        full = Guards.collect(step)
        del lr
        return full

    assert "from 1 to nothing" in make().changed()


def test_builtins_are_ignored():
    _, guards = step_of("def step(x): return sum(range(len(x)))")
    assert len(guards._guards) == 1  # the code itself


# --- containers --------------------------------------------------------------------------------------------------------------


def test_dict_content():
    m, guards = step_of("hyper = {'lr': 0.1, 'deep': [1, {'x': 2}]}\ndef step(x): return hyper['lr']")
    m.hyper["lr"] = 0.2
    assert guards.changed() == "global 'hyper' of module m: ['lr'] changed from 0.1 to 0.2"
    m.hyper["lr"] = 0.1
    assert guards.changed() is None
    m.hyper["deep"][1]["x"] = 3
    assert guards.changed() == "global 'hyper' of module m: ['deep'][1]['x'] changed from 2 to 3"


@pytest.mark.parametrize("read", ["hyper.get('lr')", "hyper.items()", "dict(hyper)", "(hyper or 1)", "[*hyper]"])
def test_dict_content_however_it_is_read(read):
    m, guards = step_of(f"hyper = {{'lr': 0.1}}\ndef step(x): return {read}")
    m.hyper["lr"] = 0.2
    assert "['lr'] changed" in guards.changed()


def test_arrays_are_guarded_by_identity():
    m, guards = step_of("def step(x): return w @ params['w'] @ x.T", w=np.ones(3), params={"w": np.ones(3)})
    m.w[:] = 2
    m.params["w"][:] = 3
    assert guards.changed() is None
    m.w = m.w.copy()
    assert guards.changed() == "global 'w' of module m changed from a ndarray to another one"
    m, guards = step_of("def step(x): return params['w']", params={"w": np.ones(3)})
    m.params["w"] = np.ones(3)
    assert "['w'] changed" in guards.changed()


def test_ids_are_not_reused():
    m, guards = step_of("def step(x): return w", w=np.ones(3))
    for _ in range(50):
        m.w = None
        m.w = np.ones(3)
        assert guards.changed() is not None


def test_large_containers_by_identity_and_length():
    m, guards = step_of("def step(x): return table", table=list(range(10_000)))
    m.table[3] = -1
    assert guards.changed() is None
    m.table.append(1)
    assert "10001" in guards.changed()
    m.table = list(range(10_000))
    assert guards.changed() is not None


def test_cyclic_and_deep_containers_end():
    cyclic = [1]
    cyclic.append(cyclic)
    deep = []
    for _ in range(500):
        deep = [deep]
    _, guards = step_of("def step(x): return cyclic, deep", cyclic=cyclic, deep=deep)
    cyclic[0] = 2
    assert "[0] changed from 1 to 2" in guards.changed()


# --- attributes --------------------------------------------------------------------------------------------------------------


class Config:
    shared = 1

    def __init__(self, lr):
        self.lr = lr


class Slotted:
    __slots__ = ("lr", "unset")

    def __init__(self, lr):
        self.lr = lr


@pytest.mark.parametrize("config", [Config(0.1), Slotted(0.1), types.SimpleNamespace(lr=0.1)], ids=["dict", "slots", "namespace"])
@pytest.mark.parametrize("read", ["config.lr", "helper(config)", "[c.lr for c in (config,)]", "(lambda c: c.lr)(config)"])
def test_attribute_of_a_global(config, read):
    m, guards = step_of(f"def helper(c): return c.lr\ndef step(x): return {read}", config=config)
    config.lr = 0.2
    assert "changed from 0.1 to 0.2" in guards.changed()
    config.lr = 0.1
    assert guards.changed() is None
    m.config = Config(0.1)
    assert guards.changed() is not None


def test_only_the_attributes_that_are_read():
    config = Config(0.1)
    _, guards = step_of("def step(x):\n    c = config\n    return config.lr * c.lr", config=config)
    config.other = 1
    assert guards.changed() is None
    config.lr = 2
    assert guards.changed() == "'config.lr' changed from 0.1 to 2"


def test_class_attributes_and_what_shadows_them():
    config = Config(0.1)
    _, guards = step_of("def step(x): return config.shared", config=config)
    config.shared = 2
    assert "from nothing to 2" in guards.changed()
    del config.shared
    Config.shared = 3
    try:
        assert "from 1 to 3" in guards.changed()
    finally:
        Config.shared = 1
    m, guards = step_of("class C:\n    lr = 0.1\ndef step(x): return C.lr")
    m.C.lr = 0.2
    assert guards.changed() == "'C.lr' changed from 0.1 to 0.2"


def test_module_attributes():
    settings = module("lr = 0.1\nnested = 1")
    _, guards = step_of("def step(x): return settings.lr", settings=settings)
    settings.nested = 2
    assert guards.changed() is None
    settings.lr = 0.2
    assert guards.changed() == "global 'lr' of module settings_for_guards changed from 0.1 to 0.2"
    _, guards = step_of("import numpy as np, math\ndef step(x): return np.sin(x) * np.pi * math.pi")
    assert len(guards._guards) == 1


@pytest.mark.parametrize(
    "body",
    [
        "import package.settings\n    return package.settings.lr",
        "import package.settings as s\n    return (lambda: s.lr)()",
        "from package.settings import lr, other\n    return lr",
        "from package import settings\n    return settings.lr",
        "from .settings import lr\n    return lr",
        "from . import settings\n    return settings.lr",
    ],
)
def test_modules_imported_inside(body, monkeypatch):
    settings = module("lr = 0.1\nother = 1", "package.settings")
    package = module("", "package", settings=settings)
    monkeypatch.setitem(sys.modules, "package", package)
    monkeypatch.setitem(sys.modules, "package.settings", settings)
    _, guards = step_of(f"def step(x):\n    {body}", __package__="package")
    settings.lr = 0.2
    assert "from 0.1 to 0.2" in guards.changed()


class Model(Config):
    scale = 1.0

    def __init__(self, lr):
        super().__init__(lr)
        self.layers = [Config(1), Config(2)]

    def forward(self, x):
        return [self.inner(v) for v in x]

    def inner(self, x):
        return max(x, key=lambda v: v * self.lr) * self.scale

    @property
    def rate(self):
        raise AssertionError("the guards ran a property")

    @functools.cached_property
    def cached(self):
        raise AssertionError("the guards ran a cached property")

    def __call__(self, x):
        return self.forward(x)

    @staticmethod
    def fixed(x):
        return x * FACTOR

    @classmethod
    def built(cls, x):
        return x * cls.scale


FACTOR = 2


@pytest.mark.parametrize("function", [lambda m: m.forward, lambda m: m, lambda m: functools.partial(m.forward, 1)])
def test_self(function):
    model = Model(0.1)
    guards = Guards.collect(function(model))
    assert guards.changed() is None
    model.unrelated = 1
    model.lr = float("0.1")
    assert guards.changed() is None
    model.lr = 0.2
    assert guards.changed() == "'self.lr' changed from 0.1 to 0.2"


def test_a_model_that_is_called():
    model = Model(0.1)
    _, guards = step_of("def step(x): return model(x)", model=model)
    model.lr = 0.2
    assert guards.changed() == "'model': .lr changed from 0.1 to 0.2"


def test_methods_on_a_global_object(monkeypatch):
    model = Model(0.1)
    _, guards = step_of("def step(x): return model.forward(x) + model.fixed(x) + model.built(x)", model=model)
    model.unrelated = 1
    assert guards.changed() is None
    monkeypatch.setattr(Model, "scale", 2.0)
    assert "scale" in guards.changed()
    monkeypatch.undo()
    assert guards.changed() is None
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert "FACTOR" in guards.changed()
    monkeypatch.undo()
    monkeypatch.setattr(Model, "inner", lambda self, x: x)
    assert "inner" in guards.changed()


def test_objects_in_a_list_are_guarded_as_a_whole():
    model = Model(0.1)
    _, guards = step_of("def step(x):\n    for layer in model.layers: x = x * layer.lr\n    return x", model=model)
    model.layers[1].lr = 3
    assert guards.changed() == "'model.layers': [1].lr changed from 2 to 3"


def test_super_is_followed():
    class Child(Model):
        def forward(self, x):
            return super().forward(x)

    child = Child(0.1)
    guards = Guards.collect(child.forward)
    assert guards.changed() is None
    child.lr = 0.2
    assert "lr" in guards.changed()


def test_no_user_code_runs():
    class Hostile:
        ran = []

        def __init__(self):
            object.__setattr__(self, "lr", 0.1)

        def _run(self, *args, **kwargs):
            type(self).ran.append(1)
            raise AssertionError("the guards ran user code")

        __getattr__ = __eq__ = __bool__ = __repr__ = __str__ = __len__ = __iter__ = __call__ = __getitem__ = __dir__ = _run
        __hash__ = None

        @property
        def rate(self):
            return self._run()

        @property
        def __class__(self):
            return self._run()

    class HostileAccess(Hostile):
        def __getattribute__(self, name):
            raise AssertionError("the guards ran user code")

    class Descriptor:
        def __get__(self, instance, owner):
            raise AssertionError("the guards ran user code")

    class Meta(type):
        def __getattribute__(cls, name):
            raise AssertionError("the guards ran user code")

        __eq__ = __hash__ = __instancecheck__ = __subclasscheck__ = Hostile._run

    class Holder(metaclass=Meta):
        lr = 0.1
        descriptor = Descriptor()

    class Liar(dict):
        __iter__ = __len__ = __getitem__ = keys = values = items = get = Hostile._run

    class HostileFloat(float):
        hex = __repr__ = __eq__ = Hostile._run

    type.__setattr__(Holder, "instance_descriptor", Descriptor())
    m, guards = step_of(
        """
        def step(x):
            hostile.rate, hostile.lr, hostile.missing, hostile.rate.x, access.lr, access.y, Holder.lr, Holder.descriptor, holder.lr
            holder.descriptor, holder.missing, Holder.missing
            return hostile(x) + access + holder + Holder() + liar + number + liar.get(1) + things
        """,
        hostile=Hostile(),
        access=HostileAccess(),
        Holder=Holder,
        holder=object.__new__(Holder),
        liar=Liar(a=1),
        number=HostileFloat(1),
        things=[Hostile(), HostileAccess(), Holder, {"a": Hostile()}, HostileFloat(2)],
    )
    m.number = HostileFloat(1)
    assert "HostileFloat to another one" in guards.changed()
    guards = Guards.collect(m.step)
    object.__setattr__(m.hostile, "lr", 0.2)
    assert "from 0.1 to 0.2" in guards.changed()
    guards = Guards.collect(m.step)
    dict.__setitem__(m.liar, "a", 2)
    assert "from 1 to 2" in guards.changed()
    guards = Guards.collect(m.step)
    m.holder = m.hostile
    m.things[3] = m.holder
    assert guards.changed() is not None
    guards.warn_about_random()
    assert not Hostile.ran


def test_getter_of_a_property_is_followed():
    class Scheduled:
        def __init__(self):
            self._lr = 0.1

        @property
        def lr(self):
            return self._lr

    config = Scheduled()
    _, guards = step_of("def step(x): return config.lr * x", config=config)
    config._lr = 0.2
    assert "_lr' changed from 0.1 to 0.2" in guards.changed()


def test_what_getattr_reads():
    class Bunch:
        def __init__(self, **items):
            self._items = items

        def __getattr__(self, name):
            return self._items[name]

    config = Bunch(lr=0.1)
    _, guards = step_of("def step(x): return config.lr * x", config=config)
    config._items["lr"] = 0.2
    assert "['lr'] changed from 0.1 to 0.2" in guards.changed()


# --- functions ---------------------------------------------------------------------------------------------------------------


def test_nested_helpers():
    m, guards = step_of("lr = 0.1\ndef inner(x): return lr * x\ndef outer(x): return inner(x)\ndef step(x): return outer(x)")
    m.lr = 0.2
    assert "'lr'" in guards.changed()


def test_functions_redefined_as_in_a_notebook():
    cell = "def act(x): return {} * x"
    m, guards = step_of(cell.format(1) + "\ndef step(x): return act(x)")
    exec(cell.format(2), vars(m))
    assert guards.changed() == "global 'act' of module m changed from a function to another one"


def test_functions_reloaded_in_place():
    m, guards = step_of("def act(x, k=1): return x\ndef step(x): return act(x)")
    old = m.act.__code__
    m.act.__code__ = (lambda x, k: 2 * x).__code__
    assert "__code__ of act" in guards.changed()
    m.act.__code__ = old
    m.act.__defaults__ = (2,)
    assert "__defaults__ of act: [0] changed from 1 to 2" in guards.changed()


def test_lambda_default_and_mutable_default():
    m, guards = step_of("lr = 0.1\nact = lambda x, k=lr, *, box={'a': 1}: k * x\ndef step(x): return act(x)")
    m.lr = 0.2
    assert guards.changed() is None  # a default is evaluated once
    m.act.__kwdefaults__["box"]["a"] = 2
    assert "['box']['a'] changed from 1 to 2" in guards.changed()


def test_recursion_between_helpers():
    m, guards = step_of(
        """
        lr = 0.1
        def even(n): return odd(n - 1) if n else lr
        def odd(n): return even(n - 1) if n else 0
        def step(x): return even(x) + step(x)
        """
    )
    m.lr = 0.2
    assert "'lr'" in guards.changed()


def test_recursive_methods_end():
    class Tree:
        def __init__(self):
            self.lr, self.child = 0.1, None

        def walk(self, x):
            return self.walk(x) + self.child.walk(x)

    tree = Tree()
    tree.child = Tree()
    tree.child.child = tree
    guards = Guards.collect(tree.walk)
    assert guards.changed() is None


class Traced:
    """Stands for staticgrad's own traced functions."""

    __module__ = "staticgrad.errors"
    __slots__ = ("_function",)

    def __init__(self, function):
        self._function = function

    @property
    def py_func(self):
        return self._function

    def __get__(self, instance, owner=None):
        raise AssertionError("the guards ran a descriptor")


def test_a_traced_method(monkeypatch):
    class Layer:
        def __init__(self):
            self.lr = 0.1

        @Traced
        def run(self, x):
            return self.lr * x

    layer = Layer()
    _, guards = step_of("def step(x): return layer.run(x)", layer=layer)
    layer.lr = 0.2
    assert guards.changed() == "'self.lr' changed from 0.1 to 0.2"


def test_a_jitted_function():
    numba = pytest.importorskip("numba")
    m = module("lr = 0.1\ndef inner(x): return lr * x", "m")
    m.step = numba.njit(m.inner)
    guards = Guards.collect(m.step)
    assert guards.changed() is None
    m.lr = 0.2
    assert "'lr'" in guards.changed()


@pytest.mark.parametrize(
    "build",
    [
        lambda f: functools.partial(f, 1),
        lambda f: functools.partial(functools.partial(f, 1), y=2),
        lambda f: functools.wraps(f)(lambda *args: -f(*args)),
        functools.lru_cache,
        np.vectorize,
        lambda f: types.SimpleNamespace(py_func=f),
        Traced,
        lambda f: [f],
        lambda f: {"f": f},
        staticmethod,
    ],
    ids=["partial", "partials", "wraps", "lru_cache", "vectorize", "py_func", "traced", "list", "dict", "staticmethod"],
)
@pytest.mark.parametrize("root", [True, False])
def test_wrapped_functions(build, root):
    m = module("lr = 0.1\ndef inner(x, y=0): return lr * x", "m")
    wrapped = build(m.inner)
    guards = Guards.collect(wrapped if root and not isinstance(wrapped, list | dict) else lambda x: wrapped)
    assert guards.changed() is None
    m.lr = 0.2
    assert "'lr'" in guards.changed()


def test_arguments_bound_by_partial():
    def loss(config, box, x, *, model, k):
        return config.lr * box["a"] * x * model.lr * k

    config, model, box = Config(0.1), Config(0.3), {"a": 1}
    guards = Guards.collect(functools.partial(loss, config, box, model=model, k=2))
    assert guards.changed() is None
    config.other = 1
    assert guards.changed() is None
    for change in (lambda v: vars(config).update(lr=v), lambda v: vars(model).update(lr=v), lambda v: box.update(a=v)):
        old = Config(0.1), (config.lr, model.lr, box["a"])
        change(9.0)
        assert "to 9.0" in guards.changed()
        config.lr, model.lr, box["a"] = old[1]


def test_classes_that_are_instantiated():
    m, guards = step_of("lr = 0.1\nclass Layer:\n    def run(self, x): return lr * x\ndef step(x):\n    y = Layer()\n    return y.run(x)")
    m.lr = 0.2
    assert "'lr'" in guards.changed()


def test_library_functions_are_not_followed():
    import json

    _, guards = step_of("def step(x): return dumps(x) + textwrap.dedent(x)", dumps=json.dumps, textwrap=textwrap)
    assert {guard.name for guard in guards._guards} == {"__code__", "dumps"}
    for function in (len, np.sin, np.sum, json.dumps, functools.partial(np.sum, axis=0), Guards.collect):
        guards = Guards.collect(function)
        assert guards.changed() is None
        assert not guards.random_uses


# --- side effects ------------------------------------------------------------------------------------------------------------


def test_nothing_to_warn_about():
    _, guards = step_of("log = []\nn = 1\ndef step(x): return log, n")
    guards.warn_about_side_effects()
    guards.warn_about_random()


@pytest.mark.parametrize(
    ("setup", "body", "named"),
    [
        ("log = []", "log.append(1)", "'log'"),
        ("log = [0]", "log[0] = 1", "'log' of module m: [0]"),
        ("log = list(range(500))", "log.append(1)", "'log'"),
        ("log = {}", "log['a'] = x", "'log'"),
        ("log = {'a': [1]}", "log['a'].append(x)", "'log' of module m: ['a']"),
        ("log = set()", "log.add(1)", "'log'"),
        ("n = 1", "global n\n    n += 1", "'n'"),
        ("class C: pass\nc = C()\nc.n = 1", "c.n += 1", "'c.n'"),
        ("class C: pass\nc = C()\nc.log = []", "c.log.append(1)", "'c.log'"),
        ("class C: pass\nc = C()\nc.log = []\ndef use(c): c.log.append(1)", "use(c)", "'c': .log"),
    ],
)
def test_side_effects_warn_once_and_do_not_retrace(setup, body, named):
    m, guards = step_of(f"{setup}\ndef step(x):\n    {body}")
    m.step(1)
    with pytest.warns(StaticgradWarning, match="side effects happen once, at tracing") as caught:
        guards.warn_about_side_effects()
    assert named in str(caught[0].message)
    assert guards.changed() is None
    guards.warn_about_side_effects()


def test_what_the_function_itself_changes_is_guarded_no_more():
    m, guards = step_of("log = []\ndef step(x): log.append(x)")
    m.step(1)
    with pytest.warns(StaticgradWarning):
        guards.warn_about_side_effects()
    assert guards.side_effects
    m.log.clear()
    assert guards.changed() is None


def test_side_effect_in_a_closure():
    log, count = [], 0

    def step(x):
        nonlocal count
        count += 1
        log.append(x)

    guards = Guards.collect(step)
    step(1)
    with pytest.warns(StaticgradWarning) as caught:
        guards.warn_about_side_effects()
    assert {str(w.message).split("'")[1] for w in caught} == {"log", "count"}
    assert guards.changed() is None


def test_first_use_is_no_side_effect():
    m, guards = step_of("w = None\ndef step(x):\n    global w\n    if w is None: w = 2.0\n    return w * x")
    m.step(1)
    guards.warn_about_side_effects()
    assert guards.changed() is not None  # traces once more, without the branch


def test_a_variable_changed_from_outside_during_tracing_is_kept():
    m, guards = step_of("lr = 0.1\ndef step(x): return lr")
    m.lr = 0.2
    guards.warn_about_side_effects()
    assert guards.changed() is not None


# --- random numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "expression", "name"),
    [
        ("import numpy as np", "np.random.normal(x)", "np.random.normal"),
        ("import numpy", "(lambda: numpy.random.rand())()", "numpy.random.rand"),
        ("import numpy as np", "[np.random.default_rng(0) for _ in x]", "np.random.default_rng"),
        ("from numpy import random", "random.normal(x)", "random.normal"),
        ("from numpy.random import normal", "normal(x)", "normal"),
        ("import numpy as np\nrng = np.random.default_rng()", "rng.normal(x)", "rng.normal"),
        ("import numpy as np\nrng = np.random.RandomState(0)", "helper(rng)", "rng"),
        ("import numpy as np\nclass C: pass\nc = C()\nc.rng = np.random.default_rng()", "c.rng.normal()", "c.rng.normal"),
        ("import random", "random.gauss(0, 1)", "random.gauss"),
    ],
)
def test_random_numbers_are_found(setup, expression, name):
    _, guards = step_of(f"{setup}\ndef helper(r): return r\ndef inner(x):\n    return {expression}\ndef step(x): return inner(x)")
    line = setup.count("\n") + 4
    assert guards.random_uses == (f"{name}, m.py:{line}",)
    with pytest.warns(StaticgradWarning, match=f"{name}, m.py:{line}"):
        guards.warn_about_random()


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        ("import numpy as np", "np.random.normal"),
        ("import numpy.random", "numpy.random.normal"),
        ("from numpy import random as r", "r.normal"),
        ("from numpy.random import normal", "normal"),
    ],
)
def test_random_numbers_of_a_local_import(statement, use):
    _, guards = step_of(f"def step(x):\n    {statement}\n    return {use}(x)")
    assert guards.random_uses == (f"{use}, m.py:3",)


@pytest.mark.parametrize("expression", ["isinstance(x, np.random.Generator)", "x.random.normal()", "np.sin(x)", "math.sqrt(2) + log(x)"])
def test_no_random_numbers(expression):
    _, guards = step_of(f"import math, numpy as np\nfrom math import log\ndef step(x): return {expression}")
    assert guards.random_uses == ()


def test_a_local_that_a_nested_function_rebinds_is_guarded_as_a_whole():
    a, b = Config(0.1), Config(0.2)
    source = """
        def step(x):
            c = a
            def swap():
                nonlocal c
                c = b
            swap()
            return c.lr
        """
    for config in (a, b):
        _, guards = step_of(source, a=a, b=b)
        config.lr = 9
        assert guards.changed() is not None


# --- lifetime, threads and cost --------------------------------------------------------------------------------------------------------


def test_guards_keep_neither_the_function_nor_its_object_alive():
    class Child(Model):
        def forward(self, x):
            return super().forward(x) * self.lr + use(self)

    def use(model):
        return model.lr

    def make():
        lr, w = 0.1, np.ones(3)
        model = Child(0.1)
        function = lambda x, k=1: lr * x * w * k  # noqa: E731
        registry = weakref.WeakKeyDictionary({function: Guards.collect(function), model: Guards.collect(model.forward)})
        assert all(guards.changed() is None for guards in registry.values())
        return registry, list(registry.values())

    registry, all_guards = make()
    gc.collect()
    assert len(registry) == 0
    assert [guards.changed() for guards in all_guards] == [None, None]


def test_ids_of_attributes_are_not_reused():
    model = Model(np.ones(3))
    _, guards = step_of("def step(x): return use(model)\ndef use(m): return m.lr", model=model)
    for _ in range(50):
        model.lr = None
        model.lr = np.ones(3)
        assert guards.changed() is not None


def test_threads_share_guards():
    m, guards = step_of("lr = 0.1\nhyper = {'a': 1}\ndef step(x): return lr * hyper['a']")
    found, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            try:
                found.append(guards.changed())
            except Exception as error:
                found.append(error)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(2000):
        m.hyper[f"k{i % 7}"] = i
        m.hyper.pop(f"k{(i + 3) % 7}", None)
    stop.set()
    for thread in threads:
        thread.join()
    assert not [item for item in found if isinstance(item, Exception)]


def cost(guards, n=20_000):
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(n):
            guards.changed()
        best = min(best, time.perf_counter() - start)
    return best / n * 1e6


def test_cost(capsys):
    lines = []
    for count in (0, 1, 10, 50):
        names = [f"v{i}" for i in range(count)]
        source = "\n".join(f"{name} = {i}.5" for i, name in enumerate(names)) + f"\ndef step(x): return x, {', '.join(names)}"
        m = module(source, "m")
        start = time.perf_counter()
        guards = Guards.collect(m.step)
        collecting = (time.perf_counter() - start) * 1e6
        lines.append(f"{count:3d} global scalars: changed() {cost(guards):6.2f} us, collect() {collecting:6.0f} us")
    lines.append(f"no guards: changed() {cost(Guards.collect(np.sin)):.2f} us")
    m, guards = step_of("hyper = {'a': 0.1, 'b': 0.2, 'c': 0.3}\ndef step(x): return hyper['a']")
    lines.append(f"dict of 3: changed() {cost(guards):.2f} us")
    model = Model(0.1)
    lines.append(f"model.forward: changed() {cost(Guards.collect(model.forward)):.2f} us")
    m, guards = step_of("lr = 0.1\ndef step(x): return lr * x")
    m.lr = float("0.1")
    lines.append(f"an equal float in another object: changed() {cost(guards):.2f} us")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guards.warn_about_side_effects()
