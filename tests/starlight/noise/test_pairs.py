"""Pair sets: what is written reads back equal; what is wrong is named with its row."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlight.noise.pairs import COLUMNS, Pair, read_pairs, write_pairs

HEADER = ",".join(COLUMNS)
ROW = "hall,truth/hall.png,noise/hall/0000.png,2.0,1.0,0.5,captured"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("truth/hall.png", "noise/hall/0000.png", "noise/hall/0001.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "pairs.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


positive = st.floats(min_value=1e-6, max_value=1e6)


@given(positive, positive, positive, st.text("ab, \"'é\n", min_size=1).filter(str.strip))
def test_written_pairs_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, analog: float, digital: float, ratio: float, name: str
) -> None:
    folder = tmp_path_factory.mktemp("set")
    (folder / "a, b.png").touch()
    (folder / "n.png").touch()
    pair = Pair(
        name, folder / "a, b.png", folder / "n.png", analog, digital, ratio, source="generated"
    )
    write_pairs(folder, [pair])
    assert read_pairs(folder).pairs == (pair,)


def test_scenes_group_their_pairs_in_order(folder: Path) -> None:
    other = ROW.replace("0000", "0001")
    found = read_pairs(table(folder, ROW, "", other))
    assert [pair.noise.name for pair in found.scenes["hall"]] == ["0000.png", "0001.png"]
    assert found.pairs[0].correcting_gain == 2.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("2.0", "loud"), "row 3: analog_gain must be a number, got 'loud'"),
        (ROW.replace("2.0", "-1"), "row 3: analog_gain must be positive and finite, got -1"),
        (ROW.replace("0.5", "nan"), "row 3: exposure_ratio must be positive"),
        (ROW.replace("captured", "bought"), "row 3: source must be captured or generated"),
        (ROW.replace("noise/hall/0000.png", "../x.png"), "row 3: noise must be a path within"),
        (ROW.replace("noise/hall/0000.png", "/etc/hosts"), "row 3: noise must be a path within"),
        (ROW.replace("truth/hall.png", ""), "row 3: truth must be a path within"),
        (ROW.replace("hall,truth", ",truth"), "row 3: scene must be a name"),
        (ROW + ",", "row 3: cells must be 7, got 8"),
        (ROW.replace("0000", "0001"), "row 3: noise must differ .* of row 2 again"),
    ],
)
def test_a_row_at_fault_is_named(folder: Path, row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_pairs(table(folder, ROW.replace("0000", "0001"), row))


def test_missing_things_are_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_pairs(folder / "absent")
    with pytest.raises(FileNotFoundError, match=r"must hold pairs\.csv"):
        read_pairs(folder)
    with pytest.raises(FileNotFoundError, match="row 2: truth must be an existing file"):
        read_pairs(table(folder, ROW.replace("hall.png", "attic.png")))
    with pytest.raises(ValueError, match="columns must be scene, truth"):
        read_pairs(table(folder, ROW, header=HEADER.replace("scene", "place")))
    with pytest.raises(ValueError, match="rows must be at least one"):
        read_pairs(table(folder))
    (folder / "pairs.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_pairs(folder)
    (folder / "pairs.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="columns must be"):
        read_pairs(folder)


def test_a_path_out_of_the_folder_is_not_written(folder: Path) -> None:
    outside = Pair("x", folder.parent / "t.png", folder / "n.png", 1.0)
    with pytest.raises(ValueError, match="truth must lie in the folder"):
        write_pairs(folder, [outside])
    assert not (folder / "pairs.csv").exists()
