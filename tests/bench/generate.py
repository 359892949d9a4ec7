"""Bodies for the benchmarks: our own captures, multiplied by a seeded generator.

Two shapes, as performance differs between them:
  node  what a node agent sends: many resources, a small dictionary, timestamps instead of values
  app   what one application sends: one resource, a dictionary of 85 % or more, mostly stacks

    generate.py OUT_DIR [--seed 1]     writes OUT_DIR/{node,app}-{2k,10k,100k,1m,4m}.otlp
                                       and OUT_DIR/app-*.pprof.gz with the same samples as pprof

Fields stand in ascending order (Google-style encoders) in the odd-numbered seeds and dictionary
first (the Collector's order) in the even ones.
"""
import argparse
import gzip
import pathlib
import random

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.profiles.v1development import profiles_pb2 as profiles

SIZES = {"2k": 2_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000, "4m": 4_100_000}
DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "otlp"


class Tables:
    """A dictionary under construction; rows are interned by content."""

    def __init__(self):
        self.message = profiles.ProfilesDictionary()
        self.known = {}
        self.size = 0
        for table, row in (
            ("mapping_table", profiles.Mapping()), ("location_table", profiles.Location()),
            ("function_table", profiles.Function()), ("link_table", profiles.Link()),
            ("attribute_table", profiles.KeyValueAndUnit()), ("stack_table", profiles.Stack()),
        ):
            self.row(table, row)
        self.string("")

    def row(self, table, message):
        key = (table, message.SerializeToString(deterministic=True))
        if key not in self.known:
            rows = getattr(self.message, table)
            rows.append(message)
            self.known[key] = len(rows) - 1
            self.size += len(key[1]) + 2 + (len(key[1]) > 127)
        return self.known[key]

    def string(self, text):
        key = ("string_table", text)
        if key not in self.known:
            self.message.string_table.append(text)
            self.known[key] = len(self.message.string_table) - 1
            self.size += len(text) + 2 + (len(text) > 127)
        return self.known[key]


class Capture:
    """Rows of a captured request, copied into new tables with whatever they refer to."""

    def __init__(self, path):
        self.request = service.ExportProfilesServiceRequest.FromString(path.read_bytes())
        self.dictionary = self.request.dictionary

    def text(self, index):
        return self.dictionary.string_table[index]

    def attribute(self, tables, index):
        row = self.dictionary.attribute_table[index]
        copy = profiles.KeyValueAndUnit(key_strindex=tables.string(self.text(row.key_strindex)),
                                        unit_strindex=tables.string(self.text(row.unit_strindex)))
        copy.value.CopyFrom(row.value)
        return tables.row("attribute_table", copy)

    def mapping(self, tables, index):
        if index == 0:
            return 0
        row = self.dictionary.mapping_table[index]
        return tables.row("mapping_table", profiles.Mapping(
            memory_start=row.memory_start, memory_limit=row.memory_limit, file_offset=row.file_offset,
            filename_strindex=tables.string(self.text(row.filename_strindex)),
            attribute_indices=[self.attribute(tables, i) for i in row.attribute_indices]))

    def function(self, tables, index, suffix=""):
        row = self.dictionary.function_table[index]
        name = self.text(row.name_strindex)
        return tables.row("function_table", profiles.Function(
            name_strindex=tables.string(name + suffix if name else ""),
            filename_strindex=tables.string(self.text(row.filename_strindex)),
            start_line=row.start_line)) if name else 0

    def location(self, tables, index, suffix=""):
        row = self.dictionary.location_table[index]
        copy = profiles.Location(mapping_index=self.mapping(tables, row.mapping_index), address=row.address,
                                 attribute_indices=[self.attribute(tables, i) for i in row.attribute_indices])
        for line in row.lines:
            copy.lines.append(profiles.Line(function_index=self.function(tables, line.function_index, suffix),
                                            line=line.line))
        return tables.row("location_table", copy)

    def stack(self, tables, index):
        row = self.dictionary.stack_table[index]
        return tables.row("stack_table", profiles.Stack(
            location_indices=[self.location(tables, i) for i in row.location_indices]))


