#include "block/replica_device.h"

namespace farshore {
namespace {

class ReplicaDevice final : public BlockDevice {
  public:
    explicit ReplicaDevice(std::shared_ptr<ReplicaDisk> disk) : disk_(std::move(disk)) {}

    uint64_t size_bytes() const override { return disk_->size_bytes(); }
    bool read_only() const override { return true; }
    Status read(uint64_t offset, MutableByteView out) override { return disk_->read(offset, out); }
    Status write(uint64_t, ByteView) override { return refuse(); }
    Status zero(uint64_t, uint64_t, bool) override { return refuse(); }
    Status discard(uint64_t, uint64_t) override { return refuse(); }
    Status flush() override { return {}; }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        FS_ASSIGN(const auto pieces, disk_->extents(offset, length));
        std::vector<BlockExtent> out;
        out.reserve(pieces.size());
        for (const ReplicaExtent& piece : pieces)
            out.push_back({piece.offset_bytes, piece.length_bytes, piece.zero, piece.zero});
        if (out.empty()) out.push_back({offset, length, false, false});
        return out;
    }

  private:
    static Status refuse() {
        return fail(Code::kForbidden, "a recovery point cannot be written",
                    "start a test failover to get a disk that can");
    }
    std::shared_ptr<ReplicaDisk> disk_;
};

}  // namespace

std::unique_ptr<BlockDevice> make_replica_device(std::shared_ptr<ReplicaDisk> disk) {
    return std::make_unique<ReplicaDevice>(std::move(disk));
}

}  // namespace farshore
