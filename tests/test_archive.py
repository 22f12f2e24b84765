import zipfile

import pytest

from thinksteer.archive import members
from thinksteer.records import InputError


def test_a_folder_and_a_zip_of_it_have_the_same_members(tmp_path):
    contents = {"a.txt": b"1", "deep/b.txt": b"2" * 1000}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in contents.items():
            (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / name).write_bytes(data)
            archive.writestr(name, data)
    for source in (tmp_path / "a", tmp_path / "a.zip"):
        assert {name: read() for name, read in members(source)} == contents


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_with_a_member_that_leads_out_is_refused_before_any_is_read(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", b"1")
        archive.writestr(name, b"2")
    with pytest.raises(InputError, match="leads out of the zip"):
        next(members(tmp_path / "a.zip"))


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="member 'link' leads out of the zip"):
        next(members(tmp_path / "a.zip"))


def test_a_damaged_member_and_a_cut_zip_are_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"1234567890")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1234567890", b"1234567899"))
    with pytest.raises(InputError, match=r"member a\.txt: Bad CRC"):
        [read() for _, read in members(path)]
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="neither a folder nor a whole zip"):
        next(members(path))
