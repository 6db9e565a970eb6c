#include "vault/seed_import.h"

#include <fmt/core.h>

#include <algorithm>

#include "record/record.h"
#include "replica/segment.h"
#include "store/object_store.h"

namespace farshore {
namespace {

constexpr uint64_t kSegmentPayloadBytes = 16u << 20;
constexpr uint64_t kExtentsBytes = 1u << 30;

class Importer {
  public:
    explicit Importer(SeedImport& import) : import_(import) {}

    Result<uint64_t> run() {
        FS_ASSIGN(lease_, import_.replica->acquire_log("seed"));
        next_ = lease_.next_segment;
        previous_ = lease_.previous_header;
        sequence_ = lease_.stored;
        for (const SeedDisk& disk : import_.disks) total_ += disk.size_bytes;
        RecordHeader gap;
        gap.kind = RecordKind::kGap;
        FS_TRY(append(gap));
        for (const SeedDisk& disk : import_.disks) {
            RecordHeader geometry;
            geometry.kind = RecordKind::kGeometry;
            geometry.disk = disk.disk;
            geometry.offset_bytes = disk.size_bytes;
            FS_TRY(append(geometry));
        }
        for (at_ = import_.from; at_.disk < import_.disks.size(); ++at_.disk, at_.offset_bytes = 0)
            FS_TRY(import_disk(import_.disks[at_.disk]));
        FS_TRY(flush());
        return imported_;
    }

  private:
    Status import_disk(SeedDisk& disk) {
        const uint64_t end = std::min(disk.size_bytes, disk.device->size_bytes());
        while (at_.offset_bytes < end) {
            const uint64_t asked = std::min(kExtentsBytes, end - at_.offset_bytes);
            FS_ASSIGN(const auto extents, disk.device->extents(at_.offset_bytes, asked));
            for (const BlockExtent& extent : extents) {
                const uint64_t to = std::min(extent.offset_bytes + extent.length_bytes, end);
                if (!extent.zero) FS_TRY(import_data(disk, to));
                at_.offset_bytes = std::max(at_.offset_bytes, to);
            }
        }
        return {};
    }

    Status import_data(SeedDisk& disk, uint64_t to) {
        while (at_.offset_bytes < to) {
            buffer_.resize(std::min<uint64_t>(kMaxWriteBytes, to - at_.offset_bytes));
            FS_TRY(disk.device->read(at_.offset_bytes, buffer_));
            if (!all_zero(buffer_)) {
                RecordHeader write;
                write.kind = RecordKind::kWrite;
                write.disk = disk.disk;
                write.offset_bytes = at_.offset_bytes;
                write.length_bytes = static_cast<uint32_t>(buffer_.size());
                FS_TRY(append(write, buffer_));
                imported_ += buffer_.size();
            }
            at_.offset_bytes += buffer_.size();
            if (writer_.payload_bytes() >= kSegmentPayloadBytes) FS_TRY(flush());
        }
        return {};
    }

    Status append(RecordHeader header, ByteView payload = {}) {
        sequence_ = sequence_.next();
        header.sequence = sequence_;
        header.time = import_.clock->now();
        record_.clear();
        append_record(record_, header, payload);
        return writer_.add(record_);
    }

    Status flush() {
        if (writer_.empty()) return {};
        SegmentWriter::BuildOptions options;
        options.item = import_.replica->item();
        options.epoch = lease_.epoch;
        options.number = next_;
        options.previous_header = previous_;
        options.item_key = &import_.item_key;
        options.random = import_.random;
        FS_ASSIGN(const BuiltSegment built, writer_.build(options));
        SegmentRegistration registration;
        registration.item = options.item;
        registration.epoch = built.header.epoch;
        registration.number = built.header.number;
        registration.object_name = segment_object_name(built.header);
        registration.object_bytes = built.object.size();
        registration.header_hash = built.header.header_hash;
        registration.previous_header = built.header.previous_header;
        registration.first = built.header.first;
        registration.last = built.header.last;
        registration.first_time = built.header.first_time;
        registration.last_time = built.header.last_time;
        FS_TRY(put_idempotent(*import_.store, registration.object_name, built.object));
        FS_TRY(import_.replica->register_segment(registration));
        next_ = next_.next();
        previous_ = registration.header_hash;
        uint64_t done = at_.offset_bytes;
        for (size_t i = 0; i < at_.disk && i < import_.disks.size(); ++i)
            done += import_.disks[i].size_bytes;
        return import_.report ? import_.report(at_, done, total_) : Status();
    }

    SeedImport& import_;
    LogLease lease_;
    SegmentNumber next_;
    Digest previous_{};
    Sequence sequence_;
    SeedPosition at_;
    uint64_t imported_ = 0, total_ = 0;
    SegmentWriter writer_;
    Bytes buffer_, record_;
};

}  // namespace

Result<uint64_t> import_seed(SeedImport& import) { return Importer(import).run(); }

}  // namespace farshore
