// An overlay's map with any content is refused by name or used.
#include "block/overlay_device.h"
#include "codec/crc32c.h"

namespace {
using namespace farshore;

class MemoryFile final : public File {
  public:
    explicit MemoryFile(Bytes bytes) : bytes_(std::move(bytes)) {}
    Result<size_t> read_at(uint64_t offset, MutableByteView out) override {
        if (offset >= bytes_.size()) return size_t{0};
        const size_t n = std::min<size_t>(out.size(), bytes_.size() - offset);
        std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), n, out.begin());
        return n;
    }
    Status write_at(uint64_t offset, ByteView data) override {
        bytes_.resize(std::max<size_t>(bytes_.size(), offset + data.size()));
        std::copy(data.begin(), data.end(), bytes_.begin() + static_cast<ptrdiff_t>(offset));
        return {};
    }
    Status sync() override { return {}; }
    Status truncate(uint64_t size) override {
        bytes_.resize(size);
        return {};
    }
    Result<uint64_t> size() override { return bytes_.size(); }
    Status punch_hole(uint64_t, uint64_t) override { return {}; }

  private:
    Bytes bytes_;
};

class MemoryDisk final : public BlockDevice {
  public:
    uint64_t size_bytes() const override { return bytes_.size(); }
    bool read_only() const override { return false; }
    Status read(uint64_t offset, MutableByteView out) override {
        std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
        return {};
    }
    Status write(uint64_t offset, ByteView data) override {
        std::copy(data.begin(), data.end(), bytes_.begin() + static_cast<ptrdiff_t>(offset));
        return {};
    }
    Status zero(uint64_t offset, uint64_t length, bool) override {
        return write(offset, Bytes(length));
    }
    Status discard(uint64_t offset, uint64_t length) override {
        return write(offset, Bytes(length));
    }
    Status flush() override { return {}; }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        return std::vector<BlockExtent>{{offset, length, false, false}};
    }

  private:
    Bytes bytes_ = Bytes(100'001);
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    Bytes content(data + 1, data + size);
    if ((data[0] & 1) != 0 && content.size() >= 4096) {
        store_u32(content.data() + 12, 0);
        store_u32(content.data() + 12, crc32c(ByteView(content).first(4096)));
    }
    OverlayParts parts;
    parts.base = std::make_unique<MemoryDisk>();
    parts.data = std::make_unique<MemoryDisk>();
    parts.map = std::make_unique<MemoryFile>(std::move(content));
    auto overlay = open_overlay(std::move(parts));
    if (!overlay) return 0;
    Bytes buffer(5'000);
    FS_CHECK((*overlay)->read(95'001, buffer).has_value());
    FS_CHECK((*overlay)->write(3'000, buffer).has_value());
    FS_CHECK((*overlay)->cache(2'000, 70'000).has_value());
    FS_CHECK((*overlay)->flush().has_value());
    (void)(*overlay)->written();
    return 0;
}
