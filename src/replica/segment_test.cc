#include "replica/segment.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "codec/crc32c.h"
#include "codec/envelope.h"
#include "codec/hash.h"
#include "record/record.h"
#include "replica/segment_format.h"
#include "store/memory_store.h"

namespace farshore {
namespace {

class SeededRandom final : public Random {
  public:
    explicit SeededRandom(uint64_t seed) : engine_(seed) {}
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_;
};

ItemId item_id(uint8_t n) {
    ItemId id;
    id.raw.fill(n);
    return id;
}

// Payload that is random, repetitive or zero.
Bytes payload_of(size_t n, Random& random) {
    Bytes out(n);
    switch (random.below(3)) {
        case 0:
            random.fill(out);
            break;
        case 1:
            for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>("farshore "[i % 9]);
            break;
        default:
            break;
    }
    return out;
}

struct Model {
    std::vector<RecordHeader> headers;
    std::vector<Bytes> payloads;
    Bytes encoded;
    Bytes stream;

    void add(RecordHeader header, Bytes payload = {}) {
        append_record(encoded, header, payload);
        if (header.has_payload()) header.length_bytes = static_cast<uint32_t>(payload.size());
        if (header.kind == RecordKind::kWrite)
            stream.insert(stream.end(), payload.begin(), payload.end());
        headers.push_back(header);
        payloads.push_back(std::move(payload));
    }
};

Model random_model(size_t records, uint64_t first, Random& random, uint32_t max_write) {
    Model model;
    uint64_t sequence = first;
    int64_t time = 1'700'000'000'000'000;
    for (size_t i = 0; i < records; ++i) {
        RecordHeader h;
        h.sequence = {sequence++};
        time += static_cast<int64_t>(random.below(5000)) - 100;
        h.time = {time};
        h.disk = static_cast<DiskIndex>(random.below(4) == 0 ? random.below(kMaxDisks) : 0);
        Bytes payload;
        switch (random.below(12)) {
            case 0:
                h.kind = RecordKind::kZero;
                h.length_bytes = 1 + static_cast<uint32_t>(random.below(kMaxZeroBytes));
                break;
            case 1:
                h.kind = RecordKind::kDiscard;
                h.length_bytes = 4096;
                break;
            case 2:
                h.kind = RecordKind::kFlush;
                break;
            case 3:
                h.kind = RecordKind::kTime;
                break;
            case 4:
                h.kind = RecordKind::kPoint;
                h.flags = static_cast<uint8_t>(1 + random.below(3));
                payload = to_bytes(as_bytes("label " + std::to_string(i)));
                break;
            case 5:
                h.kind = RecordKind::kGap;
                h.sequence = {sequence += random.below(1000)};
                ++sequence;
                break;
            case 6:
                h.kind = RecordKind::kResynced;
                break;
            case 7:
                h.kind = RecordKind::kGeometry;
                h.offset_bytes = random.below(kMaxDiskBytes);
                break;
            default:
                h.kind = RecordKind::kWrite;
                payload = payload_of(1 + random.below(max_write), random);
                h.length_bytes = static_cast<uint32_t>(payload.size());
        }
        if (h.changes_disk()) {
            h.offset_bytes = random.below(kMaxDiskBytes - h.length_bytes);
            if (random.below(2) == 0) h.offset_bytes &= ~uint64_t{4095};
        }
        model.add(h, std::move(payload));
    }
    return model;
}

struct Fixture {
    SeededRandom random{1};
    MemoryStore store;
    Secret key = make_key(random);
    ItemId item = item_id(7);

