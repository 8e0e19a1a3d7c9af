"""Files that are cut short or altered are refused."""

import hashlib
import zipfile

import pytest

from skmsc.serving._archive import read_archive, write_archive

PARTS = {"manifest.json": b'{"format": 1}', "0.onnx": bytes(range(256)) * 20}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.skmsc"
    write_archive(path, "export", PARTS)
    return path


def test_round_trip(path):
    assert read_archive(path, "export") == PARTS
    assert [file.name for file in path.parent.iterdir()] == ["model.skmsc"]


def test_digest_is_that_of_the_file(path):
    digest = write_archive(path, "export", PARTS)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == write_archive(path, "export", PARTS)  # the same parts, the same bytes
    assert read_archive(path, "export", digest) == PARTS
    with pytest.raises(ValueError, match="digest"):
        read_archive(path, "export", "0" * 64)


def test_every_cut_and_every_flipped_byte_is_refused(path):
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"model\.skmsc"):
            read_archive(path, "export")
    unread = 0
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            found = read_archive(path, "export")
        except ValueError:
            continue
        assert found == PARTS  # a date, say: nothing that is read
        unread += 1
    assert unread < len(content) / 10


@pytest.mark.parametrize(
    "parts",
    [PARTS | {"0.onnx": b"other"}, PARTS | {"1.onnx": b"more"}, {"0.onnx": PARTS["0.onnx"]}],
    ids=["changed", "added", "removed"],
)
def test_altered_parts_are_refused(path, parts):
    with zipfile.ZipFile(path) as archive:
        checksums = archive.read("checksums.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checksums.json", checksums)
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(ValueError, match="was altered"):
        read_archive(path, "export")


def test_another_kind_is_refused(path):
    with pytest.raises(ValueError, match="holds 'export', not 'estimator'"):
        read_archive(path, "estimator")


def test_a_failed_write_leaves_the_old_file(path):
    with pytest.raises(TypeError):
        write_archive(path, "export", {"0.onnx": object()})
    assert read_archive(path, "export") == PARTS


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cut short, damaged, or no file of this kind"):
        read_archive(path, "export")
