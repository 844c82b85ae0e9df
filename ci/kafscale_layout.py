#!/usr/bin/env python3
"""Holds Millrace's segments against KafScale's layout, both ways, field by field: `kafscale_layout.py path/to/millrace`.

A reader and a writer of their own, made from the layout's description (docs/DESIGN.md section 5) and sharing no code with
Millrace or KafScale, whose Go module the public proxy does not serve:

1. segments as KafScale writes them (an index entry every so many messages, one file for each flush, any first offset) are
   verified, imported, and exported again;
2. of every exported file each field is read: both headers, footer, checksums, each batch, each index entry; the batches
   must be those that were written, byte for byte but for the leader epoch, at their offsets.

Needs Python 3.9 and nothing else; takes a second or two.
"""

import pathlib
import random
import struct
import subprocess
import sys
import tempfile

POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    TABLE.append(byte)

HEADER = struct.Struct(">4sHHqiqI")  # magic, version, flags, base offset, messages, created ms, reserved
FOOTER = struct.Struct(">Iq4s")  # CRC-32C of the batches, last offset, magic
INDEX_HEADER = struct.Struct(">4sHiiH")  # magic, version, entries, interval in messages, reserved
ENTRY = struct.Struct(">qi")  # offset, position in the file
BATCH = struct.Struct(">qiibIhiqqqhii")  # Kafka's record batch of magic 2, up to its records
EPOCH = slice(12, 16)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(number):
    number = number << 1 ^ number >> 63
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def batch(base, values, time, epoch):
    records = b""
    for delta, value in enumerate(values):
        body = b"\0" + varint(delta) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(body)) + body
    last = len(values) - 1
    rest = struct.pack(">hiqqqhii", 0, last, time, time + last, -1, -1, -1, len(values)) + records
    return struct.pack(">qiibI", base, len(rest) + 9, epoch, 2, crc32c(rest)) + rest


def write(folder, batches, interval, created):
    """A file and its index, as KafScale makes them of the batches of one flush: [(base, count, bytes)]."""
    base, (end, count, _) = batches[0][0], batches[-1]
    entries, since, position = [], interval, HEADER.size
    for offset, messages, data in batches:
        if since >= interval:
            entries.append(ENTRY.pack(offset, position))
            since = 0
        since += messages
        position += len(data)
    body = b"".join(data for _, _, data in batches)
    header = HEADER.pack(b"KAFS", 1, 0, base, sum(messages for _, messages, _ in batches), created, 0)
    footer = FOOTER.pack(crc32c(body), end + count - 1, b"END!")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"segment-{base:020d}.kfs"
    file.write_bytes(header + body + footer)
    index = INDEX_HEADER.pack(b"IDX\0", 1, len(entries), interval, 0) + b"".join(entries)
    file.with_suffix(".index").write_bytes(index)
    return file


def read(file):
    """Every field of a file and its index; gives its batches with their offsets."""
    data = file.read_bytes()
    magic, version, flags, base, messages, created, reserved = HEADER.unpack_from(data)
    assert (magic, version, flags, reserved) == (b"KAFS", 1, 0, 0), file
    assert file.name == f"segment-{base:020d}.kfs", file
    assert 1_500_000_000_000 < created < 5_000_000_000_000, f"{file}: made at {created} ms"
    crc, last, end = FOOTER.unpack(data[-FOOTER.size :])
    body = data[HEADER.size : -FOOTER.size]
    assert (end, crc) == (b"END!", crc32c(body)), file
    batches, position, records = [], 0, 0
    while position < len(body):
        fields = BATCH.unpack_from(body, position)
        offset, length, _, batch_magic, batch_crc, _, delta = fields[:7]
        whole = body[position : position + 12 + length]
        assert batch_magic == 2 and batch_crc == crc32c(whole[21:]), f"{file}: batch at {offset}"
        assert fields[12] == delta + 1 and (not batches or offset > batches[-1][0]), f"{file}: batch at {offset}"
        batches.append((offset, HEADER.size + position, whole))
        position, records, after = position + len(whole), records + fields[12], offset + delta
    assert (batches[0][0], after, records) == (base, last, messages), file
    index = file.with_suffix(".index").read_bytes()
    magic, version, count, interval, reserved = INDEX_HEADER.unpack_from(index)
    assert (magic, version, reserved) == (b"IDX\0", 1, 0) and interval > 0, file
    entries = [ENTRY.unpack_from(index, at) for at in range(INDEX_HEADER.size, len(index), ENTRY.size)]
    places = {(offset, position) for offset, position, _ in batches}
    assert len(entries) == count and entries == sorted(set(entries)), file
    assert entries[0] == (base, HEADER.size) and places.issuperset(entries), file
    return [(offset, whole) for offset, _, whole in batches]


def main():
    millrace = pathlib.Path(sys.argv[1]).resolve()
    dice = random.Random(7)

    def run(*arguments, succeeds=True):
        done = subprocess.run([millrace, "segment", *arguments], capture_output=True, text=True)
        assert (done.returncode == 0) == succeeds, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        theirs, back, data = root / "theirs", root / "back", str(root / "data")
        written, files = {}, []
        for partition, first in enumerate([0, 1_000, 1 << 40]):
            offset, written[partition] = first, []
            for flush in range(12):
                batches = []
                for _ in range(dice.randint(1, 6)):
                    values = [dice.randbytes(dice.randint(0, 400)) for _ in range(dice.randint(1, 40))]
                    whole = batch(offset, values, 1_700_000_000_000 + flush, dice.choice([-1, 0, 3]))
                    batches.append((offset, len(values), whole))
                    written[partition].append((offset, whole))
                    offset += len(values)
                folder = theirs / "default" / "orders" / str(partition)
                files.append(write(folder, batches, dice.choice([1, 25, 100]), 1_700_000_000_000 + flush))
        for file in files:
            run("verify", str(file))
        copy = ["--topic", "orders", "--data-dir", data]
        source = ["--source", f"file://{theirs}", "--topic-config", "retention.ms=-1"]
        hidden = files[5].rename(root / "hidden")
        assert "was to come" in run("import", *copy, *source, succeeds=False), "a missing file is a gap"
        hidden.rename(files[5])
        run("import", *copy, *source)
        run("export", *copy, "--target", f"file://{back}")
        for partition, expected in written.items():
            found = []
            for file in sorted((back / "default" / "orders" / str(partition)).glob("*.kfs")):
                run("verify", str(file))
                found += read(file)

            def plain(batches):
                return [(offset, whole[: EPOCH.start] + whole[EPOCH.stop :]) for offset, whole in batches]

            assert plain(found) == plain(expected), f"partition {partition}"
            assert all(whole[EPOCH] == struct.pack(">i", 1) for _, whole in found), "one epoch of the log's own"
    print(f"{len(files)} files of KafScale's layout in, every batch and field out again")


main()
