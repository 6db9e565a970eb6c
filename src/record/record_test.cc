#include "record/record.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

RecordHeader write_header(uint64_t sequence) {
    RecordHeader header;
    header.sequence = {sequence};
    header.time = {1'700'000'000'000'000};
    header.disk = 3;
    header.offset_bytes = 4096;
    return header;
}

// Broken if what the tap wrote could not be read back by anybody behind it.
TEST(Record, ComesBackAsItWas) {
    Bytes out;
    append_record(out, write_header(7), as_bytes("payload"));
    RecordCursor cursor(out, true);
    auto record = cursor.next();
    ASSERT_TRUE(record) << record.error().to_string();
    EXPECT_EQ(record->header.sequence.v, 7u);
    EXPECT_EQ(record->header.disk, 3);
    EXPECT_EQ(record->header.offset_bytes, 4096u);
    EXPECT_EQ(as_text(record->payload), "payload");
    EXPECT_TRUE(cursor.done());
}

// Broken if a flipped bit anywhere in header or payload went unnoticed.
TEST(Record, EveryFlippedBitIsFound) {
    Bytes out;
    append_record(out, write_header(7), as_bytes("payload"));
    for (size_t bit = 0; bit < out.size() * 8; ++bit) {
        Bytes damaged = out;
        damaged[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
        EXPECT_FALSE(RecordCursor(damaged, true).next()) << "bit " << bit;
    }
}

TEST(Record, EveryTruncationIsFound) {
    Bytes out;
    append_record(out, write_header(7), as_bytes("payload"));
    for (size_t n = 1; n < out.size(); ++n) {
        auto record = RecordCursor(ByteView(out).first(n), true).next();
        ASSERT_FALSE(record);
        EXPECT_EQ(record.error().code(), Code::kTruncated);
    }
}

// Broken if a peer could make us write outside of the largest disk, or hold a giant payload.
TEST(Record, LimitsAreChecked) {
    const auto refused = [](RecordHeader header) {
        uint8_t raw[kRecordHeaderBytes];
        encode_record_header(header, raw);
        return !decode_record_header(raw);
    };
    RecordHeader header = write_header(1);
    header.length_bytes = kMaxWriteBytes;
    EXPECT_FALSE(refused(header));
    header.length_bytes = kMaxWriteBytes + 1;
    EXPECT_TRUE(refused(header));
    header = write_header(1);
    header.length_bytes = 0;
    EXPECT_TRUE(refused(header));
    header = write_header(0);
    header.length_bytes = 1;
    EXPECT_TRUE(refused(header));
    header = write_header(1);
    header.length_bytes = 2;
    header.offset_bytes = kMaxDiskBytes - 1;
    EXPECT_TRUE(refused(header));
    header = write_header(1);
    header.kind = static_cast<RecordKind>(10);
    EXPECT_TRUE(refused(header));
    header = write_header(1);
    header.length_bytes = 1;
    header.disk = kMaxDisks;
    EXPECT_TRUE(refused(header));
}

}  // namespace
}  // namespace farshore
