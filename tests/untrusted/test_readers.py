# SPDX-License-Identifier: Apache-2.0
"""Archives and arrays from unknown sources are checked before they are read."""

import io
import os
import struct
import zipfile

import h5py
import numpy as np
import pytest

from keras_dynfilter.untrusted import archives, hdf5, memory, npz

pytestmark = pytest.mark.legacy


def header(shape, dtype="'|u1'"):
    """Returns the beginning of an .npy file that declares a shape."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def small_memory(monkeypatch):
    """Pretends that 2 MB of memory are available, so that the limit is 1 MB."""
    monkeypatch.setattr(memory, "available", lambda: 2_000_000)


# Memory


def test_available_memory_is_that_of_this_machine():
    assert 2**20 < memory.available() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.limit() <= memory.available() / 2 * 1.5


@pytest.mark.parametrize(
    "line, folder, names",
    [
        ("0::/job", "job", ("memory.max", "memory.current")),
        ("0::/job", ".", ("memory.max", "memory.current")),  # in a container, the group is mounted as the root
        ("4:memory:/job", "memory/job", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_control_groups(line, folder, names, monkeypatch, tmp_path):
    folder = tmp_path / folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip((*names, "memory.stat"), ("1000000", "900000", "cache 5\ninactive_file 30000\n")):
        (folder / name).write_text(content)
    (tmp_path / "cgroup").write_text(f"1:cpu:/job\n{line}\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    assert memory.available() == 130_000
    (folder / names[0]).write_text("max")
    assert memory.available() > 2**20


@pytest.mark.parametrize("size, text", [(0, "0 bytes"), (999, "999 bytes"), (1.2e4, "12 kB"), (8.04e18, "8.04 EB")])
def test_sizes_in_words(size, text):
    assert memory.in_words(size) == text


# Archives


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/etc/passwd", "..\\outside", "C:\\outside", "C:outside"]
)
def test_members_that_leave_the_archive(name, tmp_path):
    path = write_zip(tmp_path / "a.zip", {name: b""})
    text = r"Expected .*a\.zip to hold plain files\. Received: .*(outside|passwd)', a name that leaves the archive"
    with pytest.raises(ValueError, match=text), archives.opened_zip(path):
        pytest.fail("the archive was opened")


@pytest.mark.parametrize("kind", [0o120777, 0o020666, 0o010666, 0o140777])
def test_members_that_are_no_files(kind, tmp_path):
    """A symbolic link, a character device, a named pipe, a socket."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        member = zipfile.ZipInfo("member")
        member.external_attr = kind << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(ValueError, match="'member', a link or a device"), archives.opened_zip(tmp_path / "a.zip"):
        pytest.fail("the archive was opened")


def test_encrypted_and_repeated_members(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"member": b"content"})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="'member', encrypted"), archives.opened_zip(path):
        pytest.fail("the archive was opened")
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("member", "1")
        archive.writestr("member", "2")
    with pytest.raises(ValueError, match="a second member of this name"), archives.opened_zip(path):
        pytest.fail("the archive was opened")


def test_archive_that_unpacks_to_more_than_the_memory(small_memory, tmp_path):
    path = write_zip(tmp_path / "a.zip", {str(index): bytes(300_000) for index in range(4)})
    assert path.stat().st_size < 10_000
    expected = r"Expected .*a\.zip, unpacked, to need at most 1 MB of memory, half of .*\. Received: 1\.2 MB"
    with pytest.raises(ValueError, match=expected), archives.opened_zip(path):
        pytest.fail("the archive was opened")


def test_paths_that_are_no_archives(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("text")
    for name, received in (("pipe", "no regular file"), (".", "a folder"), ("text", "File is not a zip file")):
        with pytest.raises(ValueError, match=f"Received: {received}"), archives.opened_zip(tmp_path / name):
            pytest.fail("the archive was opened")
    with pytest.raises(FileNotFoundError), archives.opened_zip(tmp_path / "missing"):
        pytest.fail("the archive was opened")


# Arrays


def test_arrays(tmp_path):
    path = tmp_path / "a.npz"
    values = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array("text"), "c": np.zeros((0, 4), np.float16)}
    for write in (np.savez, np.savez_compressed):
        write(path, **values)
        for names in (None, ["a", "b", "c"]):
            arrays = npz.read(path, names)
            assert list(arrays) == ["a", "b", "c"]
            for name, value in values.items():
                np.testing.assert_array_equal(arrays[name], value)
                assert arrays[name].dtype == value.dtype
        declared = npz.headers(path)
        assert {name: (header.shape, header.dtype) for name, header in declared.items()} == {
            name: (value.shape, value.dtype) for name, value in values.items()
        }
    assert list(npz.read(str(path), ["c"])) == ["c"]
    with pytest.raises(ValueError, match=r"to hold the array 'd'\. Received: a\.npy, b\.npy, c\.npy"):
        npz.read(path, ["d"])


