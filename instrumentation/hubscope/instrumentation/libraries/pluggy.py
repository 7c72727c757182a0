"""pluggy: each plugin's part of each hook call, by wrapping the function that its `HookImpl` holds.

A hook wrapper is timed before and after its yield, without what it wraps. A
plugin that answers with a coroutine, or with an `async def` of its own for the host to call, is timed there too.
`hub.plugins.installed` is how many plugins are registered with the managers that live.
"""

from __future__ import annotations

import functools
import gc
import inspect
import logging
from collections.abc import Callable, Collection, Generator
from typing import Any, Final
from weakref import WeakSet

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from opentelemetry.metrics import CallbackOptions, Observation
from wrapt import register_post_import_hook

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.plugin_calls import Call, Plugin

_MARK: Final = "__hubscope_original__"
_enabled = False
_managers: WeakSet[Any] = WeakSet()
_observed: signals.Handles | None = None  # whose meter has the gauge
_log = logging.getLogger("hubscope")


def _call(plugin: Plugin) -> Call | None:
    handles = signals.handles() if _enabled else None
    return None if handles is None else Call(handles, plugin)


def _measured(plugin: Plugin, function: Callable[..., Any], *, wrapper: bool) -> Callable[..., Any]:
    measured = _measured_wrapper(plugin, function) if wrapper else _measured_function(plugin, function)
    setattr(measured, _MARK, function)
    return measured


