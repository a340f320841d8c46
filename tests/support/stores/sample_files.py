"""Whole sample tables in files: what mine stages write, and others read column by column."""

from epochal.data.samples.table import SampleTable
from epochal.data.tables.schemas import SAMPLES
from epochal.data.tables.writing import read_table, write_table


def write_samples(table, path, metadata=None):
    write_table(table.columns, path, schema=SAMPLES, metadata=metadata or {})


def read_samples(path):
    return SampleTable(read_table(path, schema=SAMPLES).columns)
