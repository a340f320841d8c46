"""Reading the items of a data set one by one, and what is said of those that cannot be read."""

import pytest

from epochal.data.errors import DataError
from epochal.data.inspection.item_reader import ItemReader


class WithABrokenFile:
    """As a built-in data set, of whose files one is none."""

    def __len__(self):
        return 5

    def __getitem__(self, row):
        if row == 3:
            raise DataError("cat/3.png cannot be decoded: mend or remove the file")
        return [row / 2], row % 2


def test_what_a_built_in_set_says_of_an_item_comes_with_its_field_and_the_way_on():
    reader = ItemReader(WithABrokenFile(), 5, "train_data")
    with pytest.raises(DataError) as caught:
        reader.read(None)
    assert str(caught.value).startswith("train_data: item 3 of 5: cat/3.png cannot be decoded")
    assert "set loader.on_bad_sample: quarantine (`epochal data check` lists" in str(caught.value)
    bad = reader.read(None, keep_bad=True).bad
    assert [one.error for one in bad] == ["cat/3.png cannot be decoded: mend or remove the file"]
