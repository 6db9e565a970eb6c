// Files that version 1 wrote and that every later version must read. They are never edited; a new
// format adds a folder beside v1. FARSHORE_WRITE_GOLDEN=1 writes missing ones.
#include <gtest/gtest.h>

#include <cstdlib>

#include "os/real.h"
#include "os/test_paths.h"
#include "record/record.h"
#include "replica/item_object.h"
#include "replica/segment.h"
#include "store/memory_store.h"

namespace farshore {
namespace {

const std::string kFolder = test_source_directory() + "/src/replica/testdata/v1/";

// Counts: the same keys and nonces in every run.
class CountingRandom final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = next_++;
    }

  private:
    uint8_t next_ = 0;
};

const ItemId kItem{{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3,
                    0xd2, 0xe1, 0xf0}};
Secret item_key() { return Secret(Bytes(32, 0x5a)); }
KeyFile key_file() {
    const Secret key(Bytes(32, 0xa5));
    return {key_id(key), key};
}

Bytes repeated(std::string_view text, size_t n) {
    Bytes out;
    while (out.size() < n) out.push_back(static_cast<uint8_t>(text[out.size() % text.size()]));
    return out;
}

// One record of every kind; payload that is cut into a zstd and a raw chunk.
struct Expected {
    RecordHeader header;
    Bytes payload;
};
std::vector<Expected> golden_records() {
    std::vector<Expected> out;
    uint64_t sequence = 41;
    const auto add = [&](RecordKind kind, DiskIndex disk, uint64_t offset, uint32_t length,
                         Bytes payload = {}, uint8_t flags = 0) {
        RecordHeader h;
        h.kind = kind;
        h.flags = flags;
        h.disk = disk;
        h.sequence = {++sequence};
        h.time = {1'700'000'000'000'000 + static_cast<int64_t>(sequence * 1'001)};
        h.offset_bytes = offset;
        h.length_bytes = payload.empty() ? length : static_cast<uint32_t>(payload.size());
        out.push_back({h, std::move(payload)});
    };
    add(RecordKind::kGeometry, 0, 10ull << 30, 0);
    add(RecordKind::kWrite, 0, 4096, 0, repeated("farshore ", 65'536));
    Bytes noise(6000);
    uint32_t state = 1;
    for (uint8_t& b : noise) b = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    add(RecordKind::kWrite, 1, 777, 0, noise);
    add(RecordKind::kZero, 0, 1u << 20, 1u << 30);
    add(RecordKind::kDiscard, 1, 8u << 20, 512);
    add(RecordKind::kFlush, 0, 0, 0);
    add(RecordKind::kTime, 0, 0, 0);
    add(RecordKind::kPoint, 0, 0, 0, repeated("before the update", 17), 3);
    sequence += 100;
    add(RecordKind::kGap, 0, 0, 0);
    add(RecordKind::kResynced, 0, 0, 0);
    add(RecordKind::kWrite, 0, 69'632, 0, repeated("x", 1));
    return out;
}

Result<Bytes> golden(const std::string& name, const std::function<Bytes()>& make) {
    PosixFileSystem files;
    if (std::getenv("FARSHORE_WRITE_GOLDEN") != nullptr && !*files.exists(kFolder + name)) {
        FS_TRY(files.make_directories(kFolder));
        FS_TRY(write_file_durably(files, kFolder + name, make(), FileAccess::kPublic));
    }
    return read_whole_file(files, kFolder + name);
}

// Broken if a later version could not read the stores of version 1.
TEST(Golden, Segment) {
    auto object = golden("segment.bin", [] {
        SegmentWriter writer;
        Bytes encoded;
        for (const Expected& record : golden_records())
            append_record(encoded, record.header, record.payload);
        FS_CHECK(writer.add(encoded));
        CountingRandom random;
        const Secret key = item_key();
        SegmentWriter::BuildOptions options;
        options.item = kItem;
        options.epoch = {3};
        options.number = {12};
        options.previous_header.fill(0xcd);
        options.item_key = &key;
        options.random = &random;
        return writer.build(options)->object;
    });
    ASSERT_TRUE(object) << object.error().to_string();
    MemoryStore store;
    SegmentHeader named;
    named.item = kItem;
    named.epoch = {3};
    named.number = {12};
    const std::string name = segment_object_name(named);
    ASSERT_TRUE(store.put(name, *object));
    auto reader = SegmentReader::open(store, name, kItem, item_key());
    ASSERT_TRUE(reader) << reader.error().to_string();
    const SegmentHeader& header = (*reader)->header();
    EXPECT_EQ(header.first.v, 42u);
    EXPECT_EQ(header.last.v, 152u);
    EXPECT_EQ(header.previous_header[31], 0xcd);
    EXPECT_EQ(header.chunk_count, 2u);
    const auto expected = golden_records();
    ASSERT_EQ((*reader)->index().size(), expected.size());
    Bytes stream;
    for (size_t i = 0; i < expected.size(); ++i) {
        const IndexEntry& entry = (*reader)->index()[i];
        const RecordHeader& h = expected[i].header;
        EXPECT_EQ(entry.kind, h.kind) << i;
        EXPECT_EQ(entry.flags, h.flags) << i;
        EXPECT_EQ(entry.disk, h.disk) << i;
        EXPECT_EQ(entry.sequence, h.sequence) << i;
        EXPECT_EQ(entry.time, h.time) << i;
        EXPECT_EQ(entry.offset_bytes, h.offset_bytes) << i;
        EXPECT_EQ(entry.length_bytes, h.length_bytes) << i;
        if (h.kind == RecordKind::kPoint) {
            EXPECT_EQ(entry.label, to_text(expected[i].payload));
        }
        if (h.kind == RecordKind::kWrite)
            stream.insert(stream.end(), expected[i].payload.begin(), expected[i].payload.end());
    }
    Bytes read;
    for (uint32_t i = 0; i < header.chunk_count; ++i) {
        auto chunk = (*reader)->read_chunk(store, i);
        ASSERT_TRUE(chunk) << chunk.error().to_string();
        read.insert(read.end(), chunk->begin(), chunk->end());
    }
    EXPECT_EQ(read, stream);
    EXPECT_TRUE((*reader)->verify_all(store));
}

TEST(Golden, ItemObject) {
    auto object = golden("item", [] {
        CountingRandom random;
        ItemObject item;
        item.item = kItem;
        item.name = "web-1";
        item.created = {1'700'000'000'123'456};
        item.disks = {{0, "vda", 10ull << 30}, {1, "vdb", 1ull << 40}};
        item.machine_json = R"({"cpus":2})";
        FS_CHECK(wrap_item_key(item, item_key(), key_file(), random));
        return *encode_item_object(item);
    });
    ASSERT_TRUE(object) << object.error().to_string();
    auto item = decode_item_object(*object, kItem);
    ASSERT_TRUE(item) << item.error().to_string();
    EXPECT_EQ(item->name, "web-1");
    EXPECT_EQ(item->disks.size(), 2u);
    EXPECT_EQ(item->disks[1].size_bytes, 1ull << 40);
    auto key = open_item_key(*item, key_file());
    ASSERT_TRUE(key);
    EXPECT_TRUE(std::ranges::equal(key->reveal(), item_key().reveal()));
}

}  // namespace
}  // namespace farshore
