import os
import random
import shutil
import zipfile
from contextlib import suppress

import pytest

from thinksteer import store
from thinksteer.archive import holds_artifacts, pack, unpack
from thinksteer.document import document
from thinksteer.records import InputError
from thinksteer.zips import MAX_RATIO, SMALL_BYTES, members, whole


def contents(source):
    found = {}
    for name, opened in members(source):
        with opened() as stream:
            found[name] = stream.read()
    return found


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def under(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_and_a_zip_of_it_have_the_same_members(tmp_path):
    files = {"a.txt": b"1", "deep/b.txt": b"2" * 1000}
    zipped(tmp_path / "a.zip", files | {"empty/": b""})
    for name, data in files.items():
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(data)
    assert contents(tmp_path / "a") == contents(tmp_path / "a.zip") == files


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_with_a_member_that_leads_out_is_refused_before_any_is_read(tmp_path, name):
    with pytest.raises(InputError, match="leads out of the zip"):
        next(members(zipped(tmp_path / "a.zip", {"good": b"1", name: b"2"})))


@pytest.mark.parametrize("name", ["good", "good/below", "GOOD", "Good/below"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_member_in_the_place_of_another_is_refused(tmp_path, name):
    with zipfile.ZipFile(zipped(tmp_path / "a.zip", {"good": b"1"}), "a") as archive:
        archive.writestr(name, b"2")
    with pytest.raises(InputError, match="member 'good' is there twice"):
        next(members(tmp_path / "a.zip"))


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="member 'link' leads out of the zip"):
        next(members(tmp_path / "a.zip"))


def test_a_name_spelt_in_two_ways_is_there_twice(tmp_path):
    with pytest.raises(InputError, match="is there twice"):
        next(members(zipped(tmp_path / "a.zip", {"caf\u00e9": b"1", "cafe\u0301": b"2"})))


def test_names_longer_than_any_file_s_are_refused(tmp_path):
    with pytest.raises(InputError, match="has too long a name") as caught:
        next(members(zipped(tmp_path / "a.zip", {"a/" * 30_000: b"", "b": b""})))
    assert len(str(caught.value)) < 2000


def test_what_is_no_file_in_a_zip_is_a_plain_one_outside(tmp_path):
    """Zips know no hard links; pipes, devices and programs that run as root are what they hold, and no more."""
    kinds = {"pipe": 0o010666, "device": 0o020666, "disk": 0o060666, "socket": 0o140666, "setuid": 0o104777}
    with zipfile.ZipFile(zipped(tmp_path / "a.zip", {"responses/m/a.jsonl.run.json": b"{}"}), "a") as archive:
        for kind, mode in kinds.items():
            info = zipfile.ZipInfo(f"responses/m/{kind}.json")
            info.external_attr = mode << 16
            archive.writestr(info, kind)
    unpack(tmp_path / "a.zip", tmp_path / "new")
    for kind in kinds:
        path = tmp_path / f"new/responses/m/{kind}.json"
        assert path.read_text() == kind and not path.stat().st_mode & 0o7133


def test_a_bomb_is_refused_before_it_is_read(tmp_path):
    zeros = {"responses/m_gsm8k.json": bytes(SMALL_BYTES + 1)}
    with pytest.raises(InputError, match=r"bytes unpacks to 67,108,865: do not trust"):
        next(members(zipped(tmp_path / "a.zip", zeros)))
    with pytest.raises(InputError, match="do not trust"):
        whole(tmp_path / "a.zip")
    plain = {"noise": random.Random(0).randbytes(SMALL_BYTES // MAX_RATIO + 1)}  # with it the zip is not too small
    assert [name for name, _ in members(zipped(tmp_path / "b.zip", zeros | plain))] == [*zeros, *plain]
    assert whole(tmp_path / "b.zip")


def test_a_member_that_lies_about_its_size_is_not_read_beyond_it(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a": bytes(1_000_000)})
    path.write_bytes(path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    for _, opened in members(path):
        with pytest.raises(InputError, match="Bad CRC"), opened() as stream:
            assert len(stream.read()) <= 10


@pytest.mark.parametrize("inside", [False, True])
def test_a_link_in_a_folder_may_lead_to_the_folder_only(tmp_path, inside):
    (tmp_path / "source").mkdir()
    target = tmp_path / "source/target" if inside else tmp_path / "secret"
    target.write_text("secret")
    (tmp_path / "source/link").symlink_to(target)
    if inside:
        assert contents(tmp_path / "source") == {"link": b"secret", "target": b"secret"}
    else:
        with pytest.raises(InputError, match="link leads out of"):
            contents(tmp_path / "source")


def test_a_damaged_member_and_a_cut_zip_are_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"1234567890")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1234567890", b"1234567899"))
    with pytest.raises(InputError, match=r"member 'a\.txt': Bad CRC"):
        contents(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="neither a folder nor a whole zip"):
        next(members(path))


def made(root, name, *, finished=True):
    """An artifact as a stage leaves it: a file, or a folder if the name has no suffix."""
    path = root / name
    with suppress(KeyboardInterrupt), store.run(path, {"seed": 0}, [], overwrite=False):
        for file in [path] if path.suffix else [path / "model.safetensors", path / "edit.json", path / "custom.py"]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"of {name}")
        if not finished:
            raise KeyboardInterrupt
    return path


@pytest.fixture
def root(tmp_path):
    """Finished and unfinished artifacts, by-products of both, and what killed processes leave."""
    root = tmp_path / "artifacts"
    finished = ("evaluations/m/gsm8k/default.jsonl", "responses/m/gsm8k.0-of-1.jsonl", "models/edited")
    for name in (*finished, "states/m/gsm8k.seal.safetensors"):
        made(root, name)
    made(root, "evaluations/m/MATH-500/default.jsonl", finished=False)
    made(root, "responses/n/gsm8k.0-of-2.jsonl")
    made(root, "models/half", finished=False)
    for name in (
        "evaluations/m/gsm8k/metrics.json",
        "evaluations/m/MATH-500/metrics.json",
        "evaluations/m/gsm8k/.metrics.host-7.partial.json",
        "models/.other.host-7.partial/model.safetensors",
        "responses/m/by_hand.jsonl",
        "reports/by_hand.md",
        "downloads/ThinkEdit.zip",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("beside")
    return root


FINISHED = {"evaluations/m/gsm8k/default.jsonl", "responses/m/gsm8k.0-of-1.jsonl"}
PACKED = FINISHED | {f"{name}.run.json" for name in FINISHED} | {"evaluations/m/gsm8k/metrics.json"}
CARDS, WEIGHTS = {"models/edited/edit.json"}, {"models/edited/model.safetensors", "models/edited.run.json"}


def test_only_what_finished_runs_left_is_packed_and_the_rest_is_named(tmp_path, root):
    count, left_out = pack(root, tmp_path / "out.zip", with_models=False)
    assert set(contents(tmp_path / "out.zip")) == PACKED | CARDS and count == len(PACKED | CARDS)
    assert left_out == {
        "evaluations/m/MATH-500/default.jsonl": "its run has not finished",
        "evaluations/m/MATH-500/metrics.json": "made by no finished run",
        "evaluations/m/gsm8k/.metrics.host-7.partial.json": "a temporary file",
        "models/.other.host-7.partial": "a temporary file",
        "models/edited": "weights go in with --models",
        "models/edited/custom.py": "may hold code",
        "models/half": "its run has not finished",
        "models/half/custom.py": "may hold code",
        "reports/by_hand.md": "made by no finished run",
        "states/m/gsm8k.seal.safetensors": "states may be large and are soon made again: scripts.hidden_states",
        "responses/m/by_hand.jsonl": "made by no finished run",
        "responses/n/gsm8k.0-of-2.jsonl": "its run has not finished",
    }
    pack(root, tmp_path / "models.zip", with_models=True)
    assert set(contents(tmp_path / "models.zip")) == PACKED | CARDS | WEIGHTS


def test_the_same_files_give_the_same_archive_whatever_their_dates(tmp_path, root):
    pack(root, tmp_path / "a.zip", with_models=True)
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    pack(root, tmp_path / "b.zip", with_models=True)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a.zip.sha256").read_text() == f"{store.sha256(tmp_path / 'a.zip')}  a.zip\n"
    with pytest.raises(InputError, match=r"a\.zip is there already"):
        pack(root, tmp_path / "a.zip", with_models=True)
    with pytest.raises(InputError, match="nothing that is finished"):
        pack(tmp_path / "empty", tmp_path / "c.zip", with_models=True)


def test_what_was_packed_is_unpacked_byte_for_byte_and_again_changes_nothing(tmp_path, root):
    pack(root, tmp_path / "out.zip", with_models=True)
    assert holds_artifacts(tmp_path / "out.zip")
    unpack(tmp_path / "out.zip", tmp_path / "new")
    assert under(tmp_path / "new") == contents(tmp_path / "out.zip")
    assert store.is_complete(tmp_path / "new/evaluations/m/gsm8k/default.jsonl")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")}
    unpack(tmp_path / "out.zip", tmp_path / "new")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")} == before


def test_pages_written_here_are_packed_and_unpacked_and_no_others(tmp_path, root):
    page = document("t", "", '<p onclick="alert(1)">whatever a page has</p>')
    pages = {"report": page, "other": page.replace("default-src 'none'", "default-src *"), "old": "<p>"}
    for name, text in pages.items():
        made(root, f"reports/{name}.html").write_text(text)
    _, left_out = pack(root, tmp_path / "out.zip", with_models=False)
    assert {name for name, reason in left_out.items() if reason == "may hold code"} >= {
        "reports/old.html",
        "reports/other.html",
    }
    unpack(tmp_path / "out.zip", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new/reports").glob("*.html")] == ["report.html"]
    with pytest.raises(InputError, match=r"'reports/other\.html' is no artifact"):
        unpack(zipped(tmp_path / "evil.zip", {"reports/other.html": pages["other"]}), tmp_path)


@pytest.mark.parametrize("other", ["something else", "of evaluations/m/gsm8k/default.jsonl, and longer", ""])
def test_a_different_file_is_not_overwritten_and_nothing_else_is_written(tmp_path, root, other):
    pack(root, tmp_path / "out.zip", with_models=False)
    there = tmp_path / "new/evaluations/m/gsm8k/default.jsonl"
    there.parent.mkdir(parents=True)
    there.write_text(other)
    with pytest.raises(InputError, match="is there already, and different"):
        unpack(tmp_path / "out.zip", tmp_path / "new")
    assert under(tmp_path / "new") == {"evaluations/m/gsm8k/default.jsonl": other.encode()}


CODE = ["bin", "ckpt", "dll", "exe", "ipynb", "js", "npy", "npz", "pickle", "pkl", "pt", "PT", "pth", "py", "pyc", "sh"]
CODE += ["so", "svg"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "heads",
        "responses//x.json",
        "responses/.ssh/x",
        "responses/./x",
        "other/x",
        "models/m/a\nb.json",
    ]
    + [f"models/m/x.{kind}" for kind in CODE]
    + ["models/m/model.json ", "reports/report.html", "reports/REPORT.HTML"],
)
def test_an_archive_with_what_is_no_artifact_is_refused_whole(tmp_path, name):
    good = {"responses/m/a.jsonl": b"", "responses/m/a.jsonl.run.json": b"{}"}
    with pytest.raises(InputError, match="is no artifact"):
        unpack(zipped(tmp_path / "a.zip", good | {name: b""}), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_archive_of_artifacts_is_refused_whole(tmp_path, root):
    path = tmp_path / "out.zip"
    pack(root, path, with_models=True)
    path.write_bytes(path.read_bytes().replace(b"of models/edited", b"of models/EDITED", 1))  # stored, not deflated
    with pytest.raises(InputError, match="Bad CRC"):
        unpack(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_for_a_file_and_a_file_for_a_folder_are_named(tmp_path, root):
    pack(root, tmp_path / "out.zip", with_models=False)
    (tmp_path / "new/evaluations/m/gsm8k/default.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match="is there already, and different"):
        unpack(tmp_path / "out.zip", tmp_path / "new")
    shutil.rmtree(tmp_path / "new/evaluations")
    (tmp_path / "new/responses").write_text("in the way")
    with pytest.raises(InputError, match=r"new/responses/.* cannot be written"):
        unpack(tmp_path / "out.zip", tmp_path / "new")