    SegmentWriter::BuildOptions options() {
        SegmentWriter::BuildOptions o;
        o.item = item;
        o.epoch = {3};
        o.number = {12};
        o.previous_header.fill(0xab);
        o.item_key = &key;
        o.random = &random;
        return o;
    }
    Result<std::shared_ptr<SegmentReader>> open(const std::string& name) {
        return SegmentReader::open(store, name, item, key);
    }
};

Result<Bytes> read_stream(ObjectStore& store, const SegmentReader& reader) {
    Bytes stream;
    for (uint32_t i = 0; i < reader.header().chunk_count; ++i) {
        FS_ASSIGN(Bytes chunk, reader.read_chunk(store, i));
        stream.insert(stream.end(), chunk.begin(), chunk.end());
    }
    return stream;
}

void expect_holds(const Model& model, ObjectStore& store, const SegmentReader& reader) {
    ASSERT_EQ(reader.index().size(), model.headers.size());
    uint64_t position = 0;
    for (size_t i = 0; i < model.headers.size(); ++i) {
        const RecordHeader& want = model.headers[i];
        const IndexEntry& got = reader.index()[i];
        ASSERT_EQ(got.kind, want.kind) << i;
        ASSERT_EQ(got.flags, want.flags) << i;
        ASSERT_EQ(got.disk, want.disk) << i;
        ASSERT_EQ(got.sequence, want.sequence) << i;
        ASSERT_EQ(got.time, want.time) << i;
        ASSERT_EQ(got.offset_bytes, want.offset_bytes) << i;
        ASSERT_EQ(got.length_bytes, want.length_bytes) << i;
        if (want.kind == RecordKind::kWrite) {
            ASSERT_EQ(got.payload_position, position) << i;
            position += want.length_bytes;
        }
        if (want.kind == RecordKind::kPoint) {
            ASSERT_EQ(got.label, to_text(model.payloads[i])) << i;
        }
    }
    auto stream = read_stream(store, reader);
    ASSERT_TRUE(stream) << stream.error().to_string();
    ASSERT_EQ(*stream, model.stream);
    const Status verified = reader.verify_all(store);
    ASSERT_TRUE(verified) << verified.error().to_string();
}

// Broken if any record could come back from a segment other than it went in.
TEST(Segment, GivesBackWhatWasAdded) {
    const uint64_t seed = 20261122;
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Fixture f;
    SeededRandom random(seed);
    for (int round = 0; round < 40; ++round) {
        const Model model = random_model(1 + random.below(200), 1 + random.below(1u << 30), random,
                                         round % 4 == 0 ? kMaxWriteBytes / 8 : 9000);
        SegmentWriter writer;
        ASSERT_TRUE(writer.add(model.encoded));
        EXPECT_EQ(writer.record_count(), model.headers.size());
        EXPECT_EQ(writer.payload_bytes(), model.stream.size());
        auto options = f.options();
        options.number = {static_cast<uint64_t>(round + 1)};
        options.haste = static_cast<Haste>(round % 3);
        if (round % 3 == 0)
            options.parallel_for = [](size_t n, const std::function<void(size_t)>& job) {
                std::vector<std::thread> threads;
                for (size_t t = 0; t < 3; ++t)
                    threads.emplace_back([&, t] {
                        for (size_t i = t; i < n; i += 3) job(i);
                    });
                for (auto& thread : threads) thread.join();
            };
        auto built = writer.build(options);
        ASSERT_TRUE(built) << built.error().to_string();
        EXPECT_TRUE(writer.empty());
        const std::string name = segment_object_name(built->header);
        ASSERT_TRUE(f.store.put(name, built->object));
        auto reader = f.open(name);
        ASSERT_TRUE(reader) << reader.error().to_string();
        EXPECT_EQ((*reader)->header().header_hash, built->header.header_hash);
        EXPECT_EQ((*reader)->header().first, model.headers.front().sequence);
        EXPECT_EQ((*reader)->header().last, model.headers.back().sequence);
        EXPECT_EQ((*reader)->header().object_bytes, built->object.size());
        expect_holds(model, f.store, **reader);
        EXPECT_EQ((*reader)->read_chunk(f.store, built->header.chunk_count).error().code(),
                  Code::kInvalidArgument);
        (*reader)->forget_index();
        EXPECT_TRUE((*reader)->index().empty());
    }
}

// Broken if the names that vault, appliance and extract agree on changed.
TEST(Segment, NamesAreFixed) {
    SegmentHeader h;
    h.item = item_id(0x0f);
    h.number = {0x2a};
    h.epoch = {3};
    const std::string item = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
    EXPECT_EQ(segment_object_name(h),
              "items/" + item + "/log/000000000000002a-0000000000000003.seg");
    h.kind = SegmentKind::kBase;
    EXPECT_EQ(segment_object_name(h),
              "items/" + item + "/base/000000000000002a-0000000000000003.base");
}

Model small_model() {
    SeededRandom random(42);
    return random_model(24, 100, random, 9000);
}

// Broken if damage anywhere in an object could pass as data, crash the reader or be called by a
// name that tells an operator nothing.
TEST(Segment, EveryFlippedByteIsANamedError) {
    Fixture f;
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(small_model().encoded));
    auto built = writer.build(f.options());
    ASSERT_TRUE(built);
    const std::string name = segment_object_name(built->header);
    ASSERT_GT(built->header.chunk_count, 0u);
    SeededRandom random(3);
    for (size_t i = 0; i < built->object.size(); ++i) {
        Bytes bad = built->object;
        bad[i] ^= static_cast<uint8_t>(1u << random.below(8));
        f.store.replace(name, bad);
        auto reader = f.open(name);
        if (reader) {
            auto stream = read_stream(f.store, **reader);
            ASSERT_FALSE(stream) << "byte " << i << " changed unnoticed";
            ASSERT_EQ(stream.error().code(), Code::kCorrupt) << i;
            ASSERT_EQ((*reader)->verify_all(f.store).error().code(), Code::kCorrupt) << i;
        } else {
            const Code code = reader.error().code();
            ASSERT_TRUE(code == Code::kCorrupt || code == Code::kMalformed ||
                        code == Code::kTruncated)
                << i << ": " << reader.error().to_string();
        }
    }
}

TEST(Segment, EveryTruncationIsANamedError) {
    Fixture f;
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(small_model().encoded));
    auto built = writer.build(f.options());
    ASSERT_TRUE(built);
    const std::string name = segment_object_name(built->header);
    for (size_t n = 0; n < built->object.size(); ++n) {
        f.store.replace(name, to_bytes(ByteView(built->object).first(n)));
        auto reader = f.open(name);
        ASSERT_FALSE(reader) << n;
        ASSERT_EQ(reader.error().code(), Code::kTruncated)
            << n << ": " << reader.error().to_string();
    }
    Bytes longer = built->object;
    longer.push_back(0);
    f.store.replace(name, longer);
    EXPECT_EQ(f.open(name).error().code(), Code::kCorrupt);
}