def node(capture, size, rng):
    """Processes of one host: resources by the dozen over one small dictionary."""
    tables, request = Tables(), service.ExportProfilesServiceRequest()
    stacks = [i for i in range(1, len(capture.dictionary.stack_table))]
    rng.shuffle(stacks)
    pool, budget = [0], max(400, size // 5)
    for index in stacks:
        pool.append(capture.stack(tables, index))
        if tables.size > budget:
            break
    sources = list(capture.request.resource_profiles)
    attributes = list(range(1, min(len(capture.dictionary.attribute_table), 12)))
    used = 0
    while used + tables.size < size * 0.985:
        source = rng.choice(sources)
        resource = request.resource_profiles.add(schema_url=source.schema_url)
        for attribute in source.resource.attributes:
            copy = resource.resource.attributes.add()
            copy.CopyFrom(attribute)
            if attribute.key == "process.pid":
                copy.value.int_value = rng.randrange(100, 60_000)
            if attribute.key == "container.id":
                copy.value.string_value = "%064x" % rng.getrandbits(256)
        if not any(a.key == "container.id" for a in resource.resource.attributes):
            copy = resource.resource.attributes.add(key="container.id")
            copy.value.string_value = "%064x" % rng.getrandbits(256)
        scope = resource.scope_profiles.add()
        scope.scope.CopyFrom(source.scope_profiles[0].scope)
        model = source.scope_profiles[0].profiles[0]
        profile = scope.profiles.add(time_unix_nano=model.time_unix_nano, duration_nano=model.duration_nano,
                                     period=model.period)
        for field in ("sample_type", "period_type"):
            value = getattr(model, field)
            getattr(profile, field).CopyFrom(profiles.ValueType(
                type_strindex=tables.string(capture.text(value.type_strindex)),
                unit_strindex=tables.string(capture.text(value.unit_strindex))))
        for _ in range(rng.randrange(2, 8)):
            sample = profile.samples.add(stack_index=rng.choice(pool))
            sample.attribute_indices.extend(
                sorted({capture.attribute(tables, rng.choice(attributes)) for _ in range(2)}))
            count = rng.randrange(1, 32)
            sample.timestamps_unix_nano.extend(sorted(
                model.time_unix_nano + rng.randrange(max(1, model.duration_nano)) for _ in range(count)))
            if used + resource.ByteSize() + tables.size > size:
                break
        used += resource.ByteSize() + 3
    request.dictionary.CopyFrom(tables.message)
    return request


def app(capture, size, rng):
    """One application: deep stacks that share frames, as many samples as stacks."""
    tables, request = Tables(), service.ExportProfilesServiceRequest()
    resource = request.resource_profiles.add(schema_url="https://opentelemetry.io/schemas/1.37.0")
    for key, value in (("service.name", "encoder"), ("service.version", "7.4.1"),
                       ("telemetry.sdk.language", "cpp"), ("host.name", "enc-17")):
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_profiles.add()
    scope.scope.name = "flue.bench"
    profile = scope.profiles.add(time_unix_nano=1_795_219_899_000_000_000, duration_nano=10_000_000_000, period=10_000_000)
    for field, kind, unit in (("sample_type", "samples", "count"), ("period_type", "cpu", "nanoseconds")):
        getattr(profile, field).CopyFrom(profiles.ValueType(
            type_strindex=tables.string(kind), unit_strindex=tables.string(unit)))
    callers = {}
    known = list(capture.dictionary.stack_table[1:])
    rng.shuffle(known)
    for stack in known[: max(2, size // 1_500)]:
        frames = list(reversed(stack.location_indices))
        for caller, callee in zip([0] + frames, frames):
            callers.setdefault(caller, []).append(callee)
    places = {}
    copies, stacks, used, misses = 1, set(), resource.ByteSize(), 0
    while used + tables.size < size * 0.985:
        frame, frames = 0, []
        suffix = rng.randrange(copies)
        end = rng.randrange(4, 64)
        while frame in callers and len(frames) < end:
            frame = rng.choice(callers[frame])
            place = (frame, suffix)
            if place not in places:
                if tables.size > size * 0.45:  # frames are half of a dictionary; then only their order is new
                    place = rng.choice(list(places)) if len(places) < 64 else (frame, 0)
                places[place] = places.get(place) or capture.location(
                    tables, place[0], "<%d>" % place[1] if place[1] else "")
            frames.append(places[place])
        index = tables.row("stack_table", profiles.Stack(location_indices=list(reversed(frames))))
        if index in stacks:
            misses += 1
            copies = 1 + min(misses // 50, size // 20_000)
            if misses % 1_000 or not misses:
                continue
            frames.insert(rng.randrange(len(frames)), rng.choice(frames))
            index = tables.row("stack_table", profiles.Stack(location_indices=list(reversed(frames))))
        stacks.add(index)
        sample = profile.samples.add(stack_index=index, values=[rng.randrange(1, 200)])
        used += sample.ByteSize() + 2
    request.dictionary.CopyFrom(tables.message)
    return request


def varint(value):
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload if isinstance(payload, bytes) \
        else varint(number << 3) + varint(payload)


def pprof(request):
    """The app shape's samples as pprof, ids being table indices."""
    d = request.dictionary
    profile = request.resource_profiles[0].scope_profiles[0].profiles[0]
    out = bytearray()
    value_type = lambda v: field(1, v.type_strindex) + field(2, v.unit_strindex)
    out += field(1, value_type(profile.sample_type))
    for sample in profile.samples:
        ids = b"".join(varint(i) for i in d.stack_table[sample.stack_index].location_indices)
        out += field(2, field(1, ids) + field(2, varint(sample.values[0])))
    for i, mapping in enumerate(d.mapping_table):
        if i:
            out += field(3, field(1, i) + field(2, mapping.memory_start) + field(3, mapping.memory_limit)
                         + field(5, mapping.filename_strindex))
    for i, location in enumerate(d.location_table):
        if i:
            lines = b"".join(field(4, field(1, line.function_index) + field(2, line.line))
                             for line in location.lines if line.function_index)
            out += field(4, field(1, i) + field(2, location.mapping_index) + field(3, location.address) + lines)
    for i, function in enumerate(d.function_table):
        if i:
            out += field(5, field(1, i) + field(2, function.name_strindex) + field(4, function.filename_strindex))
    for text in d.string_table:
        out += field(6, text.encode())
    out += field(9, profile.time_unix_nano) + field(10, profile.duration_nano)
    out += field(11, value_type(profile.period_type)) + field(12, profile.period)
    return bytes(out)


def encode(request, dictionary_first):
    if not dictionary_first:
        return request.SerializeToString(deterministic=True)
    rest = service.ExportProfilesServiceRequest()
    rest.CopyFrom(request)
    rest.ClearField("dictionary")
    return field(2, request.dictionary.SerializeToString(deterministic=True)) + rest.SerializeToString(deterministic=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    capture = Capture(DATA / "ebpf-v1.11-ascending.otlp")
    for name, size in SIZES.items():
        for shape in (node, app):
            request = shape(capture, size, random.Random(f"{options.seed}/{shape.__name__}/{name}"))
            body = encode(request, options.seed % 2 == 0)
            (options.out / f"{shape.__name__}-{name}.otlp").write_bytes(body)
            share = request.dictionary.ByteSize() / len(body)
            print(f"{shape.__name__}-{name}: {len(body)} bytes, {len(request.resource_profiles)} resources, "
                  f"dictionary {share:.0%}, {len(request.dictionary.stack_table)} stacks")
            if shape is app:
                raw = pprof(request)
                (options.out / f"app-{name}.pprof").write_bytes(raw)
                (options.out / f"app-{name}.pprof.gz").write_bytes(gzip.compress(raw, 6, mtime=0))


if __name__ == "__main__":
    main()