@pytest.mark.parametrize(
    "content, received",
    [
        (header((2**40,)), rf"a header of uint8 \({2**40},\), {2**40} bytes, and 0 bytes"),
        (header((2**31, 28, 28)), "1683627180032 bytes, and 0 bytes"),
        (header((2**62, 2**62, 16)) + b"1", "and 1 bytes"),
        (header((-1,)) + b"1", "a header of uint8"),
        (header((2, 2)) + b"123", "4 bytes, and 3 bytes"),
        (header((1,), "'|O'") + bytes(8), "Python objects, which only code could restore"),
        (header((1,), "[('a', '|O')]") + bytes(8), "Python objects"),
        (header((1,), "'nonsense'") + bytes(8), "descr is not a valid dtype descriptor"),
        (header("(" * 90), "."),
        (b"no array", "the magic string is not correct"),
        (b"", "."),
        (b"\x93NUMPY\x03\x00\x00\x00\x00\x00", r"a header of version 3\.0"),
    ],
)
def test_damaged_and_hostile_arrays(content, received, tmp_path):
    path = write_zip(tmp_path / "a.npz", {"a.npy": content})
    with pytest.raises(ValueError, match=rf"Expected 'a' in .*a\.npz to be an array\. Received: .*{received}"):
        npz.read(path)
    with pytest.raises(ValueError, match=rf"Expected 'a' in .*a\.npz to be an array\. Received: .*{received}"):
        npz.headers(path)


def test_no_code_of_a_pickled_array_runs(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made by code"),)

    np.savez(tmp_path / "a.npz", a=np.array([Code()], object))
    with pytest.raises(ValueError, match="Python objects"):
        npz.read(tmp_path / "a.npz")
    assert not (tmp_path / "made by code").exists()


def test_arrays_that_do_not_fit_in_memory(small_memory, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2_000_000, np.uint8))
    with pytest.raises(ValueError, match=r"to need at most 1 MB of memory.*Received: 2 MB"):
        npz.read(tmp_path / "a.npz")


def test_every_damage_is_the_same_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.arange(3))
    content, errors = path.read_bytes(), 0
    for place in range(len(content)):
        for change in (1, 128):
            path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
            try:
                npz.read(path)
            except ValueError:
                errors += 1
        path.write_bytes(content[:place])
        with pytest.raises(ValueError):
            npz.read(path)
    assert errors > len(content)


# Weights


def test_weights(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("layer/vars")["0"] = np.ones((2, 3))
        file["layer/again"] = file["layer"]  # a group that holds itself
        file["text"] = "text"
        file.create_dataset("nothing", data=h5py.Empty("f"))
    hdf5.check(tmp_path / "a.h5", "a.h5")
    hdf5.check(io.BytesIO((tmp_path / "a.h5").read_bytes()), "a.h5")


def _soft_link(file):
    file["layer/link"] = h5py.SoftLink("/elsewhere")


def _external_link(file):
    file["layer/link"] = h5py.ExternalLink("/etc/other.h5", "/")


def _external_data(file):
    file.create_dataset("layer/data", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual_data(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "data", (4,))
    file.create_virtual_dataset("layer/data", layout)


@pytest.mark.parametrize(
    "change, received",
    [
        (_soft_link, r"'link', a link \(SoftLink\)"),
        (_external_link, r"'link', a link \(ExternalLink\)"),
        (_external_data, "'data', kept in another file"),
        (_virtual_data, "'data', kept in another file"),
    ],
)
def test_weights_in_other_files(change, received, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("layer")
        change(file)
    with pytest.raises(ValueError, match=rf"Expected a\.h5 to hold its arrays\. Received: {received}"):
        hdf5.check(tmp_path / "a.h5", "a.h5")


def test_weights_that_declare_more_than_the_memory(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("huge", (2**40,), "f8", chunks=(1024,))
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"the arrays of a\.h5 to need at most .* Received: 8\.8 TB"):
        hdf5.check(tmp_path / "a.h5", "a.h5")


def test_damaged_weights(tmp_path):
    (tmp_path / "a.h5").write_text("text")
    with pytest.raises(OSError, match="file signature not found"):
        hdf5.check(tmp_path / "a.h5", "a.h5")