// Broken if a large object's damage, which open() does not see, passed when its chunks are read.
TEST(Segment, DamageBehindTheFirstReadIsNoticed) {
    Fixture f;
    SeededRandom random(5);
    Model model;
    for (uint64_t i = 0; i < 40; ++i) {
        Bytes payload(65536);
        random.fill(payload);
        RecordHeader h;
        h.sequence = {i + 1};
        h.offset_bytes = i << 16;
        model.add(h, payload);
    }
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(model.encoded));
    auto built = writer.build(f.options());
    ASSERT_TRUE(built);
    const std::string name = segment_object_name(built->header);
    f.store.replace(name, built->object);
    expect_holds(model, f.store, **f.open(name));
    Bytes flipped = built->object;
    flipped[2'000'000] ^= 1;
    f.store.replace(name, flipped);
    auto reader = f.open(name);
    ASSERT_TRUE(reader);
    EXPECT_EQ(read_stream(f.store, **reader).error().code(), Code::kCorrupt);
    EXPECT_EQ((*reader)->verify_all(f.store).error().code(), Code::kCorrupt);
    f.store.replace(name, to_bytes(ByteView(built->object).first(2'000'000)));
    EXPECT_EQ(read_stream(f.store, **reader).error().code(), Code::kTruncated);
    EXPECT_EQ((*reader)->verify_all(f.store).error().code(), Code::kTruncated);
    Bytes longer = built->object;
    longer.push_back(0);
    f.store.replace(name, longer);
    EXPECT_EQ((*reader)->verify_all(f.store).error().code(), Code::kCorrupt);
}

// Broken if an index larger than the first read were cut, or small writes cost too much index.
TEST(Segment, RandomSmallWritesCostFewIndexBytesAndLongIndexesAreRead) {
    Fixture f;
    SeededRandom random(6);
    Model model;
    constexpr size_t kWrites = 60'000;
    int64_t time = 1'700'000'000'000'000;
    for (uint64_t i = 0; i < kWrites; ++i) {
        RecordHeader h;
        h.sequence = {i + 1};
        time += static_cast<int64_t>(random.below(400));
        h.time = {time};
        h.offset_bytes = random.below(1u << 28) << 12;  // 1 TiB
        model.add(h, Bytes(512, 1));
    }
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(model.encoded));
    auto built = writer.build(f.options());
    ASSERT_TRUE(built);
    const std::string name = segment_object_name(built->header);
    f.store.replace(name, built->object);
    auto front = segment_format::decode_header(built->object);
    ASSERT_TRUE(front);
    EXPECT_GT(front->index_sealed_bytes, 256u << 10) << "the test must need a second read";
    EXPECT_LE(front->index_sealed_bytes / kWrites, 10u);
    auto reader = f.open(name);
    ASSERT_TRUE(reader) << reader.error().to_string();
    expect_holds(model, f.store, **reader);
}

