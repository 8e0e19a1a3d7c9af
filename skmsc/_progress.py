"""Progress of a fit: lines on the screen, and scikit-learn's callbacks."""

import time
from contextlib import contextmanager

__all__ = []  # for the package's own use


class Progress:
    """Tells of the parts of an estimator's fit as they are done.

    With the estimator's `verbose` a line is printed for each. Callbacks that were set by
    ``set_callbacks`` (scikit-learn 1.9) see each task below the estimator's own, and its parts as
    tasks below that one.

    Parameters
    ----------
    estimator : estimator
        With a parameter `verbose`.
    """

    def __init__(self, estimator):
        self.verbose = estimator.verbose
        self._estimator = estimator
        self._context = getattr(estimator, "_callback_fit_ctx", None)  # of `told`

    @contextmanager
    def task(self, name, n_parts=0):
        """A task of so many parts; gives a function to call with the name of each that is done."""
        start, n_done = time.perf_counter(), 0
        context = self._begin(self._context, name, n_parts)

        def done(part):
            nonlocal n_done
            n_done += 1
            self._end(self._begin(context, part))
            self._print(f"{name}: {part}, fit {n_done} of {n_parts}", start)

        yield done
        self._end(context)
        if not n_parts:
            self._print(name, start)

    def _begin(self, parent, name, n_parts=0):
        """Tell callbacks that a task has begun; gives its context."""
        if parent is None:
            return None
        context = parent.subcontext(task_name=name, max_subtasks=n_parts)
        return context.call_on_fit_task_begin(estimator=self._estimator)

    def _end(self, context):
        """Tell callbacks that a task is done."""
        if context is not None:
            context.call_on_fit_task_end(estimator=self._estimator)

    def _print(self, text, start):
        """Print a line, if lines are wanted."""
        if self.verbose:
            owner = type(self._estimator).__name__
            print(f"[{owner}] {text} ({time.perf_counter() - start:.1f} s)")


@contextmanager
def told(estimator):
    """Let callbacks, where scikit-learn has them, see a fit from its beginning to its end."""
    if not hasattr(estimator, "_init_callback_context"):
        yield
        return
    context = estimator._init_callback_context(max_subtasks=None)
    context.call_on_fit_task_begin(estimator=estimator)
    yield
    context.call_on_fit_task_end(estimator=estimator)
