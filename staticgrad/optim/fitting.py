"""`least_squares`: steps of Levenberg-Marquardt or Gauss-Newton until nothing is left to gain, on SciPy's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from staticgrad.calls.traced import traced
from staticgrad.errors import ArgumentError, InvalidValueError, UnsupportedError
from staticgrad.ir.options import number, whole
from staticgrad.ir.source import at_user_line
from staticgrad.optim.domain import domain_of, optimality, pushed_out
from staticgrad.optim.gauss_newton import GaussNewton, gauss_newton
from staticgrad.optim.levenberg_marquardt import levenberg_marquardt
from staticgrad.optim.normal_equations import Layout, chosen, inverse_gram
from staticgrad.optim.residual_optimizer import NOTHING_TRIED, ResidualOptimizer, ResidualState, Trial
from staticgrad.optim.robust_losses import loss_of
from staticgrad.optim.solvers import start
from staticgrad.optim.traced_fitting import LeastSquaresSolution, solve_in_trace
from staticgrad.tracing.context import tracing
from staticgrad.tracing.pytree import tree_map

MESSAGES = {
    0: "max_nfev was reached before any of the tolerances",
    1: "the residuals are at right angles to their derivatives (gtol), or 0",
    2: "the cost falls no further (ftol)",
    3: "the steps have become too short (xtol)",
    4: "the cost falls no further (ftol), and the steps have become too short (xtol)",
}
"""What each status means; the numbers are SciPy's."""


@dataclass(frozen=True, eq=False, repr=False)
class LeastSquaresResult:
    """What `least_squares` found; the names are SciPy's, m residuals and n parameters.

    Attributes
    ----------
    x
        The parameters, with the structure, shapes and dtypes of `x0`.
    cost : float
        Half of the sum of the squares of the residuals.
    fun
        What the function of the residuals returned at `x`.
    jac : array of shape (m, n)
        The Jacobian at `x`, of the residuals whose squares are the loss: one row a residual, one column a parameter, both in the order
        of their leaves; a `scipy.sparse.csr_array` where the method is sparse.
    grad : array of shape (n,)
        The gradient of the cost, J^T r.
    optimality : float
        The greatest element of the gradient, those that bounds hold up left out.
    active_mask : array of shape (n,)
        For each parameter -1 at its lower bound, 1 at its upper one, 0 in between.
    nfev, njev : int
        How often the residuals and their derivatives were computed; always together.
    status : int
        Why it ended: 0 evaluations ran out, 1 `gtol`, 2 `ftol`, 3 `xtol`, 4 `ftol` and `xtol`.
    message : str
        The same in words.
    success : bool
        Whether it ended by a tolerance.
    history : list of Trial
        What came of each step: whether it stayed, its damping (`control`), the cost at its end, the fall and the one predicted.
    path : list
        The parameters at first and after each step of the history; where a step did not stay, they are those before it.
    """

    x: Any
    cost: float
    fun: Any
    jac: Any
    grad: np.ndarray
    optimality: float
    active_mask: np.ndarray
    nfev: int
    njev: int
    status: int
    message: str
    history: list[Trial]
    path: list[Any]

    @property
    def success(self) -> bool:
        """Whether it ended by a tolerance."""
        return self.status > 0

    @cached_property
    def covariance(self) -> np.ndarray:
        """The covariance of the parameters, (n, n): 2 cost / (m - n) times the inverse of J^T J.

        All of it is infinite where the residuals do not determine the parameters (m <= n, or J without full rank).
        """
        residuals, parameters = self.jac.shape
        jacobian = self.jac if isinstance(self.jac, np.ndarray) else self.jac.toarray()
        inverse = inverse_gram(jacobian.T) if residuals > parameters else None
        if inverse is None:
            return np.full((parameters, parameters), np.inf)
        scaled: np.ndarray = inverse * (2 * self.cost / (residuals - parameters))
        return scaled

    @property
    def standard_errors(self) -> Any:
        """The standard errors of the parameters, with the structure of `x`: the square roots of the diagonal of the covariance."""
        return Layout(self.x, "least_squares").tree(np.sqrt(np.diag(self.covariance)))

    def __repr__(self) -> str:
        rows = {name: getattr(self, name) for name in ("message", "success", "status", "cost", "optimality", "nfev", "x")}
        return "\n".join(f"{name:>10}: {value}" for name, value in rows.items())


