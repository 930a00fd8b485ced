"""Operators that torch knows by name, called without the dispatcher where nothing but autograd listens.

A call of an operator made by :func:`torch.library.custom_op` spends more time in
Python than a small kernel takes on a GPU. Only tracers, compilers, functional transforms and
tensor subclasses need it; in plain eager code the same functions run inside a
:class:`torch.autograd.Function`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

if __name__ != "graphrec.kernels.registering":
    raise ImportError(f"{__name__} is part of graphrec.kernels: import that, its operators exist once")

Made = TypeVar("Made")

_PLAIN = (Tensor, Parameter)


def _plain(values: tuple[Any, ...]) -> bool:
    """Whether no argument is a tensor subclass, and none inside a list asks for a gradient."""
    for one in values:
        if type(one) is list:
            for x in one:
                if isinstance(x, Tensor) and (type(x) not in _PLAIN or x.requires_grad):
                    return False
        elif isinstance(one, Tensor) and type(one) not in _PLAIN:
            return False
    return True


def listened_to() -> bool:
    """Whether a compiler, a dispatch mode or a functional transform is to see the operator itself."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _refuse_tangents(name: str, values: tuple[Any, ...]) -> None:
    """Refuse forward mode (``torch.func.jvp``), of which torch's own operators would drop the tangents."""
    for one in values:
        if isinstance(one, Tensor) and forward_ad.unpack_dual(one).tangent is not None:
            raise NotImplementedError(f"{name} has no derivative in forward mode (jvp); use backward mode")


class Operator(Generic[Made]):
    """A function registered as ``torch.ops.graphrec.<name>``; made by :func:`operator`.

    Attributes:
        function: what it computes.
        registered: the same as torch's operator, for :func:`torch.library.opcheck` and compiled graphs.
    """

    def __init__(self, name: str, function: Callable[..., Made]) -> None:
        self.__doc__, self.__name__ = function.__doc__, name
        self.function = function
        self._definition = torch.library.custom_op(name, mutates_args=())(function)
        namespace, short = name.split("::")
        self.registered: Any = getattr(getattr(torch.ops, namespace), short).default
        self._count = len(inspect.signature(function).parameters)
        self._differentiated: Any = None

    def register_fake(self, function: Callable[..., Made]) -> Callable[..., Made]:
        """As :meth:`torch.library.CustomOpDef.register_fake`."""
        self._definition.register_fake(function)
        return function

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[[Any, tuple[Any, ...], Any], None]
    ) -> None:
        """As :meth:`torch.library.CustomOpDef.register_autograd`."""
        self._definition.register_autograd(backward, setup_context=setup_context)
        self._differentiated = _differentiated(self.__name__, self.function, backward, setup_context)

    def __call__(self, *args: Any, **kwargs: Any) -> Made:
        if forward_ad._current_level >= 0:
            _refuse_tangents(self.__name__, args)
        if kwargs or len(args) != self._count or listened_to() or not _plain(args):
            return self.registered(*args, **kwargs)  # type: ignore[no-any-return]
        if not torch.is_grad_enabled() or not any(
            isinstance(one, Tensor) and one.requires_grad for one in args
        ):
            return self.function(*args, **kwargs)
        if self._differentiated is None:  # torch's operator says what is wrong when it is differentiated
            return self.registered(*args, **kwargs)  # type: ignore[no-any-return]
        return self._differentiated.apply(*args)  # type: ignore[no-any-return]


def _differentiated(
    name: str,
    function: Callable[..., Any],
    backward: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
) -> type[torch.autograd.Function]:
    """The function with its gradient, as autograd takes it outside of the dispatcher."""

    def forward(ctx: Any, *args: Any) -> Any:
        made = function(*args)
        setup_context(ctx, args, made)
        return made

    def differentiate(ctx: Any, *grads: Any) -> Any:
        found = backward(ctx, *grads)
        if not isinstance(found, tuple):
            return found
        return tuple(None if isinstance(one, list) else one for one in found)

    body = {"forward": staticmethod(forward), "backward": staticmethod(differentiate)}
    return type(name.split("::")[1], (torch.autograd.Function,), body)


def operator(name: str) -> Callable[[Callable[..., Made]], Operator[Made]]:
    """Register a function as an operator of torch that changes none of its arguments.

    Args:
        name: ``"graphrec::…"``.

    Returns:
        A decorator; its result is called as the function is, and takes ``register_fake`` and
        ``register_autograd`` as torch's own definitions do.
    """
    return lambda function: Operator(name, function)