// Broken if a wrong key, a foreign or renamed object, or a newer format were taken for damage or,
// worse, for data.
TEST(Segment, SaysWhatIsWrongWithKeyItemNameAndVersion) {
    Fixture f;
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(small_model().encoded));
    auto built = writer.build(f.options());
    ASSERT_TRUE(built);
    const std::string name = segment_object_name(built->header);
    f.store.replace(name, built->object);
    EXPECT_EQ(SegmentReader::open(f.store, name, f.item, make_key(f.random)).error().code(),
              Code::kWrongKey);
    EXPECT_EQ(SegmentReader::open(f.store, name, item_id(8), f.key).error().code(),
              Code::kForeignStore);
    EXPECT_EQ(f.open("items/x/log/none").error().code(), Code::kNotFound);
    f.store.replace("items/x/log/other", built->object);
    EXPECT_EQ(f.open("items/x/log/other").error().code(), Code::kCorrupt);

    // A newer version: another number, a longer header, a right checksum.
    Bytes newer = built->object;
    store_u16(newer.data() + 12, 2);
    store_u16(newer.data() + 14, 400);
    store_u32(newer.data() + 8, crc32c(ByteView(newer).subspan(12, 388)));
    f.store.replace(name, newer);
    auto refused = f.open(name);
    EXPECT_EQ(refused.error().code(), Code::kNewerVersion);
    EXPECT_FALSE(refused.error().remedy().empty());

    // Somebody without the key who makes the checksums right still cannot change a header field.
    for (size_t at :
         {segment_format::kFirstTimeAt, segment_format::kPreviousAt, segment_format::kLastTimeAt}) {
        Bytes forged = built->object;
        forged[at] ^= 1;
        store_u32(forged.data() + 8, crc32c(ByteView(forged).subspan(12, 308)));
        f.store.replace(name, forged);
        EXPECT_EQ(f.open(name).error().code(), Code::kCorrupt) << at;
    }
}

// Broken if a segment could be built over a hole that no GAP explains, or with too much in it.
TEST(SegmentWriter, RefusesHolesDisorderDamageAndExcess) {
    Fixture f;
    const auto record = [](uint64_t sequence, RecordKind kind = RecordKind::kFlush) {
        Bytes out;
        RecordHeader h;
        h.kind = kind;
        h.sequence = {sequence};
        append_record(out, h);
        return out;
    };
    SegmentWriter writer;
    EXPECT_EQ(writer.build(f.options()).error().code(), Code::kInvalidArgument);
    ASSERT_TRUE(writer.add(record(5)));
    ASSERT_TRUE(writer.add(record(9, RecordKind::kGap)));
    EXPECT_TRUE(writer.build(f.options()));
    ASSERT_TRUE(writer.add(record(5)));
    ASSERT_TRUE(writer.add(record(7)));
    EXPECT_EQ(writer.build(f.options()).error().code(), Code::kSequenceHole);
    // A base object holds what is left of many segments: holes are its nature.
    auto base = f.options();
    base.kind = SegmentKind::kBase;
    EXPECT_TRUE(writer.build(base));

    Model model;
    RecordHeader h;
    h.sequence = {1};
    model.add(h, Bytes(512, 7));
    Bytes damaged = model.encoded;
    damaged.back() ^= 1;
    EXPECT_EQ(writer.add(damaged).error().code(), Code::kCorrupt);
    EXPECT_EQ(writer.add(ByteView(model.encoded).first(100)).error().code(), Code::kTruncated);
    EXPECT_TRUE(writer.empty()) << "a refused call must change nothing";

    Model large;
    for (uint64_t i = 0; i < kMaxSegmentPayloadBytes / kMaxWriteBytes; ++i) {
        h.sequence = {i + 1};
        large.add(h, Bytes(kMaxWriteBytes));
    }
    ASSERT_TRUE(writer.add(large.encoded));
    Model one_more;
    h.sequence.v = kMaxSegmentPayloadBytes / kMaxWriteBytes + 1;
    one_more.add(h, Bytes(1));
    EXPECT_EQ(writer.add(one_more.encoded).error().code(), Code::kTooLarge);
    EXPECT_EQ(writer.payload_bytes(), kMaxSegmentPayloadBytes);
    EXPECT_TRUE(writer.build(f.options())) << "a full segment must still be built";
}

// Broken if compaction could not write base objects whose records are in any order.
TEST(SegmentWriter, BaseObjectsTakeAnyOrder) {
    Fixture f;
    Model model;
    for (uint64_t sequence : {900u, 17u, 17u, 400u}) {
        RecordHeader h;
        h.sequence = {sequence};
        h.time = {static_cast<int64_t>(sequence)};
        h.offset_bytes = sequence * 512;
        model.add(h, Bytes(1000, static_cast<uint8_t>(sequence)));
    }
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(model.encoded));
    auto options = f.options();
    options.kind = SegmentKind::kBase;
    auto built = writer.build(options);
    ASSERT_TRUE(built) << built.error().to_string();
    EXPECT_EQ(built->header.first.v, 17u);
    EXPECT_EQ(built->header.last.v, 900u);
    const std::string name = segment_object_name(built->header);
    f.store.replace(name, built->object);
    auto reader = f.open(name);
    ASSERT_TRUE(reader) << reader.error().to_string();
    expect_holds(model, f.store, **reader);
}

}  // namespace
}  // namespace farshore
