// The file of a dirty map: its bytes, twice. Each header page and each unit of the map is there in
// two copies, written one after the other and made durable by one sync, so that damage of either
// costs nothing. Bytes: docs/format/dirty-map.md; reasons: docs/design/capture.md.
//
// One thread at a time; DirtyMap sees to it. Knows nothing of what the bits mean, but that a set
// one may always be believed: of two copies that differ the union counts.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/seams.h"

namespace farshore {

inline constexpr uint64_t kMinRegionBytes = 1u << 20;
inline constexpr uint64_t kMaxRegionsPerDisk = 1u << 20;
// A unit is what a disk writes whole: 512 bytes, of which these words are regions.
inline constexpr size_t kDirtyWordsPerUnit = 63;

// The smallest power of two of at least kMinRegionBytes that gives at most kMaxRegionsPerDisk.
uint64_t dirty_region_bytes(uint64_t disk_bytes);

class DirtyMapFile {
  public:
    using Words = std::vector<uint64_t>;  // a bit each region, whole units
    static std::span<const uint64_t> words_of(const Words& bits, uint64_t unit) {
        return std::span(bits).subspan(unit * kDirtyWordsPerUnit, kDirtyWordsPerUnit);
    }
    struct Disk {
        uint64_t size_bytes = 0;
        uint64_t region_bytes = 0;
        uint64_t first_unit = 0;
        uint64_t units = 0;
        uint64_t regions() const { return (size_bytes + region_bytes - 1) / region_bytes; }
    };
    struct Header {
        uint64_t generation = 0;
        uint64_t reserved_until = 1;
        bool all_dirty = true;
    };
    // Header pages and units: of which one copy was damaged, of which both were.
    struct Damage {
        uint64_t mended = 0;
        uint64_t lost = 0;
    };
    struct Content {
        Header header;
        std::vector<Words> bits;  // by disk; those of a lost unit are all set
        Damage damage;
    };
    // One unit to be written.
    struct Unit {
        uint64_t index = 0;  // in a copy
        Bytes bytes;
    };

    DirtyMapFile(FileSystem& files, std::string path, const ItemId& item,
                 const std::vector<uint64_t>& disk_bytes);

    const std::vector<Disk>& disks() const { return disks_; }
    const std::string& path() const { return path_; }

    // A new file with no bit set; replaces one that is there. Durable when it returns.
    Status create(const Header& header);
    // What is there, and then that again, in both copies and durable: a tap that was killed between
    // write and sync leaves what can be read and is not on the disk, and damage of one copy is
    // mended. `settled` says whether that went well. A file of version 1 becomes one of this.
    // kNotFound; kCorrupt, kMalformed, kTruncated (no header); kNewerVersion; kForeignStore;
    // kDiskChanged (other disks or sizes).
    Result<Content> open(Status& settled);

    // The sizes of the disks that the file there is of, by the newest header that is whole. Errors
    // as open().
    static Result<std::vector<uint64_t>> stored_disks(FileSystem& files, const std::string& path);
    // The file of this content, beside the one that is there, which counts until the new one is
    // complete.
    Status renew(const Content& content);

    // The disk's unit `unit`, to be put(); `words` are its kDirtyWordsPerUnit.
    Unit unit(size_t disk, uint64_t unit, std::span<const uint64_t> words) const;
    // Into both copies; durable with the next sync of whatever kind.
    Status put(const std::vector<Unit>& units);
    // Into both copies, durable when it returns: one sync.
    Status put_synced(const std::vector<Unit>& units);
    // Durable when it returns: one sync. Its generation must be above the one before.
    Status write_header(const Header& header);

    // Calls of fdatasync so far.
    uint64_t syncs() const { return syncs_; }
    // For tests only: the second copy is written when the first one is durable, as an economy that
    // looks harmless.
    void plant_late_copy() { late_copy_ = true; }

  private:
    Bytes encode_header(const Header& header) const;
    // The header that the page holds, and in `version` whose layout the file has.
    Result<Header> decode_header(ByteView page, uint32_t& version) const;
    Result<Content> load(Bytes images[2], bool header_damaged[2], uint32_t& version);
    Result<Content> load_version_1(const Header& header);
    Status settle(const Content& content, const Bytes images[2], const bool header_damaged[2]);
    Status put_copy(size_t copy, const std::vector<Unit>& units);
    Status put_header(const Header& header, uint64_t slot);
    Status sync();
    Bytes read_copy(size_t copy) const;
    Status write_new(const std::string& path, const Content& content);
    uint64_t copy_bytes() const;

    FileSystem& files_;
    const std::string path_;
    const ItemId item_;
    std::vector<Disk> disks_;
    uint64_t units_ = 0;
    std::unique_ptr<File> file_;
    uint64_t syncs_ = 0;
    bool late_copy_ = false;
};

}  // namespace farshore