def _measured_function(plugin: Plugin, function: Callable[..., Any]) -> Callable[..., Any]:
    inner_prefix = f"{getattr(function, '__qualname__', '')}.<locals>."

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        call = _call(plugin)
        if call is None:
            return function(*args, **kwargs)
        error: BaseException | None = None
        call.resume()
        try:
            result = function(*args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            call.pause()
            call.finish(error)
        if result is None:  # by far the most frequent answer
            return None
        if inspect.iscoroutine(result):
            return _awaited(plugin, result)
        # Datasette's way to answer later: `async def inner(): …; return inner`.
        if inspect.iscoroutinefunction(result) and getattr(result, "__qualname__", "").startswith(inner_prefix):
            return _measured_answer(plugin, result)
        return result

    return measured


def _measured_answer(plugin: Plugin, answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)
    async def measured(*args: Any, **kwargs: Any) -> Any:
        return await _awaited(plugin, answer(*args, **kwargs))

    return measured


async def _awaited(plugin: Plugin, answer: Any) -> Any:
    call = _call(plugin)
    if call is None:
        return await answer
    error: BaseException | None = None
    call.resume(cpu=False)
    try:
        return await answer
    except BaseException as raised:
        error = raised
        raise
    finally:
        call.pause()
        call.finish(error)


def _measured_wrapper(plugin: Plugin, function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function again, because pluggy asks `inspect.isgeneratorfunction`; passes everything through."""

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = _call(plugin)
        if call is None:
            return (yield from function(*args, **kwargs))
        inner = function(*args, **kwargs)
        step: Callable[[], Any] = functools.partial(next, inner)
        error: BaseException | None = None
        try:
            while True:
                call.resume()
                try:
                    yielded = step()
                except StopIteration as stop:
                    return stop.value
                finally:
                    call.pause()
                try:
                    sent = yield yielded
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - handed to the wrapper, which decides
                    step = functools.partial(inner.throw, thrown)
                else:
                    step = functools.partial(inner.send, sent)
        except BaseException as raised:
            error = raised
            raise
        finally:
            # What the wrapped hook raised and the wrapper let pass is not this plugin's failure.
            call.finish(None if error is not None and _passed_through(step, error) else error)

    return measured


def _passed_through(step: Callable[[], Any], error: BaseException) -> bool:
    return isinstance(step, functools.partial) and error in step.args


def plugin_id(plugin: object, name: str | None) -> str:
    """The name it is registered under; of an unnamed object, whose name is its address, that of its class or module."""
    if name and not name.isdigit():
        return name
    return str(getattr(plugin, "__name__", "") or type(plugin).__qualname__)


def plugin_version(plugin: object) -> str:
    """The version of the distribution whose entry point brought the plugin; "" where none did."""
    try:
        for manager in list(_managers):
            for registered, distribution in manager.list_plugin_distinfo():
                if registered is plugin:
                    return str(distribution.version)
    except Exception:  # noqa: BLE001 - metadata that cannot be read
        _log.debug("the version of %r is not known", plugin, exc_info=True)
    return ""


def _observe_installed(options: CallbackOptions) -> list[Observation]:
    """How many plugins are registered, each counted once however many managers know it; blocked names are none."""
    if not _enabled:
        return []
    try:
        managers = list(_managers)
        found = {id(plugin) for m in managers for _, plugin in m.list_name_plugin() if plugin is not None}
    except Exception:  # noqa: BLE001 - a registration at this moment; this reading is left out
        return []
    return [Observation(len(found))] if managers else []


class PluggyInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Wraps the hook implementations of every plugin manager, registered before or later, and unwraps them all."""

    def __init__(self) -> None:
        self._original_init: Any = getattr(self, "_original_init", None)
        self._hook_impl: Any = getattr(self, "_hook_impl", None)
        self._original_manager_init: Any = getattr(self, "_original_manager_init", None)
        self._manager: Any = getattr(self, "_manager", None)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = True
        register_post_import_hook(self._patch, "pluggy")

    def _patch(self, module: Any) -> None:
        hook_impl = getattr(module, "HookImpl", None)
        if hook_impl is None or not _enabled or self._original_init is not None:
            return
        original = hook_impl.__init__

        @functools.wraps(original)
        def init(impl: Any, *args: Any, **kwargs: Any) -> None:
            original(impl, *args, **kwargs)
            _wrap(impl)

        self._hook_impl, self._original_init = hook_impl, original
        hook_impl.__init__ = init
        self._watch_managers(module.PluginManager)
        for found in _existing((hook_impl, module.PluginManager)):
            if isinstance(found, hook_impl):
                _wrap(found)
            else:
                _managers.add(found)

    def _watch_managers(self, manager: Any) -> None:
        global _observed
        original = manager.__init__

        @functools.wraps(original)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            _managers.add(self)

        self._manager, self._original_manager_init = manager, original
        manager.__init__ = init
        handles = signals.handles()
        if handles is not None and handles is not _observed:
            _observed = handles
            described = next(m for m in names.METRICS if m.name == names.METRIC_PLUGINS_INSTALLED)
            handles.meter.create_observable_gauge(
                described.name, [_observe_installed], unit=described.unit, description=described.brief
            )

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False
        if self._original_init is None:
            return
        self._hook_impl.__init__ = self._original_init
        self._manager.__init__ = self._original_manager_init
        _managers.clear()
        for impl in _existing((self._hook_impl,)):
            original = getattr(impl.function, _MARK, None)
            if original is not None:
                impl.function = original
        self._original_init = self._hook_impl = self._original_manager_init = self._manager = None


def _wrap(impl: Any) -> None:
    try:
        function = impl.function
        if hasattr(function, _MARK):
            return
        opts: dict[str, Any] = getattr(impl, "opts", {})
        hook = str(opts.get("specname") or getattr(function, "__name__", "hook"))
        registered = impl.plugin
        plugin = Plugin(plugin_id(registered, impl.plugin_name), hook, lambda: plugin_version(registered))
        wrapper = bool(getattr(impl, "hookwrapper", False) or getattr(impl, "wrapper", False))
        impl.function = _measured(plugin, function, wrapper=wrapper)
    except Exception:  # noqa: BLE001 - the plugin runs unmeasured
        _log.debug("hook implementation %r is not measured", impl, exc_info=True)


def _existing(kinds: tuple[type, ...]) -> list[Any]:
    """Every object of those kinds in the process: plugin managers keep no list of themselves."""
    return [found for found in gc.get_objects() if issubclass(type(found), kinds)]
