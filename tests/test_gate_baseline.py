import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gate_runs import draw_letters, evidence, without_letters, write_run
from qaeval.cli.gate_tables import print_baseline
from qaeval.errors import DataError
from qaeval.gate.baseline import (
    EvidenceReader,
    evidence_digest,
    evidence_json,
    list_baselines,
    read_baseline,
    write_baseline,
    write_pointer,
)
from qaeval.gate.evidence import ABSENT, FAILED, UNGRADED, Evidence
from qaeval.records import digest
from qaeval.registry.find import find_config
from qaeval.storage.location import Folder, Location, find_location
from qaeval.storage.run_directory import GRADES
from sharding import KEYS, s3_server


def test_a_baseline_of_an_import_counts_its_items_and_has_no_empty_date(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # every second sample has one item of three; one item failed
    made = evidence({"alpha": ["AAA"] * 10})
    (alpha,) = made.candidates
    letters = alpha.letters.copy()
    letters[::2, 1:] = ABSENT
    letters[1, 0] = FAILED
    imported = replace(
        made,
        candidates=(replace(alpha, letters=letters),),
        source=made.source.model_copy(update={"created": ""}),
    )
    print_baseline(Path("b.json"), imported, "2026-01-20T10:00:00+00:00")
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "b.json: run, age unknown"
    (row,) = [line.split() for line in printed.splitlines() if "alpha" in line]
    assert row == ["alpha", "95.0", "%", "20", "1", "0"]


@pytest.fixture
def reader() -> EvidenceReader:
    return EvidenceReader(config=find_config(None))


def test_a_baseline_file_gives_back_the_evidence_that_it_was_made_of(tmp_path: Path) -> None:
    made = evidence({"alpha": ["AAB!", "A-C", "x", "BBA"] * 5})
    path = tmp_path / "new" / "x.json"
    size = write_baseline(made, path)
    read = read_baseline(path)
    assert isinstance(read, Evidence)
    assert evidence_json(read) == evidence_json(made)
    assert size == path.stat().st_size


def test_a_baseline_file_is_read_and_written_without_a_changed_byte(tmp_path: Path) -> None:
    committed = Path(__file__).parents[1] / "baselines" / "qa_pairs.json"
    evidence = read_baseline(committed)
    assert isinstance(evidence, Evidence)
    write_baseline(evidence, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_bytes() == committed.read_bytes()


def test_letters_are_arrays_in_memory_and_words_in_the_file() -> None:
    made = evidence({"alpha": ["AAB!", "A-C", "x", "BBA"] * 3})
    (candidate,) = made.candidates
    assert candidate.letters[:4].tolist() == [
        [0, 0, 1],
        [0, UNGRADED, 2],
        [FAILED, FAILED, FAILED],
        [1, 1, 0],
    ]
    assert np.flatnonzero(candidate.flags["hallucination"]).tolist() == [2, 14, 26]
    packed = json.loads(evidence_json(made))["candidates"][0]
    assert packed["letters"].split()[:4] == ["AAB", "A-C", "xxx", "BBA"]
    assert packed["flags"]["hallucination"] == [2, 14, 26]


def test_a_run_whose_grading_goes_on_has_letters_that_are_pending_and_no_file(tmp_path: Path) -> None:
    run = without_letters(evidence({"alpha": ["AAB!", "A-C", "x", "BBA"] * 3}))
    assert (run.is_graded, run.candidates[0].n_pending) == (False, 27)
    with pytest.raises(ValueError, match="grading goes on"):
        write_baseline(run, tmp_path / "x.json")


def test_600_items_with_times_need_less_than_200_kb_and_hold_no_text(tmp_path: Path) -> None:
    letters = {
        name: draw_letters(200, 0.7, flagged_share=0.1, seed=seed)
        for seed, name in enumerate(("alpha", "beta"))
    }
    made = evidence(letters, embedded=False)
    long_ids = tuple(f"documentation/reference/of-a-long-folder/{chunk}#section" for chunk in made.chunks)
    path = tmp_path / "x.json"
    assert write_baseline(replace(made, chunks=np.array(long_ids)), path) < 200_000
    assert "valve" not in path.read_text().replace('"valves"', "")
    assert "asks" not in path.read_text()


def test_a_run_and_its_baseline_file_are_the_same_evidence_and_its_columns_stand_on_lines(
    tmp_path: Path, reader: EvidenceReader
) -> None:
    run = write_run(tmp_path / "run", {"alpha": draw_letters(20, 0.8)})
    made = reader.run(run)
    write_baseline(made, tmp_path / "x.json")
    of_file, of_run = reader.baseline(str(tmp_path / "x.json")), reader.baseline(str(run))
    assert evidence_digest(of_file) == evidence_digest(made) == evidence_digest(of_run)
    lines = (tmp_path / "x.json").read_text().splitlines()
    assert sum(line.strip().startswith('"letters"') for line in lines) == 1


def test_a_number_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_baseline(evidence({"alpha": ["AAA", "ABB"] * 6}), path)
    path.write_text(path.read_text().replace("ABB", "AAA", 1))
    with pytest.raises(DataError, match=r"x\.json.* hash"):
        read_baseline(path)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("letters", "AAA AAA", "alpha: expected a word of 3 letters"),
        ("items", " ".join(["a,b"] * 12), "alpha: expected a word of 3 letters"),
        ("letters", " ".join(["AAZ"] * 12), "'Z'"),
        ("flags", {"hallucination": [36]}, "hallucination: expected positions below 36"),
        ("spent", {"has_server": True, "latency_s": [1.0]}, "alpha: expected 3 items of 12 samples"),
    ],
)
def test_evidence_whose_columns_do_not_fit_together_is_refused(
    key: str, value: object, says: str, tmp_path: Path
) -> None:
    write_baseline(evidence({"alpha": ["AAA"] * 12}), tmp_path / "x.json")
    forged = json.loads((tmp_path / "x.json").read_text())
    forged["evidence"]["candidates"][0][key] = value
    (tmp_path / "x.json").write_text(json.dumps({**forged, "sha256": digest(forged["evidence"])}))
    with pytest.raises(DataError, match=says):
        read_baseline(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "report"}', '{"kind": "baseline", "sha256": ""}'])
