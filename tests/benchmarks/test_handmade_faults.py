"""The faults made by hand are faults of the code as it is."""

import pytest

from benchmarks.handmade_faults import ROOT, SUBJECTS


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.file)
def test_each_faults_text_stands_once_in_its_file(subject):
    text = (ROOT / subject.file).read_text()
    assert {old: text.count(old) for old, _ in subject.faults} == {old: 1 for old, _ in subject.faults}