def least_squares(
    residuals: Callable[..., Any],
    x0: Any,
    jac: str | Callable[..., Any] | None = None,
    bounds: Any = (-np.inf, np.inf),
    method: str | ResidualOptimizer = "lm",
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    x_scale: Any = "jac",
    loss: str | Callable[..., Any] = "linear",
    f_scale: float = 1.0,
    *,
    max_nfev: int | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **others: Any,
) -> LeastSquaresResult | LeastSquaresSolution:
    """Return the parameters that make the sum of the squares of residuals least, on the form of `scipy.optimize.least_squares`.

    Residuals, Jacobian, J^T J and J^T r are one compiled program; derivatives are exact, those for the curvature of a step, too.

    Parameters
    ----------
    residuals
        A function `residuals(x, *args, **kwargs)`, written with NumPy, that returns floats: an array of any shape, or a container
        of arrays, so a list of residuals is one as it is; an array of them is made by `np.stack([a, b])`.
    x0
        Where to start: an array of floats, a list or a tuple of numbers (taken as an array), or any other pytree of float arrays.
    jac
        Whatever SciPy takes; it is not needed, as derivatives are exact.
    bounds
        The least and the greatest values of the parameters: a pair of numbers, or of arrays or containers like `x0`, infinite where
        there are none; or a `scipy.optimize.Bounds`. Residuals are not computed outside of them.
    method
        `"lm"` (`sg.optim.levenberg_marquardt()`), `"gauss-newton"` (`sg.optim.gauss_newton()`), or one of these with other options;
        `"trf"` and `"dogbox"` are taken as `"lm"`, which knows bounds here.
    ftol : float
        It ends when a step that stayed lowered the cost by at most `ftol` times the cost, as the linear model foretold. Where the
        cost itself is not precise enough to tell, slopes are; so this may be far below 1e-16. The default, some 1e-24 in float64,
        leaves all digits in `x` that the residuals can give it.
    xtol : float
        It ends when a step is shorter than `xtol` times the parameters, each measured by its influence on the residuals. By
        default 64 times the relative precision of the dtypes.
    gtol : float
        It ends when the cosine of the angle between the residuals and each column of the Jacobian is at most `gtol`. By default 4
        times the relative precision.
    x_scale
        How large a step is large for each parameter: numbers of more than 0, or `"jac"`, as large as its influence on the residuals.
    loss
        What takes the place of squares, by which outliers weigh less: `"soft_l1"`, `"huber"`, `"cauchy"` or `"arctan"`. It may be a
        function of z = (r / f_scale)^2, (m,), that returns rho(z) and its derivatives as rows, (3, m); the first two are read.
    f_scale : float
        How large a residual is an outlier; without meaning where the loss is `"linear"`.
    max_nfev : int
        How many steps may be tried, the first evaluation counted; by default 1000 (n + 1) for n parameters.
    args, kwargs
        Further arguments of `residuals`, such as data. Unlike arrays that it closes over, other ones of the same shape do not need
        another trace.
    **others
        What SciPy offers besides (`jac_sparsity`, `callback` ...) is an error, except where it says what is done here anyway.

    Returns
    -------
    LeastSquaresResult
        `x`, `cost`, `fun`, `jac`, `grad`, `optimality`, `active_mask`, `nfev`, `njev`, `status`, `message`, `success`, as in SciPy; and
        `covariance`, `standard_errors`, `history` and `path`. In a traced function, under `sg.vmap` for example, a
        `LeastSquaresSolution`: a tuple of arrays, those of these names that are arrays, differentiable by all that the residuals read
        (implicitly, at the optimum). There nothing is raised for numbers that are not finite: `status` is -1.

    Raises
    ------
    InvalidValueError
        If residuals or derivatives are not finite at `x0`, `x0` is not within the bounds, or an option is out of its range.
    DTypeError, ShapeError
        If residuals or parameters are not floats, or there are none, or bounds are not like them.
    UnsupportedError
        For what is not there.

    Examples
    --------
    >>> import numpy as np, staticgrad as sg
    >>> def residuals(b, x, y):
    ...     return b[0] * (1 - np.exp(-b[1] * x)) - y
    >>> x = np.array([1.0, 2.0, 3.0, 5.0, 7.0, 10.0])
    >>> y = np.array([109.0, 149.0, 149.0, 191.0, 213.0, 224.0])
    >>> found = sg.least_squares(residuals, [100.0, 0.75], args=(x, y))
    >>> np.round(found.x, 7), np.round(found.standard_errors, 7), found.success
    (array([213.8094089,   0.5472375]), array([12.3545152,  0.1045599]), True)

    See Also
    --------
    staticgrad.optim.levenberg_marquardt, staticgrad.optim.gauss_newton : the steps, and where they come from.
    """
    _refuse(others)
    optimizer = _optimizer(method)
    changed, params = loss_of(loss, f_scale), start(x0)
    raw = None if changed is None else traced(residuals)
    function = optimizer.equations(residuals if changed is None else traced(residuals).derive(changed, "least_squares"))
    if not isinstance(args, (tuple, list)):
        raise ArgumentError(at_user_line(f"least_squares: args must be a tuple, not {type(args).__name__}; for one argument args=(data,)"))
    args, named = tree_map(_contiguous, (tuple(args), dict(kwargs or {})))
    layout = Layout(params, "least_squares")
    domain = domain_of(layout, bounds, x_scale, "least_squares")
    if domain.bounded and isinstance(optimizer, GaussNewton):
        raise UnsupportedError(at_user_line("least_squares: bounds need damping to be certain of progress; method='lm' has it"))
    tolerances = [None if value is None else number(name, value) for name, value in (("ftol", ftol), ("xtol", xtol), ("gtol", gtol))]
    most = 1000 * (layout.size + 1) if max_nfev is None else whole("max_nfev", max_nfev)
    if tracing():
        guess = layout.tree(domain.clip(layout.vector))
        return solve_in_trace(
            optimizer, function, guess, lambda state: _Tolerances.of(layout, state, *tolerances).status, most, args, named, domain, raw
        )
    state = optimizer.begin(params, function, args, named, domain)
    limits = _Tolerances.of(layout, state, *tolerances)
    history: list[Trial] = []
    params = layout.tree(layout.vector)
    path = [params]
    status = int(limits.status(state))
    while not status and len(path) < most:
        params, state = optimizer.update(params, function, state, *args, **named)
        assert state.last is not None
        history.append(state.last)
        path.append(params)
        status = int(limits.status(state))
    linear = state.linear
    return LeastSquaresResult(
        x=params,
        cost=float(linear.cost),
        fun=linear.value if raw is None else raw(params, *args, **named),
        jac=linear.jacobian,
        grad=linear.gradient,
        optimality=float(optimality(linear.gradient, state.active)),
        active_mask=state.active,
        nfev=state.evaluations,
        njev=state.evaluations,
        status=status,
        message=MESSAGES[status],
        history=history,
        path=path,
    )