def test_what_is_no_baseline_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        read_baseline(tmp_path / "x.json")


def test_a_mistyped_baseline_is_refused_with_the_closest_name(tmp_path: Path, reader: EvidenceReader) -> None:
    write_baseline(evidence({"alpha": ["AAA"] * 10}), tmp_path / "release.json")
    with pytest.raises(DataError, match=r"relaese\.json.*'release\.json'"):
        reader.baseline(str(tmp_path / "relaese.json"))


def test_a_pointer_gives_the_run_and_is_refused_when_the_run_changed(
    tmp_path: Path, reader: EvidenceReader
) -> None:
    run = write_run(tmp_path / "run", {"alpha": draw_letters(20, 0.8)})
    size = write_pointer(str(run), reader.run(run), tmp_path / "x.json")
    assert size < 300
    assert reader.baseline(str(tmp_path / "x.json")).source.name == "run"
    grades = (run / "grades.jsonl").read_text()
    (run / "grades.jsonl").write_text(grades.replace('"letter": "A"', '"letter": "C"', 1))
    with pytest.raises(DataError, match=f"{re.escape(str(run))}.*letters changed"):
        reader.baseline(str(tmp_path / "x.json"))


@pytest.mark.slow
def test_a_baseline_may_be_kept_in_a_store_as_a_run_a_file_or_a_pointer_to_it(
    tmp_path: Path, reader: EvidenceReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "release", {"alpha": draw_letters(20, 0.8)})
    made = reader.run(run)
    write_baseline(made, tmp_path / "x.json")
    with s3_server() as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url, "QAEVAL_SHARDS": str(tmp_path / "work")}.items():
            monkeypatch.setenv(name, value)
        place = find_location("s3://results/kept", allow_external=())
        for path in run.glob("*.json*"):
            place.put(path, f"release/{path.name}")
        place.put(tmp_path / "x.json", "x.json")
        write_pointer("s3://results/kept/release", made, tmp_path / "there.json")
        where = ("s3://results/kept/release", "s3://results/kept/x.json", str(tmp_path / "there.json"))
        assert {evidence_digest(reader.baseline(path)) for path in where} == {evidence_digest(made)}
        with pytest.raises(DataError, match="no run here"):
            reader.baseline("s3://results/kept/relaese")
        (tmp_path / "x.json").write_bytes(b"\xff{}")
        place.put(tmp_path / "x.json", "x.json")
        with pytest.raises(DataError, match="not a baseline"):
            reader.baseline("s3://results/kept/x.json")


class StoreReader(EvidenceReader):
    """Reads addresses of a store from a folder."""

    folder: Path

    def _location(self, address: str) -> Location:
        return Folder(self.folder / address.removeprefix("s3://"))


@pytest.mark.slow
def test_a_baseline_in_a_store_is_the_run_or_file_that_was_put_there(
    tmp_path: Path, reader: EvidenceReader
) -> None:
    stored = StoreReader(config=reader.config)
    object.__setattr__(stored, "folder", tmp_path)
    run = write_run(tmp_path / "kept" / "release", {"alpha": draw_letters(20, 0.8)})
    evidence = reader.run(run)
    write_baseline(evidence, tmp_path / "kept" / "x.json")
    write_pointer("s3://kept/release", evidence, tmp_path / "there.json")
    (tmp_path / "kept" / "pointer.json").write_bytes((tmp_path / "there.json").read_bytes())
    for address in ("s3://kept/release", "s3://kept/release/", "s3://kept/x.json", "s3://kept/pointer.json"):
        assert evidence_digest(stored.baseline(address)) == evidence_digest(evidence)
    assert stored.baseline("s3://kept/release/").source.name == "release"
    assert evidence_digest(stored.baseline(str(tmp_path / "there.json"))) == evidence_digest(evidence)
    with pytest.raises(DataError, match="no run here"):
        stored.baseline("s3://kept/relaese")
    write_run(tmp_path / "other", {"alpha": draw_letters(20, 0.2)})
    (tmp_path / "other" / GRADES).replace(run / GRADES)
    with pytest.raises(DataError, match="letters changed"):
        stored.baseline("s3://kept/pointer.json")


def test_all_baselines_are_listed_and_a_broken_one_with_its_problem(tmp_path: Path) -> None:
    write_baseline(evidence({"alpha": ["AAA"] * 10}), tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    good, bad = list_baselines(tmp_path)
    assert isinstance(good.content, Evidence)
    assert (bad.content, "not a baseline" in bad.problem) == (None, True)
