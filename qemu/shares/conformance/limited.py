# Runs one file of crun's suite: python3 limited.py FILE CASE_S
# In: a file whose cases tests_utils.run_all_tests runs, one after the other. Out: its own TAP, in which a case that takes longer
# than CASE_S seconds has failed. Must never: let such a case end the file, or pass because it takes its end for the error that
# it waited for.

import os
import runpy
import signal
import sys

file, case_s = sys.argv[1], int(sys.argv[2])
sys.path.insert(0, os.path.dirname(file))
import tests_utils


class TookTooLong(Exception):
    pass


def limited(name, case):
    late = False

    def stop(*_):
        nonlocal late
        late = True
        raise TookTooLong("%s took longer than %d s" % (name, case_s))

    def run():
        signal.signal(signal.SIGALRM, stop)
        # Again and again: what the case does about the first may hang as well.
        signal.setitimer(signal.ITIMER_REAL, case_s, case_s)
        try:
            verdict = case()
        except Exception:
            # What came of being stopped is not what the case has found.
            if not late:
                raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if late:
            raise TookTooLong("%s took longer than %d s" % (name, case_s))
        return verdict

    return run


run_all_tests = tests_utils.run_all_tests
tests_utils.run_all_tests = lambda cases, allowed: run_all_tests(
    {name: limited(name, case) for name, case in cases.items()}, allowed
)
sys.argv = [file]
runpy.run_path(file, run_name="__main__")
