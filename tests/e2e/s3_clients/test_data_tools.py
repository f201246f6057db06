"""Tables of pandas and pyarrow, as Parquet and CSV."""

import pytest

from .clients import Pyarrow, fsspec_options

pandas = pytest.importorskip("pandas")
pytest.importorskip("s3fs")
dataset = pytest.importorskip("pyarrow.dataset")


@pytest.fixture
def table():
    return pandas.DataFrame(
        {
            "number": range(10_000),
            "name": [f"näme {n}" for n in range(10_000)],
            "kind": [("even", "odd")[n % 2] for n in range(10_000)],
        }
    )


def test_pandas_writes_and_reads_tables(daemon, bucket, table):
    options = {**fsspec_options(daemon), "skip_instance_cache": True}
    table.to_parquet(f"s3://{bucket}/tables/one file.parquet", storage_options=options)
    found = pandas.read_parquet(f"s3://{bucket}/tables/one file.parquet", storage_options=options)
    pandas.testing.assert_frame_equal(found, table)
    some = pandas.read_parquet(f"s3://{bucket}/tables/one file.parquet", columns=["number"], storage_options=options)
    pandas.testing.assert_frame_equal(some, table[["number"]])
    table.to_csv(f"s3://{bucket}/tables/one.csv.gz", index=False, storage_options=options)
    pandas.testing.assert_frame_equal(
        pandas.read_csv(f"s3://{bucket}/tables/one.csv.gz", storage_options=options), table
    )


def test_pandas_writes_and_reads_partitions(daemon, bucket, table):
    options = {**fsspec_options(daemon), "skip_instance_cache": True}
    table.to_parquet(f"s3://{bucket}/parts", partition_cols=["kind"], storage_options=options)
    found = pandas.read_parquet(f"s3://{bucket}/parts", filters=[("kind", "=", "odd")], storage_options=options)
    assert sorted(found["number"]) == list(range(1, 10_000, 2))


def test_pyarrow_datasets_are_written_and_read_in_partitions(daemon, bucket, s3, table, tmp_path):
    import pyarrow as pa

    filesystem = Pyarrow(daemon, tmp_path).s3
    dataset.write_dataset(
        pa.Table.from_pandas(table),
        f"{bucket}/data set",
        format="parquet",
        partitioning=["kind"],
        partitioning_flavor="hive",
        max_rows_per_file=1000,
        max_rows_per_group=1000,
        filesystem=filesystem,
    )
    written = dataset.dataset(f"{bucket}/data set", format="parquet", partitioning="hive", filesystem=filesystem)
    assert len(written.files) == 10
    odd = written.to_table(filter=dataset.field("kind") == "odd", columns=["number"])
    assert sorted(odd["number"].to_pylist()) == list(range(1, 10_000, 2))
    filesystem.delete_dir(f"{bucket}/data set")
    assert not [entry for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", []) if entry["Size"]]
