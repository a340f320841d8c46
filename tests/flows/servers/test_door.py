"""The folder of the servers has one door."""

from support.source_tree import files, imports, place


def test_files_outside_import_from_the_door_alone():
    folder = "flows.servers"
    inner = {
        (place(path), name)
        for path in files()
        if not f"{place(path)}.".startswith(f"{folder}.")
        for name in imports(path)
        if name.startswith(f"epochal.{folder}.")
    }
    assert inner == set()
