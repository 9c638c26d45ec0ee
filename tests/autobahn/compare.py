"""Judges a report of the Autobahn Testsuite.

    compare.py --compare | --part | --update | --print SPEC REPORT SUMMARY

Three things must hold: every case that the specification asks for ran; each passed, with the
latitude that RFC 6455 leaves (below); and the results equal the committed summary, so that a
change of behaviour is seen even where both are allowed. With --part the specification may ask for
fewer cases than the summary has, and the others are not missed. Runs on the testsuite's own
Python 2.7, whose list of cases it uses.
"""

from __future__ import print_function

import json
import sys
import warnings
from collections import OrderedDict

AGENT = "tidemill"


def allowed(case):
    """The verdicts that count as passed.

    6.4 asks for failing fast inside a frame, which the RFC permits but does not demand. 7.1.6,
    7.13.1 and 7.13.2 have no required outcome and are only reported.
    """
    if case.startswith("6.4."):
        return {"OK", "NON-STRICT"}
    if case.startswith("7."):
        return {"OK", "INFORMATIONAL"}
    return {"OK"}


def cases_of(specification):
    """The ids that the specification's patterns name, in the testsuite's order."""
    # The testsuite's dependencies warn about the age of this Python.
    warnings.simplefilter("ignore")
    from autobahntestsuite.case import CaseBasename, CaseCategories, Cases, CaseSetname
    from autobahntestsuite.case import CaseSubCategories
    from autobahntestsuite.caseset import CaseSet

    known = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
    return known.parseSpecCases(specification)


def results_of(report, cases):
    """Case -> [behavior, behaviorClose] for the cases that ran, in order."""
    ran = report.get(AGENT, {})
    return OrderedDict(
        (case, [ran[case]["behavior"], ran[case]["behaviorClose"]])
        for case in cases
        if case in ran
    )


def faults(results, cases):
    for case in cases:
        if case not in results:
            yield "%s did not run" % case
        elif not set(results[case]) <= allowed(case):
            yield "%s: behavior %s, close %s" % ((case,) + tuple(results[case]))


def differences(results, expected):
    for case in sorted(set(results) | set(expected)):
        if results.get(case) != expected.get(case):
            yield "%s: committed %s, now %s" % (case, expected.get(case), results.get(case))


def only(expected, cases):
    return dict((case, expected[case]) for case in cases if case in expected)


def write(results, path):
    """One line a case, so that a change of one is a change of one line."""
    lines = ['  "%s": %s' % (case, json.dumps(result)) for case, result in results.items()]
    with open(path, "w") as summary:
        summary.write("{\n%s\n}\n" % ",\n".join(lines))


def load(path):
    with open(path) as document:
        return json.load(document)


def main(arguments):
    mode, specification, report, summary = arguments
    cases = cases_of(load(specification))
    results = results_of(load(report), cases)
    problems = list(faults(results, cases))
    if mode == "--print":
        for case, result in results.items():
            print(case, *result)
    elif mode == "--update" and not problems:
        write(results, summary)
        print("wrote %s" % summary)
    elif mode == "--compare":
        problems += differences(results, load(summary))
    elif mode == "--part":
        problems += differences(results, only(load(summary), cases))
    for problem in problems:
        print(problem)
    print("%d cases, %d ran, %d problems" % (len(cases), len(results), len(problems)))
    return 1 if problems or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