@dataclass(frozen=True)
class _Tolerances:
    """When to end."""

    cost: float
    length: float
    cosine: float

    @classmethod
    def of(cls, layout: Layout, state: ResidualState, cost: float | None, length: float | None, cosine: float | None) -> _Tolerances:
        """Return these tolerances; those that are None follow from the precision of parameters and residuals."""
        epsilon = max(layout.epsilon, float(np.finfo(state.linear.residuals.dtype).eps))
        defaults = epsilon**1.5, 64 * epsilon, 4 * epsilon
        return cls(*(known if given is None else given for given, known in zip((cost, length, cosine), defaults, strict=True)))

    def status(self, state: ResidualState) -> Any:
        """Return why it ends with this state, as in `MESSAGES`; 0 where it goes on."""
        linear, trial = state.linear, state.last or NOTHING_TRIED
        small = np.abs(linear.gradient) <= self.cosine * linear.norm * linear.columns
        level = np.all(small | pushed_out(state.active, linear.gradient))
        before = linear.cost + chosen(trial.accepted, trial.fall, 0.0)
        as_foretold = trial.accepted & (trial.fall >= trial.predicted / 4)
        flat = as_foretold & (np.maximum(trial.fall, trial.predicted) <= self.cost * before)
        over, short = flat | np.logical_not(trial.resolved), trial.length <= self.length
        return chosen(trial.accepted & level, 1, chosen(over & short, 4, chosen(over, 2, chosen(short, 3, 0))))


def _optimizer(method: Any) -> ResidualOptimizer:
    if isinstance(method, ResidualOptimizer):
        return method
    if method in ("lm", "trf", "dogbox"):
        return levenberg_marquardt()
    if method == "gauss-newton":
        return gauss_newton()
    raise InvalidValueError(
        at_user_line(
            f"least_squares: method={method!r}: expected 'lm', 'gauss-newton', sg.optim.levenberg_marquardt(...) or sg.optim.gauss_newton()"
        )
    )


def _contiguous(leaf: Any) -> Any:
    """Return an array as one whose elements follow each other, which calls of compiled programs want; anything else as it is."""
    return leaf if type(leaf) is not np.ndarray or leaf.flags.c_contiguous else leaf.copy(order="C")


_NEUTRAL: dict[str, tuple[Any, str]] = {
    "jac_sparsity": (None, "method=sg.optim.levenberg_marquardt(sparse=True) finds it by itself"),
    "diff_step": (None, "derivatives are exact, not differences"),
    "tr_solver": (None, "there is no trust region"),
    "tr_options": (None, "there is no trust region"),
    "verbose": (0, "result.history tells of every step"),
    "callback": (
        None,
        "result.history and result.path tell of every step; init and update of sg.optim.levenberg_marquardt() take one at a time",
    ),
    "workers": (None, "derivatives are exact, not differences"),
}
"""SciPy's other options: the value that says what is done here anyway, and what to do instead of another one."""


def _refuse(others: Mapping[str, Any]) -> None:
    for name, value in others.items():
        if name not in _NEUTRAL:
            raise ArgumentError(at_user_line(f"least_squares() has no option {name!r}; it has those of scipy.optimize.least_squares"))
        neutral, hint = _NEUTRAL[name]
        if repr(value) != repr(neutral):  # arrays do not compare to one truth
            raise UnsupportedError(at_user_line(f"least_squares: {name}={value!r} is not there: {hint}"))
